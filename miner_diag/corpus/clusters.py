"""What intervals are over: documents, whose pages and queries are alike, or single items."""

from __future__ import annotations

from miner_diag.corpus.core import Corpus

MIN_DOCUMENTS = 6
"""Fewest documents that intervals are taken over by default: down to here the simulated coverage holds."""


def over_documents(corpus: Corpus, asked: str) -> tuple[bool, list[str]]:
    """Return whether intervals are over documents, and a caution where they are not.

    Raises
    ------
    ValueError
        If documents are asked for and there are fewer than 2 with queries.
    """
    n_documents = len({query.doc_id for query in corpus.queries})
    if asked == "documents" and n_documents < 2:
        raise ValueError(
            f"intervals over documents need at least 2 documents with queries; {corpus.name} ({corpus.part}) has "
            f"{n_documents}. Use --intervals-over items or another split"
        )
    if asked == "documents" or (asked == "auto" and n_documents >= MIN_DOCUMENTS):
        return True, []
    caution = (
        f"intervals are over single items of {n_documents} documents: other documents can move the numbers further"
    )
    return False, [caution]
