"""Exact search: every page is scored, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from miner_diag.arrays import beyond_float32, real_array, refuse_other_labels, whole_number

Similarity = Literal["cosine", "dot"]

_BLOCK_BYTES = 16 << 20  # of each array held beside the result


@dataclass(frozen=True, eq=False)
class Hits:
    """The best pages of every query, the best first."""

    pages: np.ndarray
    """[Q, k] int64: column of the page."""
    scores: np.ndarray
    """[Q, k] float32, falling along a row."""

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
    if not 1 <= whole_number(k, "k", least=-(2**63)) <= len(pages):
        raise ValueError(f"k must be between 1 and the number of pages, {len(pages)}; got {k}")
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
    best.sort(axis=1)
    return Hits(pages=(best & np.uint64(0xFFFFFFFF)).astype(np.int64), scores=_scores_of(best))


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
