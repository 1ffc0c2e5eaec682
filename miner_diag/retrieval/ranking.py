"""Metrics of vectors or of other scores: every page is scored for every query, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np

from miner_diag.arrays import real_array, refuse_other_labels
from miner_diag.retrieval.metric_values import MetricValues
from miner_diag.retrieval.metrics import METRICS, metrics_of_scores
from miner_diag.retrieval.ndcg import Ndcg, ndcg_with_ties
from miner_diag.retrieval.relevance import Relevance
from miner_diag.retrieval.search import Hits, Similarity, score_all
from miner_diag.retrieval.trec import RUN_DEPTH

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
    return ndcg_by_blocks(_scores_of_vectors(queries, pages, relevance, similarity, page_ids), relevance, k)


class MeasuredRanking(NamedTuple):
    """The ranking of a system, in every metric, and its first pages."""

    metrics: dict[str, MetricValues]
    """Name -> the metric of every query."""
    hits: Hits | None
    """[Q, `RUN_DEPTH`] the first pages, or all if there are fewer; None if they were not asked for."""

    def ndcg(self, k: int) -> Ndcg:
        """Return nDCG@k, if it was asked for."""
        return cast(Ndcg, self.metrics[f"ndcg_at_{k}"])


def measure_vectors(
    queries: np.ndarray,
    pages: np.ndarray,
    relevance: Relevance,
    metrics: Sequence[str] = METRICS,
    *,
    page_ids: Sequence[str] | None = None,
    hits: bool = True,
) -> MeasuredRanking:
    """Score every page for every query by cosine and take all metrics.

    Parameters
    ----------
    queries, pages, relevance, page_ids
        As in `ndcg_of_vectors`, and so are errors.
    metrics, hits
        As in `measure_by_blocks`.
    """
    scores_of = _scores_of_vectors(queries, pages, relevance, "cosine", page_ids)
    return measure_by_blocks(scores_of, relevance, metrics, hits=hits)


def measure_by_blocks(
    scores_of: Callable[[slice], np.ndarray],
    relevance: Relevance,
    metrics: Sequence[str] = METRICS,
    *,
    hits: bool = True,
) -> MeasuredRanking:
    """Take all metrics of a score matrix that need not be held whole, and its first pages.

    Parameters
    ----------
    scores_of : callable
        Takes a range of queries and returns their scores [q, P] of every page.
    relevance : Relevance
        Grades of Q queries over P pages.
    metrics : sequence of str
        Names, as in `metrics_of_scores`.
    hits : bool
        Whether the first pages are taken, too.
    """
    found, first = [], []
    for rows, part in _parts(relevance):
        scores = scores_of(rows)
        found.append(metrics_of_scores(scores, part, metrics))
        if hits:
            first.append(Hits.of_scores(part.without_own_pages(scores), RUN_DEPTH))
    joined = {name: found[0][name].joined(*(part[name] for part in found[1:])) for name in metrics}
    if not hits:
        return MeasuredRanking(joined, None)
    pages, first_scores = (np.concatenate([getattr(part, name) for part in first]) for name in ("pages", "scores"))
    return MeasuredRanking(joined, Hits(pages, first_scores))


def _scores_of_vectors(
    queries: np.ndarray,
    pages: np.ndarray,
    relevance: Relevance,
    similarity: Similarity,
    page_ids: Sequence[str] | None,
) -> Callable[[slice], np.ndarray]:
    """Return what gives the scores of a range of queries, after a check of the vectors' shapes."""
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

    return scores_of


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
    parts = [ndcg_with_ties(scores_of(rows), part, k) for rows, part in _parts(relevance)]
    return parts[0].joined(*parts[1:])


def _parts(relevance: Relevance) -> Iterator[tuple[slice, Relevance]]:
    """Yield ranges of queries, so many as `_BLOCK` allows, and what is right of them."""
    step = max(1, _BLOCK // max(1, relevance.n_pages))
    for start in range(0, relevance.n_queries, step):
        stop = min(start + step, relevance.n_queries)
        first, last = np.searchsorted(relevance.query, [start, stop])
        yield (
            slice(start, stop),
            Relevance(
                relevance.query[first:last] - start,
                relevance.page[first:last],
                relevance.grade[first:last],
                relevance.query_ids[start:stop],
                relevance.n_pages,
                None if relevance.own_page is None else relevance.own_page[start:stop],
            ),
        )
