"""Exact search: every page is scored, block by block.

`top_k` under cosine multiplies in float32 first, which is twice as fast, and takes the pages that rounding leaves in
question. These alone are multiplied in float64, which decides: its hits and scores are those of `score_all`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from miner_diag.arrays import beyond_float32, real_array, refuse_other_labels, whole_number

Similarity = Literal["cosine", "dot"]

_BLOCK_BYTES = 16 << 20  # of each array held beside the result
_SCREENED_FROM = 20  # pages per hit from which on a first pass in float32 pays


@dataclass(frozen=True, eq=False)
class Hits:
    """The best pages of every query, the best first."""

    pages: np.ndarray
    """[Q, k] int64: column of the page."""
    scores: np.ndarray
    """[Q, k] float32, falling along a row."""

    @classmethod
    def of_scores(cls, scores: np.ndarray, k: int) -> Hits:
        """Take the k best pages of every query from a score matrix [Q, P] float32; as many as there are if k > P.

        Of pages with equal scores, the one that stands first comes first. A score of -inf means that the page was not
        retrieved; such pages come last.
        """
        k = min(whole_number(k, "k"), scores.shape[1])
        best = np.empty((len(scores), k), dtype=np.uint64)
        for rows in _row_blocks(len(scores), scores.shape[1]):
            best[rows] = np.partition(_sort_keys(scores[rows], 0), k - 1, axis=1)[:, :k]
        return _hits_of(best)

    def to_run(self, query_ids: Sequence[str], page_ids: Sequence[str]) -> dict[str, dict[str, float]]:
        """Nested dicts {query id: {page id: score}}, the form of BEIR and pytrec_eval."""
        if len(query_ids) != len(self.pages):
            raise ValueError(f"query_ids must name {len(self.pages)} queries; got {len(query_ids)}")
        if self.pages.size and self.pages.max() >= len(page_ids):
            raise ValueError(f"page_ids must name page {self.pages.max()} too; got {len(page_ids)} ids")
        for name, ids in (("query_ids", query_ids), ("page_ids", page_ids)):
            if len(set(ids)) < len(ids):
                twice = next(item for row, item in enumerate(ids) if item in ids[:row])
                raise ValueError(f"{name} holds {twice!r} more than once, so a run by ids would lose hits")
        return {
            query_id: {page_ids[page]: float(score) for page, score in zip(pages, scores, strict=True)}
            for query_id, pages, scores in zip(query_ids, self.pages, self.scores, strict=True)
        }


class PreparedPages:
    """Pages that are made ready once and then asked often, under cosine.

    :func:`top_k` checks every page and brings it to unit length at each call, which takes far longer than one query
    needs. Here that is done once, so that a query costs about one product of a matrix and a vector. Hits are the same,
    bit for bit. Beside the pages, their unit rows are kept in float32.

    Parameters
    ----------
    pages : array [P, D]
        One vector per page, any float dtype; it must not be changed afterwards.
    page_ids : sequence of str, optional
        Names for the error messages.

    Raises
    ------
    ValueError
        If a vector holds NaN or Inf or is zero; the page is named.

    Examples
    --------
    >>> pages = PreparedPages(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]))
    >>> pages.top_k(np.array([[1.0, 0.1]]), k=2).pages
    array([[0, 2]])
    """

    def __init__(self, pages: np.ndarray, *, page_ids: Sequence[str] | None = None) -> None:
        nobody = np.empty((0, np.shape(pages)[-1] if np.ndim(pages) == 2 else 0))
        _, self.pages = _checked(nobody, pages, "cosine", None, page_ids)
        self._unit = np.empty(self.pages.shape, dtype=np.float32)
        for rows in _row_blocks(*self.pages.shape):
            self._unit[rows] = _unit_float32(self.pages[rows])

    def __len__(self) -> int:
        return len(self.pages)

    def top_k(self, queries: np.ndarray, k: int, *, query_ids: Sequence[str] | None = None) -> Hits:
        """Return the k best pages of every query [Q, D], as :func:`top_k` does; errors are those of that function."""
        queries, _ = _checked(queries, self.pages[:0], "cosine", query_ids, None)
        return _top_k(queries, self.pages, k, "cosine", self._unit)


def score_all(
    queries: np.ndarray,
    pages: np.ndarray,
    similarity: Similarity = "cosine",
    *,
    query_ids: Sequence[str] | None = None,
    page_ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Score every page for every query.

    Parameters
    ----------
    queries : array [Q, D]
        One vector per query, any float dtype.
    pages : array [P, D]
        One vector per page.
    similarity : "cosine" or "dot"
        Cosine divides by both norms, whatever the scale of the vectors.
    query_ids, page_ids : sequence of str, optional
        Names for the error messages.

    Returns
    -------
    ndarray [Q, P]
        float32.

    Raises
    ------
    ValueError
        If the shapes do not fit, if a vector holds NaN or Inf, or if a vector is zero and the similarity is cosine;
        the item is named.

    Notes
    -----
    Products are summed in float64 and rounded to float32 once. So pages with equal vectors get equal scores (a tie is
    seen as a tie), and the result does not move with the block size or the matrix library's kernels, both of which
    show in float32 sums. Beside the result some 100 MB are held, whatever Q and P.
    """
    queries, pages = _checked(queries, pages, similarity, query_ids, page_ids)
    scores = np.empty((len(queries), len(pages)), dtype=np.float32)
    for start, block in _page_blocks(pages, similarity):
        for rows in _row_blocks(len(queries), len(block)):
            scores[rows, start : start + len(block)] = _products(queries[rows], block, similarity)
    return scores


