"""What intervals are over: documents, whose pages and queries are alike, or single items."""

from __future__ import annotations

from collections import Counter

from miner_diag.corpus.core import Corpus
from miner_diag.stats import IntervalsOver, effective_number

MIN_DOCUMENTS = 6
"""Fewest documents that intervals are taken over by default: down to here the simulated coverage holds."""


def over_documents(corpus: Corpus, intervals_over: IntervalsOver) -> tuple[bool, list[str]]:
    """Return whether intervals are over documents, and what a reader must know of it.

    Parameters
    ----------
    corpus : Corpus
        The queries and pages that are measured.
    intervals_over : "auto", "items" or "documents"
        What the user chose; auto takes documents if at least `MIN_DOCUMENTS` have queries.

    Returns
    -------
    bool
        Whether intervals are over documents.
    list of str
        A sentence where they are over single items, or where few documents hold most of the queries.

    Raises
    ------
    ValueError
        If documents are chosen and there are fewer than 2 with queries.
    """
    sizes = Counter(query.doc_id for query in corpus.queries)
    n_documents = len(sizes)
    if intervals_over == "documents" and n_documents < 2:
        raise ValueError(
            f"intervals over documents need at least 2 documents with queries; {corpus.name} ({corpus.part}) has "
            f"{n_documents}. Use --intervals-over items or another split"
        )
    if intervals_over == "documents" or (intervals_over == "auto" and n_documents >= MIN_DOCUMENTS):
        effective = effective_number(list(sizes.values()))
        if effective >= min(MIN_DOCUMENTS, n_documents):
            return True, []
        return True, [
            f"intervals are over {n_documents} documents of unequal size; they are as wide as {effective:.1f} "
            "documents of equal size justify"
        ]
    caution = (
        f"intervals are over single items of {n_documents} documents: other documents can move the numbers further"
    )
    return False, [caution]
