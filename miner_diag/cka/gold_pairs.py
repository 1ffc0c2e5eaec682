"""Which query stands beside which page in a comparison of queries with pages: one query a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from miner_diag.retrieval.ndcg import chance_ndcg
from miner_diag.retrieval.relevance import Relevance

K = 5
"""The rank that nDCG is taken at."""


@dataclass(frozen=True, eq=False)
class GoldPairs:
    """The answers of a split, as a diagnosis needs them."""

    relevance: Relevance
    """Which pages answer which query."""
    query: np.ndarray
    """[M] rows of the paired queries."""
    page: np.ndarray
    """[M] rows of their pages."""
    documents: np.ndarray | None
    """[M] document of each pair; None where intervals are over single items."""
    chance: float
    """NDCG@5 of a random order."""

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def of(
        cls,
        gold: Sequence[dict[int, int]],
        *,
        query_ids: Sequence[str],
        page_hashes: Sequence[str],
        page_documents: Sequence[str] | None = None,
        page_ids: Sequence[str] | None = None,
    ) -> GoldPairs:
        """Pair the queries [Q] with their gold pages, of P pages; see `one_query_a_page`.

        Pages' ids are given where the page with a query's own id is not ranked for that query.

        Raises
        ------
        ValueError
            If there are fewer than four queries, pages or pairs: too few for a CKA.
        """
        query, page = one_query_a_page(gold, query_ids, page_hashes)
        n_pages = len(page_hashes)
        for name, n in (
            ("queries", len(gold)),
            ("pages", n_pages),
            ("query-page pairs with different pages", len(query)),
        ):
            if n < 4:
                raise ValueError(
                    f"CKA needs at least 4 {name}; this split has {n}. Take another --split or --fold, raise --limit, "
                    "or add documents"
                )
        relevance = replace(Relevance.of(list(gold), n_pages=n_pages), query_ids=tuple(query_ids))
        if page_ids is not None:
            relevance = relevance.ignoring_self(page_ids)
        documents = None if page_documents is None else np.asarray(page_documents)[page]
        ranked = relevance.n_ranked.tolist()
        chance = float(np.mean([chance_ndcg(n, len(grades), K) for n, grades in zip(ranked, gold, strict=True)]))
        return cls(relevance, query, page, documents, chance)


def one_query_a_page(
    gold: Sequence[dict[int, int]], query_ids: Sequence[str], page_hashes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Pair each distinct gold page with one of its queries, so that rows are independent.

    A page that answers five queries would otherwise stand five times among the pages, and identical rows inflate CKA.
    The query is the one whose id comes first; the page, a query's first best.

    Returns
    -------
    ndarray [M], ndarray [M]
        Rows of the queries and of the pages.
    """
    chosen: dict[str, tuple[str, int, int]] = {}
    for row, (query_id, grades) in enumerate(zip(query_ids, gold, strict=True)):
        page = min(grades, key=lambda index: (-grades[index], index))
        pair = (query_id, row, page)
        chosen[page_hashes[page]] = min(chosen.get(page_hashes[page], pair), pair)
    rows = sorted((row, page) for _, row, page in chosen.values())
    return np.array([row for row, _ in rows], dtype=np.int64), np.array([page for _, page in rows], dtype=np.int64)