def top_k(
    queries: np.ndarray,
    pages: np.ndarray,
    k: int,
    similarity: Similarity = "cosine",
    *,
    query_ids: Sequence[str] | None = None,
    page_ids: Sequence[str] | None = None,
) -> Hits:
    """Find the k best pages of every query; of pages with equal scores, the one that stands first in `pages`.

    The full score matrix is never held. Parameters and errors as in `score_all`; k must be between 1 and P.

    Examples
    --------
    >>> pages = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    >>> top_k(np.array([[1.0, 0.1]]), pages, k=2).pages
    array([[0, 2]])
    """
    queries, pages = _checked(queries, pages, similarity, query_ids, page_ids)
    return _top_k(queries, pages, k, similarity)


def _top_k(
    queries: np.ndarray, pages: np.ndarray, k: int, similarity: Similarity, units: np.ndarray | None = None
) -> Hits:
    """Return the hits of checked sides; `units` [P, D] are the pages' unit rows in float32 where they are at hand."""
    if not 1 <= whole_number(k, "k", least=-(2**63)) <= len(pages):
        raise ValueError(f"k must be between 1 and the number of pages, {len(pages)}; got {k}")
    if similarity == "cosine" and len(pages) >= _SCREENED_FROM * k:
        return _screened_top_k(queries, pages, k, units)
    return _exact_top_k(queries, pages, k, similarity)


def _exact_top_k(queries: np.ndarray, pages: np.ndarray, k: int, similarity: Similarity) -> Hits:
    best = np.empty((len(queries), 0), dtype=np.uint64)
    for start, block in _page_blocks(pages, similarity):
        merged = np.empty((len(queries), min(k, best.shape[1] + len(block))), dtype=np.uint64)
        for rows in _row_blocks(len(queries), len(block)):
            scores = _products(queries[rows], block, similarity)
            keys = np.concatenate([best[rows], _sort_keys(scores, start)], axis=1)
            if keys.shape[1] > k:
                keys = np.partition(keys, k - 1, axis=1)[:, :k]
            merged[rows] = keys
        best = merged
    return _hits_of(best)


def _screened_top_k(queries: np.ndarray, pages: np.ndarray, k: int, units: np.ndarray | None) -> Hits:
    """Return what `_exact_top_k` returns under cosine.

    A page whose float32 cosine is below the k-th best one by more than twice the largest error that such a cosine can
    have is not among the k best. The others are few; where they are not, as among many equal pages, the query is
    searched in float64.
    """
    cosines, columns, least = _screen(queries, pages, k, units)
    decided = ~(cosines >= least[:, None]).all(axis=1) | (cosines.shape[1] == len(pages))
    hits = Hits(np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32))
    for query in np.flatnonzero(decided):
        candidates = np.sort(columns[query][cosines[query] >= least[query]])
        scores = _products(queries[query : query + 1], prepared_rows(pages[candidates], "cosine"), "cosine")
        keys = np.sort(_sort_keys(scores, 0)[0])[:k]
        hits.pages[query], hits.scores[query] = candidates[_columns_of(keys)], _scores_of(keys)
    if not decided.all():
        exact = _exact_top_k(queries[~decided], pages, k, "cosine")
        hits.pages[~decided], hits.scores[~decided] = exact.pages, exact.scores
    return hits


