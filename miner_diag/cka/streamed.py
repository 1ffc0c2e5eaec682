"""The diagnosis of layers that do not fit memory: one pass over the store, rows block by block.

CKA and mean cosines are sums over rows (:class:`~miner_diag.cka.streaming.StreamingCKA`), so every row is read once and
forgotten. Intervals are delete-one-block jackknives: a block is a document, or several documents where there are more
of them than blocks, or neighbouring rows where intervals are over single items. The null needs the shape of the kernels
only, which 512 rows show. NDCG@5 takes one layer at a time. Where the sums of all layers (three ``[D, D]`` matrices for
each layer and block) exceed the memory as well, a pass takes as many layers as fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

import numpy as np

from miner_diag.cka.alignment import Comparison, ratio_of
from miner_diag.cka.cka_matrix_result import CKAMatrix, assemble
from miner_diag.cka.diagnosis import (
    Diagnosis,
    LayerViews,
    Measured,
    Rules,
    constant_side,
    layer_ndcg,
    verdicts,
)
from miner_diag.cka.distinct import distinct_items
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import paired_cosines
from miner_diag.cka.gold_pairs import GoldPairs
from miner_diag.cka.jackknife import influence, interval_around
from miner_diag.cka.layers import as_layers
from miner_diag.cka.permutation import kernel_shape, null_of, shape_items
from miner_diag.cka.streaming import StreamingCKA

MOST_BLOCKS, FEWEST_BLOCKS = 32, 8
"""How many blocks intervals are over: the most if their sums fit the memory, the fewest in any case."""

ABSENT = (
    "layers were read from the store block by block, because they are larger than --memory-gb: intervals of CKA, "
    "cosine and alignment ratio are over blocks of rows; effective rank, anisotropy, CKA of rows at length one, "
    "outlier checks and intervals between two inner layers are left out"
)
"""What this way of computing does not give."""

_READ_BYTES = 64 << 20  # rows read at once, both sides together

Reader = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Row numbers [B] -> both sides of a comparison, [B, L, D] each, layer by layer."""


