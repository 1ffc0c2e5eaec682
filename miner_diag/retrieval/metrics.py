"""All metrics of a ranking at once: nDCG@k, recall@k, MRR@k and MAP of every query, with ties taken seriously.

The definitions, in full; what `ndcg` says of ties, of queries without results and of pages that were not retrieved
holds for every metric here:

- ``ndcg_at_k``: as in `ndcg`, with linear gain of the grades;
- ``recall_at_k``: the share of a query's relevant pages that stand on the first k ranks;
- ``mrr_at_k``: 1 / rank of the first relevant page, and 0 where that rank is beyond k;
- ``map``: average precision, the mean of (relevant pages up to its rank) / rank over the query's relevant pages, where
  one that was not retrieved adds 0; there is no cut, so a run that is cut off has a lower value than the whole ranking.

For the last three a page is relevant if its grade is above 0, as in trec_eval with level 1. **Ties**: a value is the
expectation over all orders of the pages that share a score, by closed formulas, not by trying orders. Where no scores
tie, these are ``recall_k``, ``recip_rank`` (cut at k) and ``map`` of trec_eval.

References
----------
McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores", ECIR 2008, section 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from miner_diag.arrays import whole_number
from miner_diag.retrieval.metric_values import MetricValues
from miner_diag.retrieval.ndcg import ndcg_of_positions
from miner_diag.retrieval.positions import NOT_RETRIEVED, Positions, positions_in_run, positions_in_scores
from miner_diag.retrieval.relevance import Relevance

METRICS = (
    "ndcg_at_1",
    "ndcg_at_5",
    "ndcg_at_10",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "mrr_at_10",
    "map",
)
"""The metrics of an evaluation, as files name them."""

_NAME = re.compile(r"(ndcg|recall|mrr)_at_([1-9][0-9]*)")
_LABELS = {"ndcg": "nDCG", "recall": "recall", "mrr": "MRR"}


def metrics_of_scores(
    scores: np.ndarray,
    relevance: Relevance | np.ndarray | Sequence[Mapping[int, float]],
    metrics: Sequence[str] = METRICS,
) -> dict[str, MetricValues]:
    """Return metrics of a dense score matrix.

    Parameters
    ----------
    scores : array [Q, P]
        Score of every page for every query, the higher the better; compared as float32. ``-inf`` means that the page
        was not retrieved.
    relevance : Relevance, array [Q, P] of grades, array [Q] of gold pages, or Q dicts {page index: grade}
        What is right.
    metrics : sequence of str
        Names: ``ndcg_at_k``, ``recall_at_k`` and ``mrr_at_k`` with any k from 1 on, and ``map``.

    Returns
    -------
    dict
        Name -> the metric of every query, with tie rate and bounds.

    Raises
    ------
    ValueError
        As in `positions_in_scores`, or if a metric has another name.

    Examples
    --------
    One right page, on rank 2; and the same page, tied with two others on the ranks 1 to 3.

    >>> found = metrics_of_scores(np.array([[0.9, 0.8, 0.1], [0.5, 0.5, 0.5]]), np.array([1, 1]))
    >>> found["recall_at_1"].values.round(4).tolist(), found["mrr_at_10"].values.round(4).tolist()
    ([0.0, 0.3333], [0.5, 0.6111])
    """
    return metrics_of_positions(positions_in_scores(scores, relevance), metrics)


def metrics_of_run(
    qrels: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str] = METRICS,
    *,
    ignore_self: bool = False,
) -> dict[str, MetricValues]:
    """Return metrics of ranked lists; a query of `qrels` that the run does not hold counts 0.

    Parameters
    ----------
    qrels, run, ignore_self
        As in `positions_in_run`.
    metrics : sequence of str
        As in `metrics_of_scores`.

    Raises
    ------
    ValueError
        As in `positions_in_run`, or if a metric has another name.
    """
    return metrics_of_positions(positions_in_run(qrels, run, ignore_self=ignore_self), metrics)


def metrics_of_positions(positions: Positions, metrics: Sequence[str] = METRICS) -> dict[str, MetricValues]:
    """Turn the positions of graded pages into metrics; names as in `metrics_of_scores`."""
    parsed = {name: parse_metric(name) for name in metrics}
    groups = _relevant_groups(positions)
    found: dict[str, MetricValues] = {}
    for name, (kind, k) in parsed.items():
        if kind == "ndcg":
            found[name] = ndcg_of_positions(positions, k)
        elif kind == "recall":
            found[name] = _recall(positions, groups, k)
        elif kind == "mrr":
            found[name] = _reciprocal_rank(positions, groups, k)
        else:
            found[name] = _average_precision(positions, groups)
    return found


def parse_metric(name: str) -> tuple[str, int]:
    """Return what a metric's name says: "ndcg", "recall", "mrr" or "map", and the rank after which nothing counts.

    Raises
    ------
    ValueError
        If it is no name of a metric.

    Examples
    --------
    >>> parse_metric("recall_at_10"), parse_metric("map")
    (('recall', 10), ('map', 0))
    """
    if name == "map":
        return "map", 0
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"metrics must be ndcg_at_k, recall_at_k or mrr_at_k with k from 1 on, or map; got {name!r}")
    return found[1], whole_number(int(found[2]), "k")


def metric_label(name: str) -> str:
    """Return how tables and figures write a metric.

    Examples
    --------
    >>> metric_label("ndcg_at_5"), metric_label("map")
    ('nDCG@5', 'MAP')
    """
    kind, k = parse_metric(name)
    return "MAP" if kind == "map" else f"{_LABELS[kind]}@{k}"


class _Groups(NamedTuple):
    """Groups of pages that share a score and hold a relevant page, ordered by query and score; G of them."""

    query: np.ndarray
    """[G] row of the query."""
    above: np.ndarray
    """[G] the number of pages that score higher."""
    size: np.ndarray
    """[G] the number of pages of the group."""
    relevant: np.ndarray
    """[G] the number of relevant ones among them."""
    before: np.ndarray
    """[G] the number of relevant pages of the query that score higher."""
    total: np.ndarray
    """[Q] the number of relevant pages of each query, whether they were retrieved or not."""


def _relevant_groups(positions: Positions) -> _Groups:
    relevant = positions.grade > 0
    total = np.bincount(positions.query[relevant], minlength=len(positions.query_ids))
    kept = relevant & (positions.above < NOT_RETRIEVED)
    query, above, tied = positions.query[kept], positions.above[kept], positions.tied[kept]
    order = np.lexsort((above, query))
    query, above, tied = query[order], above[order], tied[order]
    starts = np.ones(len(query), dtype=bool)
    starts[1:] = (np.diff(query) != 0) | (np.diff(above) != 0)
    first = np.flatnonzero(starts)
    counts = np.diff(np.append(first, len(query)))
    query_start = np.searchsorted(query, query[first])  # where the relevant pages of the group's query begin
    return _Groups(query[first], above[first], tied[first], counts, first - query_start, total)


def _values(positions: Positions, values: np.ndarray, worst: np.ndarray, best: np.ndarray) -> MetricValues:
    """Return the metric; sums of what is at most 1 may exceed it by rounding."""
    values, worst, best = (np.minimum(each, 1.0) for each in (values, worst, best))
    return MetricValues(values, worst, best, positions.query_ids)


def _recall(positions: Positions, groups: _Groups, k: int) -> MetricValues:
    room = np.clip(k - groups.above, 0, groups.size)  # ranks up to k that the group covers

    def share(found: np.ndarray) -> np.ndarray:
        return np.bincount(groups.query, weights=found, minlength=len(groups.total)) / groups.total

    expected = groups.relevant * (room / groups.size)
    worst = np.maximum(room - (groups.size - groups.relevant), 0)
    return _values(positions, share(expected), share(worst), share(np.minimum(room, groups.relevant)))


def _reciprocal_rank(positions: Positions, groups: _Groups, k: int) -> MetricValues:
    """Return MRR@k.

    Of n tied pages with r relevant ones, the first relevant one stands on place i with probability
    ``C(n - i, r - 1) / C(n, r)``; each is had from the one before it.
    """
    first = np.ones(len(groups.query), dtype=bool)
    first[1:] = np.diff(groups.query) != 0
    query, above, size, relevant = (part[first] for part in groups[:4])
    expected = np.zeros(len(query))
    probability = relevant / size
    last = int(np.clip(k - above, 0, size).max(initial=0))
    for place in range(1, last + 1):
        expected += np.where(above + place <= k, probability / (above + place), 0.0)
        probability = probability * np.maximum(size - place - relevant + 1, 0) / np.maximum(size - place, 1)

    def at(rank: np.ndarray) -> np.ndarray:
        return np.where(rank <= k, 1.0 / rank, 0.0)

    ends = at(above + size - relevant + 1), at(above + 1)
    return _values(positions, *(_spread(query, part, len(groups.total)) for part in (expected, *ends)))


def _spread(query: np.ndarray, values: np.ndarray, n_queries: int) -> np.ndarray:
    """[Q] the values of some queries, and 0 for the others."""
    spread = np.zeros(n_queries)
    spread[query] = values
    return spread


def _average_precision(positions: Positions, groups: _Groups) -> MetricValues:
    """Return average precision.

    Let c pages and b relevant ones stand above n tied pages with r relevant ones. The page on place i of them is
    relevant with probability r / n, and if it is, ``b + 1 + (i - 1) (r - 1) / (n - 1)`` relevant pages are expected up
    to it. The sum over i of that over c + i needs two harmonic numbers only.
    """
    above, size, relevant, before = groups.above, groups.size, groups.relevant, groups.before
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int((above + size).max(initial=0)) + 1))])
    inverse = harmonic[above + size] - harmonic[above]  # the sum of 1 / rank over the group's ranks
    others = (relevant - 1) / np.maximum(size - 1, 1)
    expected = relevant / size * ((before + 1) * inverse + others * (size - (above + 1) * inverse))
    # the relevant pages of a group on its first places, or on its last ones
    group = np.repeat(np.arange(len(relevant)), relevant)
    place = np.arange(len(group)) - np.repeat(np.cumsum(relevant) - relevant, relevant) + 1
    so_far = before[group] + place

    def mean(query: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return np.bincount(query, weights=gain, minlength=len(groups.total)) / groups.total

    worst = mean(groups.query[group], so_far / ((above + size - relevant)[group] + place))
    best = mean(groups.query[group], so_far / (above[group] + place))
    return _values(positions, mean(groups.query, expected), worst, best)
