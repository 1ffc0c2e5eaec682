"""A corpus in a table: pages and queries by split and kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import pandas as pd

from miner_diag.corpus.core import SPLITS, Corpus, Skipped
from miner_diag.corpus.languages import language_of
from miner_diag.texts import inert

KINDS = ("outline", "figure", "table", "given")
ENGLISH_ONLY = (
    "the embedded models (page-text, page-text-bge, page-text-late, page-vision) read English only; use a retriever "
    "that knows the language"
)
"""What other languages mean for the retrievers that come with the package."""


def corpus_summary(corpus: Corpus) -> pd.DataFrame:
    """Return one row per split and one for all.

    Columns: split, documents, pages, pages_with_query, pages_without_text, queries, and queries of each kind.
    """
    gold = {page_id for judged in corpus.qrels.values() for page_id in judged}
    rows = []
    for name in (*SPLITS, "all"):
        pages = [p for p in corpus.pages if name in ("all", corpus.splits[p.doc_id])]
        queries = [q for q in corpus.queries if name in ("all", corpus.splits[q.doc_id])]
        rows.append(
            {
                "split": name,
                "documents": len({page.doc_id for page in pages}),
                "pages": len(pages),
                "pages_with_query": sum(page.page_id in gold for page in pages),
                "pages_without_text": sum(not page.text for page in pages),
                "queries": len(queries),
                **{kind: sum(query.kind == kind for query in queries) for kind in KINDS},
            }
        )
    return pd.DataFrame(rows)


def skipped_lines(skipped: Sequence[Skipped], n_names: int = 3) -> list[str]:
    """Return a line for each reason that something was left out for, with how much and the first names."""
    names: dict[str, list[str]] = defaultdict(list)
    for item in skipped:
        names[item.reason].append(item.name)
    lines = []
    for reason, found in names.items():
        more = f" and {len(found) - n_names} more" if len(found) > n_names else ""
        lines.append(inert(f"left out: {', '.join(found[:n_names])}{more}: {reason}"))
    return lines


def document_languages(corpus: Corpus) -> dict[str, str | None]:
    """Return doc_id -> the language of its pages and queries; None where they are too short to tell."""
    texts: dict[str, list[str]] = defaultdict(list)
    for page in corpus.pages:
        texts[page.doc_id].append(page.text)
    for query in corpus.queries:
        texts[query.doc_id].append(query.text)
    return {doc_id: language_of(found) for doc_id, found in texts.items()}


def language_note(corpus: Corpus) -> str | None:
    """Return what a reader must know of queries or documents that are not in English; None if there are none."""
    others = [name for name in corpus.languages if name != "english"]
    if others:
        count = sum(query.language in others for query in corpus.queries)
        return f"{count} of {len(corpus.queries)} queries of {corpus.name} are in {', '.join(others)}: {ENGLISH_ONLY}"
    counts = Counter(name for name in document_languages(corpus).values() if name not in (None, "English"))
    if not counts:
        return None
    found = ", ".join(f"{count} in {name}" for name, count in counts.most_common())
    return (
        f"{counts.total()} of {len(corpus.splits)} documents of {corpus.name} are not in English ({found}, by their "
        f"letters and commonest words): {ENGLISH_ONLY}"
    )
