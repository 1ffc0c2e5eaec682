"""Fetch and check a data set, and show what is in it: what the command of this folder does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
from tyro.conf import OmitArgPrefixes

from miner_diag.command import command_line
from miner_diag.corpus.core import Corpus
from miner_diag.corpus.elsewhere import elsewhere_lines, elsewhere_summary
from miner_diag.corpus.manifest import frozen_text, read_manifest_documents
from miner_diag.corpus.manifest_file import read_manifest
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.summary import corpus_summary, skipped_lines
from miner_diag.files import atomic_path, write_atomic
from miner_diag.records import Record
from miner_diag.runs import RunFolder
from miner_diag.tables import table_text
from miner_diag.texts import inert


@dataclass(frozen=True)
class CorpusOptions:
    """Fetch and check a data set, and show what is in it."""

    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    pictures: int = 0
    """The number of pages that are drawn into the output folder with their queries, evenly spread over the queries."""
    out: Path = Path("runs/corpus")
    """The folder that is written to."""
    freeze: Path | None = None
    """A manifest file. Its documents are read, their counts and content hash are written into it, and nothing else is
    done."""


def run(options: CorpusOptions) -> None:
    """Run the command."""
    if options.freeze is not None:
        manifest = read_manifest(options.freeze)
        write_atomic(options.freeze, frozen_text(manifest, read_manifest_documents(manifest)))
        print(f"{inert(options.freeze)}: counts and content hash written")
        return
    folder = RunFolder(options.out, "miner_diag.corpus", options)
    corpus = options.data.load()
    folder.stage("load")
    summary = corpus_summary(corpus)
    folder.table("corpus", summary)
    skipped = [(item.name, item.reason) for item in corpus.skipped]
    folder.table("skipped", pd.DataFrame(skipped, columns=["name", "reason"]))
    elsewhere = elsewhere_summary(corpus)
    folder.table("elsewhere", elsewhere)
    folder.records([*summary_records(summary, corpus), *elsewhere_records(elsewhere, corpus)])
    step = max(1, len(corpus.queries) // max(1, options.pictures))
    for number, query in enumerate(corpus.queries[::step][: options.pictures]):
        page_id = next(iter(corpus.qrels[query.query_id]))
        with atomic_path(options.out / f"page-{number:03d}.png") as path:
            corpus.render(page_id).save(path)
        print(inert(f"page-{number:03d}.png  {page_id}  {query.kind}: {query.text}"))
    folder.stage("pictures")
    print(inert(f"{corpus.name}: {corpus.form} queries, fold {corpus.fold}"))
    print(table_text(summary, index=False))
    folder.finish(
        facts={"corpus_revision": corpus.revision, "skipped": {item.name: item.reason for item in corpus.skipped}},
        lines=[*elsewhere_lines(elsewhere), *(skipped_lines(corpus.skipped) or ["nothing was left out"])],
        next_command=command_line(
            "cka", {"data": options.data.data, **({"split": "test"} if corpus.test_only else {})}
        ),
    )


def summary_records(summary: pd.DataFrame, corpus: Corpus) -> Iterator[Record]:
    """Yield every count of the summary as a record, and how many pages answer each query."""
    row = _row_of(corpus)
    for counts in summary.to_dict("records"):
        split = str(counts.pop("split"))
        for measure, count in counts.items():
            yield row(split=split, measure=f"n_{measure}", value=float(count))
    for query in corpus.queries:
        n_pages = float(len(corpus.qrels[query.query_id]))
        yield row(split=corpus.splits[query.doc_id], measure="n_gold_pages", value=n_pages, query_id=query.query_id)


def elsewhere_records(elsewhere: pd.DataFrame, corpus: Corpus) -> Iterator[Record]:
    """Yield, for each kind of query, on how many other pages its words stand, and of how many queries."""
    row = _row_of(corpus)
    for counts in elsewhere.to_dict("records"):
        for column in ("elsewhere", "pages", "pages_without_query"):
            measure = f"n_{counts['kind']}_elsewhere" + ("" if column == "elsewhere" else f"_{column}")
            yield row(split="all", measure=measure, value=float(counts[column]))


def _row_of(corpus: Corpus) -> Callable[..., Record]:
    """Return what makes a record of a corpus; no retriever has a part in these numbers."""
    return partial(Record, model="none", model_revision="none", dataset=corpus.name)
