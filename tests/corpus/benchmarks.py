"""Data sets laid out as ViDoRe's, made of pages of the shipped sample: several languages, grades, a damaged picture."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import yaml

from miner_diag.corpus import load
from miner_diag.corpus.benchmark_manifest import BY_LANGUAGE, SHARED
from miner_diag.corpus.pdf_reader import draw_page
from tests.corpus.parquet_files import save, write_card

SAMPLE = Path(load.__file__).parent / "sample"
LANGUAGES = ("french", "spanish", "english", "german")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
N_PAGES = 6
"""Pages of `pages`: 2 and 3 have the same picture."""


@functools.cache
def picture(number, kind="PNG"):
    """Return a page of the sample as the file of a picture, 120 pixels on its longer side."""
    content = io.BytesIO()
    draw_page(SAMPLE / "boolnet-vignette.pdf", number + 1, 120).save(content, kind)
    return content.getvalue()


def pages(damaged=None):
    """Return (id, picture) of six pages: PNG and JPEG, the third and fourth alike, the damaged one cut in half."""
    contents = [picture(0), picture(1, "JPEG"), picture(2), picture(2), picture(3), picture(4, "JPEG")]
    if damaged is not None:
        contents[damaged] = contents[damaged][: len(contents[damaged]) // 2]
    return list(enumerate(contents))


GRADES = {0: {0: 2, 1: 1}, 1: {3: 1}, 2: {4: 0, 5: 2}, 3: {4: 1}}
"""Query of a language -> page -> grade, where a test names no others: page 3 is the copy of page 2."""


def image(content):
    return {"bytes": content, "path": None}


def shared_tables(languages=LANGUAGES, damaged=None, grades=GRADES, column=True):
    """Return the rows of a data set with one table for all languages, as V1 and V2: the ids of queries are numbers."""
    queries, qrels = [], []
    for place, language in enumerate(languages):
        for number, judged in grades.items():
            query_id = place * len(grades) + number
            queries.append({"query-id": query_id, "query": f"{language} question {number}"})
            queries[-1] |= {"language": language} if column else {}
            qrels += [{"query-id": query_id, "corpus-id": page, "score": grade} for page, grade in judged.items()]
    corpus = [{"corpus-id": number, "image": image(content), "doc": "x"} for number, content in pages(damaged)]
    return {"queries": queries, "corpus": corpus, "qrels": qrels}


def tables_by_language(languages=LANGUAGES, damaged=None, grades=GRADES, id_column="id", prefix=True):
    """Return the rows of a data set with tables for each language, as V3; every table of qrels judges all queries."""

    def name(language, number):
        return f"query-{language if prefix else 'test'}-{number}"

    judged = {
        language: [
            {"query-id": name(language, number), "corpus-id": f"page-{page}", "score": grade}
            for number, pages in grades.items()
            for page, grade in pages.items()
        ]
        for language in languages
    }
    everything = [row for rows in judged.values() for row in rows]
    corpus = [{id_column: f"page-{number}", "image": image(content)} for number, content in pages(damaged)]
    tables = {}
    for language in languages:
        tables[f"{language}-queries"] = [
            {id_column: name(language, number), "text": f"{language} question {number}"} for number in grades
        ]
        tables[f"{language}-corpus"] = corpus
        tables[f"{language}-qrels"] = everything if prefix else judged[language]
    return tables


def write_benchmark(folder, tables, split="test"):
    """Write tables as a hub has them, a folder each, with a card."""
    for config, rows in tables.items():
        save(folder / config, split, rows)
    write_card(folder, {config: f"{config}/{split}-*" for config in tables}, split)
    return folder


def write_manifest(path, tables, **changes):
    """Write the manifest of such a data set, with right counts, and return its path."""
    by_language = "corpus" not in tables
    n_pages = len(next(rows for config, rows in tables.items() if config.endswith("corpus")))
    content = {
        "name": path.stem,
        "source": "hub",
        "benchmark": "ViDoRe V3" if by_language else "ViDoRe V2",
        "task": "Vidore9Task",
        "hub_id": f"owner/{path.stem}",
        "revision": COMMIT,
        "description": "Pages of the sample.",
        "configs": list(BY_LANGUAGE if by_language else SHARED),
        "split": "test",
        "languages": list(LANGUAGES),
        "counts": {"pages": n_pages, "pictures": n_pages - 1, "queries": 4, "judgements": 5},
        "metric": "ndcg_at_10" if by_language else "ndcg_at_5",
        "query_prompt": "Find a page.",
        "licence": "none",
        "facts": "made up",
    }
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False), encoding="utf-8")
    return path
