"""NDCG@k of vectors or of other scores: every page is scored for every query, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from miner_diag.arrays import real_array, refuse_other_labels
from miner_diag.retrieval.ndcg import Ndcg, ndcg_with_ties
from miner_diag.retrieval.relevance import Relevance
from miner_diag.retrieval.search import Similarity, score_all

_BLOCK = 1 << 26  # scores held at once: 256 MiB of float32


def ndcg_of_vectors(
    queries: np.ndarray,
    pages: np.ndarray,
    relevance: Relevance,
    k: int = 5,
    similarity: Similarity = "cosine",
    *,
    page_ids: Sequence[str] | None = None,
) -> Ndcg:
    """Score every page for every query and take nDCG@k; the score matrix is never held whole.

    Parameters
    ----------
    queries : array [Q, D]
        One vector per query.
    pages : array [P, D]
        One vector per page.
    relevance : Relevance
        Grades of Q queries over P pages; its ids name the queries in messages.
    k : int
        Number of ranks that count.
    similarity : "cosine" or "dot"
        As in `score_all`.
    page_ids : sequence [P] of str, optional
        Names of the pages in messages.

    Raises
    ------
    ValueError
        If shapes do not fit, or a vector is zero (for cosine) or holds NaN or Inf; the item is named.

    Examples
    --------
    >>> answers = Relevance.of(np.array([1]), n_pages=2)
    >>> ndcg_of_vectors(np.array([[1.0, 0.2]]), np.array([[0.0, 1.0], [3.0, 0.0]]), answers).values
    array([1.])
    """
    refuse_other_labels({"queries": queries, "pages": pages}, axis="columns")
    queries, pages = real_array(queries, "queries"), real_array(pages, "pages")
    if queries.ndim != 2 or pages.ndim != 2:
        raise ValueError(f"queries must be [Q, D] and pages [P, D]; got {list(queries.shape)} and {list(pages.shape)}")
    if len(queries) != relevance.n_queries:
        raise ValueError(
            f"relevance must hold one row per query: it has {relevance.n_queries}, queries has {len(queries)}"
        )

    def scores_of(rows: slice) -> np.ndarray:
        return score_all(queries[rows], pages, similarity, query_ids=relevance.query_ids[rows], page_ids=page_ids)

    return ndcg_by_blocks(scores_of, relevance, k)


def ndcg_by_blocks(scores_of: Callable[[slice], np.ndarray], relevance: Relevance, k: int = 5) -> Ndcg:
    """Take nDCG@k of a score matrix that is never held whole.

    Parameters
    ----------
    scores_of : callable
        Takes a range of queries and returns their scores [q, P] of every page.
    relevance : Relevance
        Grades of Q queries over P pages.
    k : int
        Number of ranks that count.
    """
    step = max(1, _BLOCK // max(1, relevance.n_pages))
    parts = []
    for start in range(0, relevance.n_queries, step):
        stop = min(start + step, relevance.n_queries)
        first, last = np.searchsorted(relevance.query, [start, stop])
        part = Relevance(
            relevance.query[first:last] - start,
            relevance.page[first:last],
            relevance.grade[first:last],
            relevance.query_ids[start:stop],
            relevance.n_pages,
            None if relevance.own_page is None else relevance.own_page[start:stop],
        )
        parts.append(ndcg_with_ties(scores_of(slice(start, stop)), part, k))
    return Ndcg(
        values=np.concatenate([part.values for part in parts]),
        worst=np.concatenate([part.worst for part in parts]),
        best=np.concatenate([part.best for part in parts]),
        query_ids=relevance.query_ids,
        k=k,
    )
