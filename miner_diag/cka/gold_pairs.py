"""Which query stands beside which page in a comparison of queries with pages: one query a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from miner_diag.cka.distinct import LEFT_OUT, DistinctItems
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
        queries: DistinctItems,
        pages: DistinctItems,
        page_documents: Sequence[str] | None = None,
        page_ids: Sequence[str] | None = None,
    ) -> GoldPairs:
        """Pair the queries [Q] with their gold pages, of P pages; see `one_query_a_page`.

        Pages' ids are given where the page with a query's own id is not ranked for that query.

        Raises
        ------
        ValueError
            If there are fewer than four different queries, pages or pairs: too few for a CKA.
        """
        query, page = one_query_a_page(gold, queries, pages)
        n_pages = len(pages.labels)
        for name, n in (
            ("queries that are read differently", len(queries)),
            ("pages that are read differently", len(pages)),
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
    gold: Sequence[dict[int, int]], queries: DistinctItems, pages: DistinctItems
) -> tuple[np.ndarray, np.ndarray]:
    """Pair each distinct gold page with one of its queries, so that rows are independent.

    A page that answers five queries would otherwise stand five times among the pages, and identical rows inflate CKA.
    So queries are taken in the order of the corpus, each with the first of its best pages that no earlier query took;
    no input of a query or of a page comes twice.

    Parameters
    ----------
    gold : sequence [Q] of dict
        For each query, page index -> relevance.
    queries, pages : DistinctItems
        Which of the Q queries and P pages have equal input.

    Returns
    -------
    ndarray [M], ndarray [M]
        Rows of the queries and of the pages.
    """
    taken_queries, taken_pages = {LEFT_OUT}, {LEFT_OUT}
    rows = []
    for query, grades in enumerate(gold):
        if (query_label := int(queries.labels[query])) in taken_queries:
            continue
        best = max(grades.values())
        for page in sorted(page for page, grade in grades.items() if grade == best):
            if (page_label := int(pages.labels[page])) not in taken_pages:
                taken_queries.add(query_label)
                taken_pages.add(page_label)
                rows.append((query, page))
                break
    paired = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return paired[:, 0], paired[:, 1]
