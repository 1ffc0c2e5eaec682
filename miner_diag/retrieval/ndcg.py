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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from miner_diag.arrays import beyond_float32, names_its_rows, real_array, refuse_masked, whole_number
from miner_diag.retrieval.relevance import Relevance, refuse_own_answers

_NOT_RETRIEVED = np.iinfo(np.int64).max // 2
_LOST = (
    "scores are compared as float32, which cannot hold it apart from others; scale the scores or take their logarithms"
)
_BLOCK = 1 << 24  # score comparisons held at once: 16 MiB of booleans, 64 MiB of float32


@dataclass(frozen=True, eq=False)
class Ndcg:
    """NDCG@k of every query: the value, and what the order of tied pages could make of it."""

    values: np.ndarray
    """[Q] float64, in [0, 1]: the expectation over all orders of tied pages."""
    worst: np.ndarray
    """[Q] float64: the value if every tie were broken against the query."""
    best: np.ndarray
    """[Q] float64: the value if every tie were broken in its favour."""
    query_ids: tuple[str, ...]
    """[Q] one id per row."""
    k: int
    """The rank after which nothing counts."""

    @property
    def mean(self) -> float:
        """Mean over queries."""
        return float(self.values.mean())

    @cached_property
    def order_matters(self) -> np.ndarray:
        """[Q] bool: True where the order of tied pages changes the value."""
        return self.best - self.worst > 1e-12  # the two sums run in different orders, so equal may differ by an ulp

    @property
    def tie_rate(self) -> float:
        """Share of queries whose value depends on the order of tied pages."""
        return float(self.order_matters.mean())

    @property
    def bounds(self) -> tuple[float, float]:
        """Mean over queries of the worst and of the best value."""
        return float(self.worst.mean()), float(self.best.mean())


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
        If the scores are not [Q, P] numbers, hold a NaN, +inf, or a number that float32 would make infinite or 0 (query
        and page are named), if they do not fit the relevance or stand in another order of queries than it, if a query
        has no relevant page, or if k < 1.

    Notes
    -----
    No ranking is sorted: the position of a relevant page is the number of scores above its own. The cost is P
    comparisons per graded page, and memory for 2**24 of them at a time.
    """
    named = names_its_rows(scores)
    scores = _checked_scores(scores)
    if not isinstance(relevance, Relevance):
        relevance = Relevance.of(relevance, n_pages=scores.shape[1])
    if scores.shape != (relevance.n_queries, relevance.n_pages):
        raise ValueError(
            f"scores must be [queries, pages] = [{relevance.n_queries}, {relevance.n_pages}] as in relevance; "
            f"got {list(scores.shape)}"
        )
    if named is not None and relevance.names_queries and list(map(str, named)) != list(relevance.query_ids):
        row = next(i for i, (a, b) in enumerate(zip(named, relevance.query_ids, strict=True)) if str(a) != b)
        raise ValueError(
            f"scores and relevance pair by position, but row {row} of scores is {named[row]!r} and that of relevance "
            f"is query {relevance.query_ids[row]!r}; bring scores to that order, as with "
            "scores.loc[list(relevance.query_ids)], or pass scores.to_numpy() if positions are meant"
        )
    scores = relevance.without_own_pages(scores)
    above = np.empty(len(relevance.query), dtype=np.int64)
    tied = np.empty_like(above)
    for part in _blocks(len(above), scores.shape[1]):
        rows = relevance.query[part]
        one_each = bool((np.diff(rows) == 1).all())  # the usual case, one right page a query: rows without a copy
        block = scores[rows[0] : rows[-1] + 1] if one_each else scores[rows]
        own = scores[rows, relevance.page[part]]
        above[part] = np.count_nonzero(block > own[:, None], axis=1)
        tied[part] = np.count_nonzero(block == own[:, None], axis=1)
        above[part][own == -np.inf] = _NOT_RETRIEVED
    return _from_positions(above, tied, relevance.query, relevance.grade, relevance.query_ids, k)


def ndcg_of_run(
    qrels: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Mapping[str, float]],
    k: int = 5,
    *,
    ignore_self: bool = False,
) -> Ndcg:
    """Score a run against qrels, both as nested dicts (the form of BEIR and pytrec_eval).

    Every query of `qrels` is scored, in the order of `qrels`; one that the run does not hold counts 0. Queries of the
    run that have no qrels are left out.

    Parameters
    ----------
    qrels : {query id: {page id: grade}}
        Grades are at least 0; every query needs one above 0.
    run : {query id: {page id: score}}
        Scores are compared as float32. Pages that are tied with the last page of a cut-off run are unknown here, so a
        run should hold more than k pages.
    k : int
        Ranks that count.
    ignore_self : bool
        Whether the page that has a query's own id is left out of that query's ranking: it is the query itself.

    Raises
    ------
    ValueError
        If the qrels are empty or a query of them has no relevant page, if no query of the run is in the qrels, if a
        score is NaN or infinite (query and page are named), if a page that is to be left out is relevant, or if k < 1.
    """
    if not qrels:
        raise ValueError("qrels is empty; expected {query id: {page id: grade}}")
    if run and not any(query_id in qrels for query_id in run):
        raise ValueError(
            f"none of the {len(run)} queries of run is in qrels: run starts with {next(iter(run))!r}, qrels with "
            f"{next(iter(qrels))!r}; check that both use the same ids"
        )
    if ignore_self:
        refuse_own_answers([query_id for query_id, grades in qrels.items() if grades.get(query_id, 0) > 0])
        run = {query_id: {p: s for p, s in pages.items() if p != query_id} for query_id, pages in run.items()}
    above: list[int] = []
    tied: list[int] = []
    query: list[int] = []
    grade: list[float] = []
    for row, (query_id, grades) in enumerate(qrels.items()):
        scores = run.get(query_id, {})
        exact = real_array(list(scores.values()), f"run (its scores for query {query_id!r})")
        with np.errstate(over="ignore", under="ignore"):  # what is lost is found below
            row_scores = exact.astype(np.float64).astype(np.float32)
        usable = np.isfinite(row_scores) & ~beyond_float32(exact, row_scores)
        if not usable.all():
            at = int(np.argmin(usable))
            page_id, what = list(scores)[at], _LOST if np.isfinite(exact[at]) else "not finite"
            raise ValueError(f"run holds the score {exact[at]} for query {query_id!r}, page {page_id!r}; {what}")
        places = {page_id: place for place, page_id in enumerate(scores)}
        for page_id, value in grades.items():
            query.append(row)
            grade.append(value)
            own = row_scores[places[page_id]] if page_id in places else np.float32(np.nan)
            above.append(int(np.count_nonzero(row_scores > own)) if page_id in scores else _NOT_RETRIEVED)
            tied.append(int(np.count_nonzero(row_scores == own)))
    pages = range(len(query))  # only positions count here, so pages are numbered as they come
    relevance = Relevance.from_judgements(query, pages, grade, query_ids=tuple(qrels), n_pages=len(query))
    return _from_positions(
        np.array(above, dtype=np.int64),
        np.array(tied, dtype=np.int64),
        relevance.query,
        relevance.grade,
        tuple(qrels),
        k,
    )


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


def _from_positions(
    above: np.ndarray, tied: np.ndarray, query: np.ndarray, grade: np.ndarray, query_ids: tuple[str, ...], k: int
) -> Ndcg:
    """Turn the position of each graded page (`above` pages before it, `tied` with it) into nDCG per query."""
    total = _discount_sums(k)
    n_queries = len(query_ids)

    def dcg(discount: np.ndarray) -> np.ndarray:
        return np.bincount(query, weights=grade * discount, minlength=n_queries)

    def at(rank: np.ndarray) -> np.ndarray:  # rank from 1
        return np.where(rank <= k, total[np.minimum(rank, k)] - total[np.minimum(rank, k) - 1], 0.0)

    spread = total[np.minimum(above + tied, k)] - total[np.minimum(above, k)]
    # the position of a graded page among the graded pages of its tied group, and of its query, the best grade first
    in_group = _position_within(query, above, grade)
    in_query = _position_within(query, np.zeros_like(above), grade)
    ideal = dcg(at(in_query + 1))
    return Ndcg(
        values=np.minimum(dcg(spread / np.maximum(tied, 1)) / ideal, 1.0),
        worst=np.minimum(dcg(at(np.maximum(above + tied - in_group, 1))) / ideal, 1.0),
        best=np.minimum(dcg(at(above + 1 + in_group)) / ideal, 1.0),
        query_ids=query_ids,
        k=k,
    )


def _position_within(query: np.ndarray, group: np.ndarray, grade: np.ndarray) -> np.ndarray:
    """[J] 0 for the best grade of each (query, group), 1 for the next, ..."""
    order = np.lexsort((-grade, group, query))
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (np.diff(query[order]) != 0) | (np.diff(group[order]) != 0)
    index = np.arange(len(order))
    position = np.empty(len(order), dtype=np.int64)
    position[order] = index - np.maximum.accumulate(np.where(starts, index, 0))
    return position


def _discount_sums(k: int) -> np.ndarray:
    """[k + 1] sums of the first 0, 1, ..., k discounts."""
    k = whole_number(k, "k")
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])


def _checked_scores(scores: np.ndarray) -> np.ndarray:
    refuse_masked(scores, "scores")
    if hasattr(scores, "detach"):
        scores = real_array(scores, "scores")
    exact = np.asarray(scores)
    if exact.ndim != 2 or exact.dtype.kind not in "fiu":
        raise ValueError(f"scores must be a [queries, pages] array of numbers; got {exact.dtype} {list(exact.shape)}")
    with np.errstate(over="ignore", under="ignore"):  # what is lost is found below
        scores = exact.astype(np.float32, copy=False)
    if scores.size and not scores.max() < np.inf:  # NaN and +inf; the maximum of a row with NaN is NaN
        query, page = np.argwhere(~(scores < np.inf))[0]
        raise ValueError(
            f"scores holds {scores[query, page]} (as float32) at query {query}, page {page}; expected finite numbers, "
            "or -inf for a page that was not retrieved"
        )
    if exact.dtype.itemsize > 4 and (lost := beyond_float32(exact, scores)).any():
        query, page = np.argwhere(lost)[0]
        raise ValueError(f"scores holds {exact[query, page]} at query {query}, page {page}; {_LOST}")
    return scores


def _blocks(n: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
