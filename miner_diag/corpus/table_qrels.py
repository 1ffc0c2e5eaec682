"""The judgements of a table: which file holds them, and what it says of the table's queries and pages."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from miner_diag.corpus.core import CorpusError, Skipped
from miner_diag.qrels import QRELS, Qrels, qrels_of, read_pairs

QRELS_FILES = (
    "qrels.tsv",
    "qrels/test.tsv",
    "qrels/dev.tsv",
    "qrels/validation.tsv",
    "qrels/train.tsv",
)
"""Where a table's judgements may be: the first of these that is there is read."""


def qrels_file(folder: Path) -> Path | None:
    """Return the file of judgements that is read; None if there is none."""
    return next((folder / name for name in QRELS_FILES if (folder / name).is_file()), None)


def unread_qrels(folder: Path, read: Path) -> list[Skipped]:
    """Return the files of judgements that are left out because another one is read."""
    name = read.relative_to(folder).as_posix()
    others = [other for other in QRELS_FILES if (folder / other).is_file() and other != name]
    return [Skipped(other, f"judgements are read from {name}") for other in others]


def read_table_qrels(path: Path, queries: Container[str], pages: Container[str]) -> Qrels:
    """Read a table's judgements; {query id: {page id: grade of at least 0}}.

    Raises
    ------
    CorpusError
        If a line is broken, or names a query or page that the table does not have.
    """
    try:
        pairs = read_pairs(path, QRELS)
    except ValueError as error:
        raise CorpusError(str(error)) from None
    for pair in pairs:
        if pair.query_id not in queries:
            raise CorpusError(f"{pair.where} names query {pair.query_id!r}, which queries.jsonl does not have")
        if pair.page_id not in pages:
            raise CorpusError(f"{pair.where} names page {pair.page_id!r}, which corpus.jsonl does not have")
    return qrels_of(pairs)
