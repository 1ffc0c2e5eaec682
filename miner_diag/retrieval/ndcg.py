"""nDCG@k per query, with ties taken seriously.

The definition, in full:

- gain: linear (a page of grade 2 is worth twice a page of grade 1); discount: ``1 / log2(rank + 1)``;
- scores are compared as float32, the highest first;
- **ties**: a query's value is its expectation over all orders of the pages that share a score (McSherry and Najork
  2008). It does not depend on the order in which pages are stored, and a collapsed layer, which gives every page the
  same score, gets exactly the value of chance (`chance_ndcg`), neither 0 nor 1. The worst and the best order are
  reported beside it, and `tie_rate` is the share of queries for which they differ;
- a query without results counts 0 and stays in the mean; a page that was not retrieved gains nothing, yet counts in
  the ideal ranking that divides;
- a query without a relevant page has no nDCG: that is an error, not a 0.

Where no scores tie, this is ``ndcg_cut_k`` of trec_eval and `sklearn.metrics.ndcg_score`; where they tie, it is
still the latter, while trec_eval orders tied pages by their names.

References
----------
Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.
McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores", ECIR 2008, section 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from miner_diag.arrays import whole_number
from miner_diag.retrieval.metric_values import MetricValues
from miner_diag.retrieval.positions import Positions, positions_in_run, positions_in_scores
from miner_diag.retrieval.relevance import Relevance


@dataclass(frozen=True, eq=False)
class Ndcg(MetricValues):
    """NDCG@k of every query: the value, and what the order of tied pages could make of it."""

    k: int
    """The rank after which nothing counts."""


def ndcg_at_k(
    scores: np.ndarray, relevance: Relevance | np.ndarray | Sequence[Mapping[int, float]], k: int = 5
) -> np.ndarray:
    """Return nDCG@k of every query; `ndcg_with_ties` without its bounds.

    Parameters
    ----------
    scores : array [Q, P]
        Score of every page for every query, the higher the better; compared as float32. ``-inf`` means that the page
        was not retrieved.
    relevance : Relevance, array [Q, P] of grades, array [Q] of gold pages, or Q dicts {page index: grade}
        What is right. To score many layers against the same answers, build a `Relevance` once.
    k : int
        Ranks that count.

    Returns
    -------
    ndarray [Q]
        float64, in [0, 1].

    Examples
    --------
    Page 1 is right. The first query ranks it second (1 / log2(3)); the second cannot tell three pages apart.

    >>> ndcg_at_k(np.array([[0.9, 0.8, 0.1], [0.5, 0.5, 0.5]]), np.array([1, 1]), k=2).round(4)
    array([0.6309, 0.5436])
    """
    return ndcg_with_ties(scores, relevance, k).values


def ndcg_with_ties(
    scores: np.ndarray, relevance: Relevance | np.ndarray | Sequence[Mapping[int, float]], k: int = 5
) -> Ndcg:
    """Score a dense matrix, with tie rate and bounds; arguments as in `ndcg_at_k`.

    Raises
    ------
    ValueError
        As in `positions_in_scores`, or if k < 1.
    """
    return ndcg_of_positions(positions_in_scores(scores, relevance), k)


def ndcg_of_run(
    qrels: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Mapping[str, float]],
    k: int = 5,
    *,
    ignore_self: bool = False,
) -> Ndcg:
    """Score a run against qrels, both as nested dicts; arguments as in `positions_in_run`.

    Every query of `qrels` is scored; one that the run does not hold counts 0.

    Parameters
    ----------
    qrels : {query id: {page id: grade}}
        What is right.
    run : {query id: {page id: score}}
        What is scored.
    k : int
        Ranks that count; a run should hold more pages than that.
    ignore_self : bool
        Whether the page that has a query's own id is left out of that query's ranking.

    Raises
    ------
    ValueError
        As in `positions_in_run`, or if k < 1.
    """
    return ndcg_of_positions(positions_in_run(qrels, run, ignore_self=ignore_self), k)


def chance_ndcg(n_pages: int, n_relevant: int = 1, k: int = 5) -> float:
    """NDCG@k to expect of a random ranking, with `n_relevant` pages of equal grade among `n_pages`.

    Each relevant page stands on each rank with probability 1 / n_pages, so the expected DCG is
    ``n_relevant / n_pages * sum of the first k discounts``; divided by the ideal DCG.

    Examples
    --------
    >>> round(chance_ndcg(400), 4)
    0.0074
    """
    whole_number(n_pages, "n_pages")
    if not 1 <= whole_number(n_relevant, "n_relevant", least=-(2**63)) <= n_pages:
        raise ValueError(f"n_relevant must be between 1 and n_pages = {n_pages}; got {n_relevant}")
    total = _discount_sums(k)
    return float(n_relevant / n_pages * total[min(k, n_pages)] / total[min(k, n_relevant)])


def ndcg_of_positions(positions: Positions, k: int = 5) -> Ndcg:
    """Turn the positions of graded pages into nDCG@k of every query."""
    total = _discount_sums(k)
    query, grade, above, tied = positions.query, positions.grade, positions.above, positions.tied
    n_queries = len(positions.query_ids)

    def dcg(discount: np.ndarray) -> np.ndarray:
        return np.bincount(query, weights=grade * discount, minlength=n_queries)

    def at(rank: np.ndarray) -> np.ndarray:  # rank from 1
        return np.where(rank <= k, total[np.minimum(rank, k)] - total[np.minimum(rank, k) - 1], 0.0)

    spread = total[np.minimum(above + tied, k)] - total[np.minimum(above, k)]
    in_group = positions.in_group
    ideal = dcg(at(positions.in_query + 1))
    return Ndcg(
        values=np.minimum(dcg(spread / np.maximum(tied, 1)) / ideal, 1.0),
        worst=np.minimum(dcg(at(np.maximum(above + tied - in_group, 1))) / ideal, 1.0),
        best=np.minimum(dcg(at(above + 1 + in_group)) / ideal, 1.0),
        query_ids=positions.query_ids,
        k=k,
    )


def _discount_sums(k: int) -> np.ndarray:
    """[k + 1] sums of the first 0, 1, ..., k discounts."""
    k = whole_number(k, "k")
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