class LayerRows(Protocol):
    """What is asked of a store of pooled layers."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, L, D)."""

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return all layers [n, L, D] of some items."""

    def layer(self, layer: int) -> np.ndarray:
        """Return one layer [N, D] of all items."""


def diagnose_streamed(
    queries: LayerRows,
    pages: LayerRows,
    gold: Sequence[dict[int, int]],
    *,
    query_ids: Sequence[str],
    page_ids: Sequence[str],
    query_inputs: Sequence[Hashable | None] | None = None,
    page_inputs: Sequence[Hashable | None] | None = None,
    query_documents: Sequence[str] | None = None,
    page_documents: Sequence[str] | None = None,
    ignore_self: bool = False,
    rules: Rules | None = None,
    confidence: float = 0.95,
    rng: np.random.Generator,
    memory_gb: float,
) -> Diagnosis:
    """Diagnose every layer of a retriever from its store; other arguments as in `diagnose`.

    Parameters
    ----------
    queries, pages : store
        Pooled layers, read by `rows` and `layer` only.
    memory_gb : float
        What sums may take. At least `FEWEST_BLOCKS` blocks of one layer are held whatever it is.

    Raises
    ------
    ValueError
        As in `diagnose`, and for the biased estimator, whose null needs all rows at once.
    """
    rules = rules or Rules()
    if rules.estimator != "debiased":
        raise ValueError(
            "the biased estimator needs all rows at once for its null, and they are larger than --memory-gb; raise "
            "--memory-gb or take --estimator debiased"
        )
    _, n_layers, width = pages.shape
    own_queries = distinct_items(query_inputs, _blocks(queries), name="query_inputs", n=queries.shape[0])
    own_pages = distinct_items(page_inputs, _blocks(pages), name="page_inputs", n=pages.shape[0])
    pairs = GoldPairs.of(
        gold,
        query_ids=query_ids,
        queries=own_queries,
        pages=own_pages,
        page_documents=page_documents,
        page_ids=page_ids if ignore_self else None,
    )
    per_query, undefined = [], {}
    for layer in range(n_layers):
        query_rows, page_rows = queries.layer(layer), pages.layer(layer)
        per_query.append(layer_ndcg(query_rows, page_rows, pairs.relevance, page_ids, layer=layer))
        if (constant := constant_side(query_rows[own_queries.rows], page_rows[own_pages.rows])) is not None:
            undefined[layer] = f"layer {layer} is the same for all {constant}, so it has no CKA"
    final, memory = n_layers - 1, memory_gb * 1e9

    def to_final(store: LayerRows, entering: np.ndarray) -> Reader:
        def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            vectors = store.rows(entering[rows])
            return vectors, np.broadcast_to(vectors[:, -1:], vectors.shape)

        return read

    def query_page(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return queries.rows(pairs.query[rows]), pages.rows(pairs.page[rows])

    views: list[dict[int, Comparison]] = []
    if final not in undefined:
        for read, n, documents in (
            (to_final(pages, own_pages.rows), len(own_pages), own_pages.taken(page_documents)),
            (to_final(queries, own_queries.rows), len(own_queries), own_queries.taken(query_documents)),
            (query_page, len(pairs), pairs.documents),
        ):
            layers = [layer for layer in range(n_layers) if layer not in undefined]
            views.append(_compare(read, n, layers, width, documents, confidence, memory, undefined))
    if final in undefined:
        raise ValueError(f"layer {final}, the final one, has no CKA: {undefined[final]}")
    usable = [layer for layer in range(n_layers) if layer not in undefined]
    measured = Measured(
        per_query=tuple(per_query),
        views={layer: LayerViews(*(view[layer] for view in views)) for layer in usable},
        undefined=undefined,
        page_matrix=_page_matrix(pages, own_pages.rows, usable, confidence, memory),
        unit_rows=None,
        effective_ranks={},
        anisotropies={},
        chance=pairs.chance,
        queries=own_queries,
        pages=own_pages,
        n_pairs=len(pairs),
        absent=ABSENT,
    )
    return verdicts(measured, query_documents, rules=rules, confidence=confidence, rng=rng)


def deal_to_blocks(documents: Sequence[str] | np.ndarray | None, n: int, count: int) -> np.ndarray:
    """Return the block [n] of each row: whole documents, dealt so that blocks are alike in size, or neighbouring rows.

    Parameters
    ----------
    documents : sequence [n] of str, optional
        Document of each row.
    n : int
        Number of rows.
    count : int
        Number of blocks; fewer documents give fewer blocks.

    Examples
    --------
    >>> deal_to_blocks(["a", "a", "a", "b", "c"], 5, 2)
    array([0, 0, 0, 1, 1])
    """
    if documents is None:
        return np.arange(n) * min(count, n) // n
    sizes = Counter(documents)
    filled = np.zeros(min(count, len(sizes)), dtype=np.int64)
    block_of = {}
    for document, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        block_of[document] = int(np.argmin(filled))
        filled[block_of[document]] += size
    return np.array([block_of[document] for document in documents])


def _compare(
    read: Reader,
    n: int,
    layers: Sequence[int],
    width: int,
    documents: Sequence[str] | np.ndarray | None,
    confidence: float,
    memory: float,
    undefined: dict[int, str],
) -> dict[int, Comparison]:
    """Compare both sides at each layer; a layer without a CKA goes into `undefined`."""
    block_bytes = 3 * 8 * width**2  # the products of one layer: each side with itself, and both
    count = int(np.clip(memory // block_bytes, FEWEST_BLOCKS, MOST_BLOCKS))
    blocks = deal_to_blocks(documents, n, count)
    sizes = np.bincount(blocks)
    step = max(1, int(memory // (block_bytes * len(sizes))))
    views: dict[int, Comparison] = {}
    sampled = read(shape_items(n))
    for first in range(0, len(layers), step):
        streams = {layer: StreamingCKA(blocks=len(sizes), confidence=confidence) for layer in layers[first:][:step]}
        cosines = {layer: np.zeros(len(sizes)) for layer in streams}
        for rows in _row_blocks(n, 2 * sampled[0][:1].nbytes):
            x, y = read(rows)
            for block in np.unique(blocks[rows]):
                inside = blocks[rows] == block
                for layer, stream in streams.items():
                    stream.update(x[inside, layer], y[inside, layer], block=int(block))
                    cosines[layer][block] += paired_cosines(x[inside, layer], y[inside, layer]).sum()
        for layer, stream in streams.items():
            try:
                matrix = stream.compute()
                sides = as_layers([side[:, layer] for side in sampled], [f"layer {layer}"] * 2)
            except UndefinedCKAError as error:
                undefined[layer] = f"layer {layer}: {error}"
                continue
            assert matrix.left_out_groups is not None
            cka, total = matrix.interval(0, 0), cosines[layer].sum()
            left_out = (total - cosines[layer]) / (n - sizes)
            mean = float(total / n)
            cosine = interval_around(
                mean, influence(mean, left_out), n=n, confidence=confidence, groups=blocks, scale=1.0
            )
            ratio, reason = ratio_of(cosine, cka, left_out, matrix.left_out_groups[:, 0, 0], d=width)
            shape_x, shape_y = (kernel_shape(side, "linear", 1.0, n=n) for side in sides)
            null = null_of(cka.value, shape_x, shape_y, n)
            views[layer] = Comparison(
                cka, null, None, cosine, ratio, reason, n, (width, width), "debiased", "linear", "streaming"
            )
    return views


def _page_matrix(
    pages: LayerRows, entering: np.ndarray, usable: Sequence[int], confidence: float, memory: float
) -> CKAMatrix:
    """CKA of all pairs of layers, a tile of layers by layers in each pass, as large as the memory allows."""
    n, (_, n_layers, width) = len(entering), pages.shape
    products = int(memory // (8 * width**2))  # a tile of t by t layers holds t^2 + 2 t of them
    step = max(1, int(np.sqrt(products + 1)) - 1)
    if len(usable) * (len(usable) + 1) // 2 <= products:
        step = len(usable)
    starts = range(0, len(usable), step)
    values = np.empty((len(usable), len(usable)))
    for row in starts:
        for column in starts[row // step :]:
            stream = StreamingCKA()
            first, second = list(usable[row:][:step]), list(usable[column:][:step])
            for rows in _row_blocks(n, 4 * n_layers * width):
                vectors = pages.rows(entering[rows])
                stream.update(vectors[:, first], None if row == column else vectors[:, second])
            tile = stream.compute().values
            values[row : row + len(first), column : column + len(second)] = tile
            values[column : column + len(second), row : row + len(first)] = tile.T
    return assemble(
        values,
        names=[f"layer {layer}" for layer in usable],
        widths=[width] * len(usable),
        n_x=len(usable),
        n=n,
        estimator="debiased",
        route="streaming",
        operations={"streaming": float(n * width**2 * len(usable) * (len(usable) + 1) // 2)},
        confidence=confidence,
    )


def _blocks(store: LayerRows) -> Iterator[np.ndarray]:
    n, n_layers, width = store.shape
    return (store.rows(rows) for rows in _row_blocks(n, 4 * n_layers * width))


def _row_blocks(n: int, row_bytes: int) -> Iterator[np.ndarray]:
    step = max(1, _READ_BYTES // row_bytes)
    for start in range(0, n, step):
        yield np.arange(start, min(start + step, n))
