"""Pooled vectors of all layers, read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from miner_diag.backbones.base import KeptLayers
from miner_diag.embeddings.shards import EMPTY, DamagedStoreError, Kind
from miner_diag.embeddings.stored import Rows

LAYERS = Kind(
    "pooled layers", "layers", ("layer_embeddings", "notes", "characters", "inputs"), {"query": 256, "page": 64}
)
"""The kind of store that keeps the pooled vector of every layer. Queries are short, so a shard holds more of them."""


def layer_bytes(shape: tuple[int, int, int]) -> int:
    """Return the bytes that pooled vectors [N, L, D] take in memory."""
    n_items, n_layers, width = shape
    return np.dtype(np.float32).itemsize * n_items * n_layers * width


class EmbeddingStore:
    """The pooled vectors of some queries or pages; they are memory-mapped until they are asked for.

    :meth:`EmbeddedCorpus.take <miner_diag.embeddings.embedded.EmbeddedCorpus.take>` returns it.

    Parameters
    ----------
    items : Rows
        Where each of the N items lies.
    layer_shape : (L, D)
        The number of layers and their width.
    kept : KeptLayers, optional
        Which of the vectors that are kept of an item are its layers; each one if this is not given.
    """

    def __init__(self, items: Rows, layer_shape: tuple[int, int], kept: KeptLayers | None = None) -> None:
        self.items = items
        """Where each item lies."""
        self.folder = items.folder.path
        """The folder of the store."""
        self.key: dict[str, str] = dict(items.folder.key)
        """Everything that changes a number."""
        self.ids = items.ids
        """The ids of the items, in the order in which they were asked for."""
        self.shape: tuple[int, int, int] = (len(items.ids), *layer_shape)
        """(N, L, D)."""
        n_layers, width = layer_shape
        self.kept = kept or KeptLayers(n_layers, tuple(range(n_layers)))
        """Which of the vectors that are kept of an item are its layers."""
        self._layers = np.array(self.kept.layers)
        for shard in items.shards:
            vectors = shard.tensors["layer_embeddings"]
            if vectors.shape != (len(shard.ids), self.kept.count, width) or vectors.dtype != np.float32:
                raise DamagedStoreError(shard.path, f"it holds {vectors.dtype} {list(vectors.shape)}")

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def counts(self) -> dict[str, int]:
        """What was noted of these items; see :meth:`Rows.counts`."""
        return self.items.counts()

    @cached_property
    def inputs(self) -> list[int | None]:
        """[N] a hash of what the retriever read of each item, equal for equal inputs; None where it read nothing."""
        notes, hashes = (self.items.noted(name).tolist() for name in ("notes", "inputs"))
        return [None if note & EMPTY else number for note, number in zip(notes, hashes, strict=True)]

    @cached_property
    def layer_embeddings(self) -> np.ndarray:
        """All pooled vectors [N, L, D], float32, read into memory once; row i is item ``ids[i]``. Read-only."""
        vectors = np.empty(self.shape, dtype=np.float32)
        for positions, shard, rows in self.items.by_shard():
            vectors[positions] = shard.tensors["layer_embeddings"][rows[:, None], self._layers]
        vectors.setflags(write=False)
        return vectors

    def layer(self, layer: int) -> np.ndarray:
        """Return one layer's vectors [N, D], float32, as a new array; nothing else is read.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        if not 0 <= layer < self.shape[1]:
            raise ValueError(f"layer must be 0 … {self.shape[1] - 1}; got {layer}")
        vectors = np.empty((self.shape[0], self.shape[2]), dtype=np.float32)
        for positions, shard, rows in self.items.by_shard():
            vectors[positions] = shard.tensors["layer_embeddings"][rows, self._layers[layer]]
        return vectors

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return all layers [n, L, D], float32, of the items with these numbers, as a new array.

        Nothing else is read: memory is that of the answer, however large the store is.

        Raises
        ------
        ValueError
            If a number is no item's.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise ValueError(f"rows must be 0 … {len(self) - 1}; got {rows.min()} … {rows.max()}")
        vectors = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for positions, shard, shard_rows in self.items.by_shard(rows) if rows.size else ():
            vectors[positions] = shard.tensors["layer_embeddings"][shard_rows[:, None], self._layers]
        return vectors

    def take(self, ids: Sequence[str]) -> EmbeddingStore:
        """Return the vectors of some of these items, in the order of `ids`; nothing is read.

        Raises
        ------
        ValueError
            If an id is not among these items; it is named.
        """
        return EmbeddingStore(self.items.take(ids), (self.shape[1], self.shape[2]), self.kept)
