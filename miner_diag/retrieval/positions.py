"""Where graded pages stand in rankings: how many pages score higher, and how many as high.

Every metric of this folder is made of these two numbers, so no ranking is ever sorted, and all metrics of a ranking
cost little more than one. Scores are compared as float32, the highest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from miner_diag.arrays import beyond_float32, names_its_rows, real_array, refuse_masked
from miner_diag.retrieval.relevance import Relevance, refuse_own_answers

NOT_RETRIEVED = np.iinfo(np.int64).max // 2
"""So many pages stand above one that was not retrieved."""

_LOST = (
    "scores are compared as float32, which cannot hold it apart from others; scale the scores or take their logarithms"
)
_BLOCK = 1 << 24  # score comparisons held at once: 16 MiB of booleans, 64 MiB of float32


@dataclass(frozen=True, eq=False)
class Positions:
    """Where the graded pages of Q queries stand, one entry for each graded pair, ordered by query."""

    query: np.ndarray
    """[J] int64, rising: row of the query."""
    grade: np.ndarray
    """[J] float64, at least 0; every query has one above 0."""
    above: np.ndarray
    """[J] int64: the number of pages that score higher; `NOT_RETRIEVED` for a page that was not retrieved."""
    tied: np.ndarray
    """[J] int64: the number of pages that score as high, the page itself among them."""
    query_ids: tuple[str, ...]
    """[Q] ids of the rows."""

    @cached_property
    def in_group(self) -> np.ndarray:
        """[J] int64: the place among the graded pages with the same score, the best grade first; 0 is the first."""
        return _place_within(self.query, self.above, self.grade)

    @cached_property
    def in_query(self) -> np.ndarray:
        """[J] int64: the place among the graded pages of the query, the best grade first; 0 is the first."""
        return _place_within(self.query, np.zeros_like(self.above), self.grade)


def positions_in_scores(
    scores: np.ndarray, relevance: Relevance | np.ndarray | Sequence[Mapping[int, float]]
) -> Positions:
    """Return where the graded pages stand in a dense score matrix.

    Parameters
    ----------
    scores : array [Q, P]
        Score of every page for every query, the higher the better; compared as float32. ``-inf`` means that the page
        was not retrieved.
    relevance : Relevance, array [Q, P] of grades, array [Q] of gold pages, or Q dicts {page index: grade}
        What is right.

    Raises
    ------
    ValueError
        If the scores are not [Q, P] numbers, hold a NaN, +inf, or a number that float32 would make infinite or 0 (query
        and page are named), if they do not fit the relevance or stand in another order of queries than it, or if a
        query has no relevant page.

    Notes
    -----
    The cost is P comparisons per graded page, and memory for 2**24 of them at a time.
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
        above[part][own == -np.inf] = NOT_RETRIEVED
    return Positions(relevance.query, relevance.grade, above, tied, relevance.query_ids)


def positions_in_run(
    qrels: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Mapping[str, float]],
    *,
    ignore_self: bool = False,
) -> Positions:
    """Return where the graded pages stand in ranked lists; both as nested dicts (the form of BEIR and pytrec_eval).

    Every query of `qrels` is there, in the order of `qrels`; for one that the run does not hold, nothing was retrieved.
    Queries of the run that have no qrels are left out.

    Parameters
    ----------
    qrels : {query id: {page id: grade}}
        Grades are at least 0; every query needs one above 0.
    run : {query id: {page id: score}}
        Scores are compared as float32. A page that is not in the list was not retrieved. Pages that are tied with the
        last page of a cut-off run are unknown here, so a run should hold more pages than count.
    ignore_self : bool
        Whether the page that has a query's own id is left out of that query's ranking: it is the query itself.

    Raises
    ------
    ValueError
        If the qrels are empty or a query of them has no relevant page, if no query of the run is in the qrels, if a
        score is NaN or infinite (query and page are named), or if a page that is to be left out is relevant.
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
    scores, starts = _scores_of_run(qrels, run)
    query: list[int] = []
    grade: list[float] = []
    place: list[int] = []  # of a page among all scores, -1 for one that was not retrieved
    for row, (query_id, grades) in enumerate(qrels.items()):
        places = dict(zip(run.get(query_id, ()), range(starts[row], starts[row + 1]), strict=True))
        query += [row] * len(grades)
        grade += grades.values()
        place += [places.get(page_id, -1) for page_id in grades]
    pages = range(len(query))  # only positions count here, so pages are numbered as they come
    relevance = Relevance.from_judgements(query, pages, grade, query_ids=tuple(qrels), n_pages=len(query))
    above, tied = _counted(scores, starts, relevance.query, np.array(place, dtype=np.int64))
    return Positions(relevance.query, relevance.grade, above, tied, tuple(qrels))


def _scores_of_run(
    qrels: Mapping[str, Mapping[str, float]], run: Mapping[str, Mapping[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the float32 scores of all queries of `qrels`, one list behind the other, and where each begins [Q + 1]."""
    lists = [run.get(query_id, {}) for query_id in qrels]
    starts = np.concatenate([[0], np.cumsum([len(scores) for scores in lists])]).astype(np.int64)
    values = [score for scores in lists for score in scores.values()]
    if set(map(type, values)) - {float}:  # query by query, so that what is no number is named
        for query_id, scores in zip(qrels, lists, strict=True):
            real_array([*scores.values()], f"run (its scores for query {query_id!r})")
    exact = real_array(values, "run").astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):  # what is lost is found below
        rounded = exact.astype(np.float32)
    usable = np.isfinite(rounded) & ~beyond_float32(exact, rounded)
    if not usable.all():
        at = int(np.argmin(usable))
        row = int(np.searchsorted(starts, at, side="right")) - 1
        query_id, page_id = list(qrels)[row], list(lists[row])[at - starts[row]]
        what = _LOST if np.isfinite(exact[at]) else "not finite"
        raise ValueError(f"run holds the score {exact[at]} for query {query_id!r}, page {page_id!r}; {what}")
    return rounded, starts


def _counted(
    scores: np.ndarray, starts: np.ndarray, query: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many scores of its list are above that of each graded page [J], and how many are equal [J]."""
    above, tied = np.full(len(query), NOT_RETRIEVED), np.zeros(len(query), dtype=np.int64)
    found = np.flatnonzero(place >= 0)
    begin, length = starts[query[found]], np.diff(starts)[query[found]]
    compared = np.cumsum(length)
    first = 0
    while first < len(found):  # as many comparisons at once as a block of a score matrix has
        done = int(compared[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(compared, done + _BLOCK, side="right")))
        part, sizes = found[first:stop], length[first:stop]
        offsets = np.cumsum(sizes) - sizes
        others = scores[np.repeat(begin[first:stop] - offsets, sizes) + np.arange(sizes.sum())]
        own = np.repeat(scores[place[part]], sizes)
        above[part] = np.add.reduceat(others > own, offsets, dtype=np.int64)
        tied[part] = np.add.reduceat(others == own, offsets, dtype=np.int64)
        first = stop
    return above, tied


def _place_within(query: np.ndarray, group: np.ndarray, grade: np.ndarray) -> np.ndarray:
    """[J] 0 for the best grade of each (query, group), 1 for the next, ..."""
    order = np.lexsort((-grade, group, query))
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (np.diff(query[order]) != 0) | (np.diff(group[order]) != 0)
    index = np.arange(len(order))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = index - np.maximum.accumulate(np.where(starts, index, 0))
    return place


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