def _screen(
    queries: np.ndarray, pages: np.ndarray, k: int, units: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best cosines in float32 [Q, S], more than k, their pages [Q, S], and what one must reach [Q].

    Every page that reaches it is there, unless all S do: then there may be more of them.
    """
    gap = np.float32(_screening_gap(pages.shape[1]))
    slots = min(len(pages), k + max(64, k // 2))
    cosines = np.full((len(queries), slots), -np.inf, dtype=np.float32)
    columns = np.zeros((len(queries), slots), dtype=np.int64)
    least = np.full(len(queries), -np.inf, dtype=np.float32)
    unit_queries = np.empty(queries.shape, dtype=np.float32)
    for rows in _even_blocks(len(queries), queries.shape[1]):
        unit_queries[rows] = _unit_float32(queries[rows])
    room = np.empty(0, dtype=np.float32)  # one place for all products: fresh memory costs as much as they do
    # unit rows that are at hand take no room, so that the products alone say how many pages are multiplied at once
    for block in _even_blocks(len(pages), pages.shape[1] if units is None else min(len(queries), pages.shape[1])):
        unit_pages = _unit_float32(pages[block]) if units is None else units[block]
        for rows in _even_blocks(len(queries), len(unit_pages)):
            n, width = rows.stop - rows.start, len(unit_pages)
            if room.size < n * width:
                room = np.empty(n * width, dtype=np.float32)
            products = np.matmul(unit_queries[rows], unit_pages.T, out=room[: n * width].reshape(n, width))
            found = np.flatnonzero(products >= least[rows, None])
            if len(found) > n * slots and width > k:  # at first, and where pages stand in rising order
                of_block = np.partition(products, width - k, axis=1)[:, width - k]
                least[rows] = np.maximum(least[rows], of_block - gap)
                found = np.flatnonzero(products >= least[rows, None])
            row, column = np.divmod(found, width)
            count = np.bincount(row, minlength=n)
            place = slots + np.arange(len(found)) - np.repeat(np.cumsum(count) - count, count)
            more = ((0, 0), (0, int(count.max())))
            merged = np.pad(cosines[rows], more, constant_values=-np.inf)
            merged_columns = np.pad(columns[rows], more)
            merged[row, place], merged_columns[row, place] = products.ravel()[found], column + block.start
            best = np.argpartition(-merged, slots - 1, axis=1)[:, :slots]
            cosines[rows] = np.take_along_axis(merged, best, axis=1)
            columns[rows] = np.take_along_axis(merged_columns, best, axis=1)
            least[rows] = np.maximum(least[rows], -np.partition(-cosines[rows], k - 1, axis=1)[:, k - 1] - gap)
    return cosines, columns, least


def _screening_gap(width: int) -> float:
    """Return twice the largest error of a float32 cosine of two rows, and what rounding to float32 adds.

    With u = 2**-24, a coordinate of `_unit_float32` is off by at most (width / 2 + 4) u relatively, and a sum of that
    many products, in whatever order, by width u of the sum of absolute products, which is at most 1 for unit rows.
    """
    error = (2 * width + 16) * 2.0**-24
    return 2 * error / (1 - error) + 2.0**-21 if error < 0.5 else np.inf


def _unit_float32(block: np.ndarray) -> np.ndarray:
    """Rows [B, D] of unit length in float32, with the error that `_screening_gap` knows."""
    scale = np.abs(block).max(axis=1, keepdims=True)  # so that no square over- or underflows
    if block.dtype == np.float16:
        block, scale = block.astype(np.float32), scale.astype(np.float32)
    unit = (block / scale).astype(np.float32, copy=False)
    unit /= np.sqrt(np.einsum("bd,bd->b", unit, unit))[:, None]
    return unit


def _hits_of(keys: np.ndarray) -> Hits:
    """Return the hits that keys of `_sort_keys` stand for, the best first."""
    keys.sort(axis=1)
    return Hits(pages=_columns_of(keys), scores=_scores_of(keys))


def _columns_of(keys: np.ndarray) -> np.ndarray:
    """Undo `_sort_keys`: the pages."""
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _sort_keys(scores: np.ndarray, start: int) -> np.ndarray:
    """[B, P] uint64 that sort like (score falling, page rising): unique, so that a partition is exact."""
    bits = (scores + np.float32(0)).view(np.int32)  # adding 0 turns -0.0 into 0.0
    rising = np.where(bits < 0, ~bits, bits | np.int32(-(2**31))).view(np.uint32)
    pages = np.arange(start, start + scores.shape[1], dtype=np.uint64)
    return (~rising).astype(np.uint64) << np.uint64(32) | pages


def _scores_of(keys: np.ndarray) -> np.ndarray:
    """Undo `_sort_keys`: the float32 scores."""
    rising = ~(keys >> np.uint64(32)).astype(np.uint32)
    bits = rising.view(np.int32)
    return np.where(bits < 0, bits & np.int32(2**31 - 1), ~bits).view(np.float32)


def _checked(
    queries: np.ndarray,
    pages: np.ndarray,
    similarity: Similarity,
    query_ids: Sequence[str] | None,
    page_ids: Sequence[str] | None,
) -> tuple[np.ndarray, np.ndarray]:
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity must be 'cosine' or 'dot'; got {similarity!r}")
    refuse_other_labels({"queries": queries, "pages": pages}, axis="columns")
    queries, pages = real_array(queries, "queries"), real_array(pages, "pages")
    if queries.ndim != 2 or pages.ndim != 2 or queries.shape[1] != pages.shape[1]:
        raise ValueError(
            f"queries [Q, D] and pages [P, D] must have one width D; got {list(queries.shape)} and {list(pages.shape)}"
        )
    if len(pages) >= 2**32:
        raise ValueError(f"pages must be fewer than 2**32; got {len(pages)}")
    for side, vectors, ids in (("query", queries, query_ids), ("page", pages, page_ids)):
        if ids is not None and len(ids) != len(vectors):
            raise ValueError(f"{side}_ids must name {len(vectors)} items; got {len(ids)}")
        for rows in _row_blocks(len(vectors), vectors.shape[1]):
            block = vectors[rows]
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                raise ValueError(f"{item_name(side, rows.start + int(np.argmin(finite)), ids)} holds NaN or Inf")
            if similarity == "cosine" and not (nonzero := block.any(axis=1)).all():
                raise ValueError(
                    f"{item_name(side, rows.start + int(np.argmin(nonzero)), ids)} is the zero vector, which has no "
                    "cosine; leave the item out or find out why it was embedded so"
                )
    return queries, pages


def item_name(side: str, row: int, ids: Sequence[str] | None) -> str:
    """How a message calls an item: by its id where there is one."""
    return f"{side} {row}" if ids is None else f"{side} {ids[row]!r} (row {row})"


def prepared_rows(block: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Rows [B, D] in float64, of unit norm for cosine; a zero row must have been refused before."""
    block = block.astype(np.float64)
    if similarity == "cosine":
        block /= np.abs(block).max(axis=1, keepdims=True)  # so that no square over- or underflows
        block /= np.sqrt(np.einsum("bd,bd->b", block, block))[:, None]
    return block


def _page_blocks(pages: np.ndarray, similarity: Similarity) -> Iterator[tuple[int, np.ndarray]]:
    for rows in _row_blocks(len(pages), pages.shape[1]):
        yield rows.start, prepared_rows(pages[rows], similarity)


def _row_blocks(n: int, width: int) -> list[slice]:
    step = max(1, _BLOCK_BYTES // (8 * max(1, width)))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _even_blocks(n: int, width: int) -> list[slice]:
    """Blocks of like length, no larger than those of `_row_blocks`."""
    step = -(-n // max(1, len(_row_blocks(n, width))))
    return [slice(start, min(start + step, n)) for start in range(0, n, max(1, step))]


def _products(queries: np.ndarray, block: np.ndarray, similarity: Similarity) -> np.ndarray:
    """[B, P] float32 scores of raw queries [B, D] and prepared pages [P, D]."""
    products = prepared_rows(queries, similarity) @ block.T
    with np.errstate(over="ignore", under="ignore"):
        scores = products.astype(np.float32)
    return refuse_beyond_float32(products, scores, similarity, "dot product")


def refuse_beyond_float32(exact: np.ndarray, scores: np.ndarray, similarity: Similarity, what: str) -> np.ndarray:
    """Return the float32 scores [B, P], or raise ValueError where one is infinite or, for dot, 0 by rounding alone."""
    lost = beyond_float32(exact, scores) if similarity == "dot" else ~np.isfinite(scores)
    if lost.any():
        first = exact[lost][0]
        raise ValueError(f"a {what} of {first:.3g} is beyond float32; scale the vectors or use similarity='cosine'")
    return scores
