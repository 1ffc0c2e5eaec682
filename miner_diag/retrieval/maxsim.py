"""Exact MaxSim: late interaction, every page scored, block by block, memory bounded.

``score(q, p) = sum over tokens t of q of max over tokens u of p of similarity(t, u)``

References
----------
Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT",
SIGIR 2020, equation 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from miner_diag.retrieval.search import Similarity, item_name, prepared_rows, refuse_beyond_float32
from miner_diag.retrieval.tokens import TokenVectors

WORKSPACE = 32 << 20
"""Bytes of the products that are held at once, by default."""

_ROW_TOKENS = 512  # query tokens of a product: enough for the matrix library to be at full speed


def maxsim_scores(
    queries: TokenVectors,
    pages: TokenVectors,
    similarity: Similarity = "cosine",
    *,
    query_ids: Sequence[str] | None = None,
    page_ids: Sequence[str] | None = None,
    workspace: int = WORKSPACE,
    progress: bool = False,
) -> np.ndarray:
    """Score every page for every query by late interaction.

    Parameters
    ----------
    queries : TokenVectors
        Token vectors of Q queries, any float dtype.
    pages : TokenVectors
        Token vectors of P pages, of the same width.
    similarity : "cosine" or "dot"
        Similarity of two tokens. Vectors that were stored as float16 are no longer of unit length: cosine makes them so
        again.
    query_ids, page_ids : sequence of str, optional
        Names for the error messages.
    workspace : int
        Bytes of token products held at once. It changes the speed, not the scores.
    progress : bool
        Show a bar after two seconds.

    Returns
    -------
    ndarray [Q, P]
        float32.

    Raises
    ------
    ValueError
        If the widths differ, a token vector holds NaN or Inf, or is zero and the similarity is cosine (item and token
        are named), or if a score is beyond float32.

    Notes
    -----
    Products, maxima and sums are float64 and rounded to float32 once. So pages with equal tokens get equal scores (a
    tie is seen as a tie), and blocks and kernels, which move float32 sums, do not show. Nothing is padded:
    a padding of zeros would stand for a similarity of 0, which wins where all true ones are negative.

    Beside the result some ``4 workspace`` bytes and 16 per query token are held, however many pages there are and
    however long one page is. A query of more than 512 tokens adds 8 bytes for each of them and each page of a block.

    Examples
    --------
    >>> queries = TokenVectors.from_items([np.array([[1.0, 0.0], [0.0, 1.0]])])
    >>> pages = TokenVectors.from_items([np.array([[1.0, 0.0]]), np.array([[3.0, 4.0], [2.0, 0.0]])])
    >>> maxsim_scores(queries, pages)
    array([[1. , 1.8]], dtype=float32)
    """
    _check(queries, pages, similarity, query_ids, page_ids, workspace)
    step = max(1, workspace // (8 * max(_ROW_TOKENS, pages.width)))
    blocks = list(_query_blocks(queries, _ROW_TOKENS))
    carried = np.full(len(queries.vectors), -np.inf)  # maxima over the part of a page that earlier chunks held
    scores = np.empty((len(queries), len(pages)), dtype=np.float32)
    total = len(pages.vectors)
    bar = tqdm(total=total, desc="late interaction", unit="token", unit_scale=True, delay=2, disable=not progress)
    with bar:
        for start in range(0, total, step):
            stop = min(start + step, total)
            chunk = prepared_rows(pages.vectors[start:stop], similarity)  # [t, D]
            first = int(np.searchsorted(pages.offsets, start, side="right")) - 1
            last = int(np.searchsorted(pages.offsets, stop, side="left")) - 1
            starts = np.maximum(pages.offsets[first : last + 1] - start, 0)
            finished = last + 1 if pages.offsets[last + 1] == stop else last  # pages before this one end here
            for items, tokens in blocks:
                maxima = np.empty((tokens.stop - tokens.start, last + 1 - first))
                for row in range(tokens.start, tokens.stop, _ROW_TOKENS):
                    rows = slice(row, min(row + _ROW_TOKENS, tokens.stop))
                    products = prepared_rows(queries.vectors[rows], similarity) @ chunk.T
                    here = maxima[rows.start - tokens.start : rows.stop - tokens.start]
                    np.maximum.reduceat(products, starts, axis=1, out=here)
                np.maximum(maxima[:, 0], carried[tokens], out=maxima[:, 0])
                carried[tokens] = -np.inf if finished > last else maxima[:, -1]
                if finished > first:
                    sums = np.add.reduceat(
                        maxima[:, : finished - first], queries.offsets[items] - tokens.start, axis=0
                    )  # [q, pages]
                    scores[items, first:finished] = _rounded(sums, similarity)
            bar.update(stop - start)
    return scores


def _query_blocks(queries: TokenVectors, size: int) -> Iterator[tuple[slice, slice]]:
    """Whole queries, about `size` tokens at a time: (items, tokens)."""
    first = 0
    while first < len(queries):
        stop = int(np.searchsorted(queries.offsets, queries.offsets[first] + size, side="right")) - 1
        stop = max(stop, first + 1)
        yield slice(first, stop), slice(int(queries.offsets[first]), int(queries.offsets[stop]))
        first = stop


def _rounded(sums: np.ndarray, similarity: Similarity) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        scores = sums.astype(np.float32)
    return refuse_beyond_float32(sums, scores, similarity, "score")


def _check(
    queries: TokenVectors,
    pages: TokenVectors,
    similarity: Similarity,
    query_ids: Sequence[str] | None,
    page_ids: Sequence[str] | None,
    workspace: int,
) -> None:
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity must be 'cosine' or 'dot'; got {similarity!r}")
    if workspace < 1:
        raise ValueError(f"workspace must be at least 1 byte; got {workspace}")
    if queries.width != pages.width:
        raise ValueError(f"queries and pages must have one width; got {queries.width} and {pages.width}")
    for side, tokens, ids in (("query", queries, query_ids), ("page", pages, page_ids)):
        if ids is not None and len(ids) != len(tokens):
            raise ValueError(f"{side}_ids must name {len(tokens)} items; got {len(ids)}")
        step = max(1, workspace // (8 * tokens.width))
        for start in range(0, len(tokens.vectors), step):
            block = tokens.vectors[start : start + step]
            finite = np.isfinite(block).all(axis=1)
            usable = finite & block.any(axis=1) if similarity == "cosine" else finite
            if usable.all():
                continue
            row = start + int(np.argmin(usable))
            item = int(np.searchsorted(tokens.offsets, row, side="right")) - 1
            fault = (
                "is the zero vector, which has no cosine; leave the token out or find out why it was embedded so"
                if finite[row - start]
                else "holds NaN or Inf"
            )
            raise ValueError(f"token {row - tokens.offsets[item]} of {item_name(side, item, ids)} {fault}")
