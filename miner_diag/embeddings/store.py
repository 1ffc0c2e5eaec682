"""Pooled vectors of all layers on disk: a folder of shards, each with all layers of some items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.embeddings.shards import Layout, ShardWriter, map_shard, open_shards

LAYOUT = Layout(kind=None, fields=("shape", "counts"), tensors=("layer_embeddings",))


class EmbeddingStore:
    """Reads a finished store; vectors are memory-mapped until they are asked for.

    Use :func:`open_store`, which checks the files first.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], shards: Sequence[Path]) -> None:
        self.folder = folder
        """Where it lies."""
        self.key: dict[str, str] = dict(header["key"])
        """Everything that changes a number."""
        self.ids: tuple[str, ...] = tuple(header["ids"])
        """Ids of the items, in the order they were given."""
        self.shape: tuple[int, int, int] = tuple(header["shape"])
        """(N, L, D)."""
        self.counts: dict[str, int] = dict(header["counts"])
        """What was noted of the items: how many were "empty", how many "truncated"."""
        mapped = [map_shard(path) for path in shards]
        self._shards = [(np.array(shard["positions"]), shard["layer_embeddings"]) for shard in mapped]

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def layer_embeddings(self) -> np.ndarray:
        """All pooled vectors [N, L, D], float32, read into memory once; row i is item ``ids[i]``. Read-only."""
        whole = np.empty(self.shape, dtype=np.float32)
        for positions, vectors in self._shards:
            whole[positions] = vectors
        whole.setflags(write=False)
        return whole

    def layer(self, layer: int) -> np.ndarray:
        """Return one layer's vectors [N, D], float32, reading nothing else.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        if not 0 <= layer < self.shape[1]:
            raise ValueError(f"layer must be 0 … {self.shape[1] - 1}; got {layer}")
        whole = np.empty((self.shape[0], self.shape[2]), dtype=np.float32)
        for positions, vectors in self._shards:
            whole[positions] = vectors[:, layer]
        return whole

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return all layers [n, L, D], float32, of the items with these numbers, reading nothing else.

        Memory is that of the answer, however large the store is.

        Raises
        ------
        ValueError
            If a number is no item's.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise ValueError(f"rows must be 0 … {len(self) - 1}; got {rows.min()} … {rows.max()}")
        shards, places = self._where[0][rows], self._where[1][rows]
        found = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = self._shards[shard][1][places[here]]
        return found

    @cached_property
    def _where(self) -> tuple[np.ndarray, np.ndarray]:
        """Shard and place in it of every item."""
        shards, places = np.empty((2, len(self)), dtype=np.int64)
        for number, (positions, _) in enumerate(self._shards):
            shards[positions], places[positions] = number, np.arange(len(positions))
        return shards, places


def open_store(folder: Path | str, key: Mapping[str, str] | None = None, *, verify: bool = True) -> EmbeddingStore:
    """Open a finished store; parameters and errors as in :func:`~miner_diag.embeddings.shards.open_shards`."""
    header, shards = open_shards(folder, LAYOUT, key, verify=verify)
    return EmbeddingStore(Path(folder), header, shards)


class StoreWriter(ShardWriter):
    """Fills a store of pooled layers; errors as in :class:`~miner_diag.embeddings.shards.ShardWriter`.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    key : mapping of str
        Everything that changes a number.
    ids : sequence of str [N]
        The items, in the order the store gives them back.
    shape : (N, L, D)
        Of the whole.
    counts : mapping of int, optional
        What is to be noted of the items.
    tidy : bool
        Whether to remove what a killed run left half-written; False where another process may be writing.
    """

    def __init__(
        self,
        folder: Path | str,
        key: Mapping[str, str],
        ids: Sequence[str],
        shape: tuple[int, int, int],
        counts: Mapping[str, int] | None = None,
        *,
        tidy: bool = True,
    ) -> None:
        self.shape = shape
        super().__init__(folder, LAYOUT, key, ids, {"shape": list(shape), "counts": dict(counts or {})}, tidy=tidy)

    def fits(self, positions: Sequence[int], tensors: Mapping[str, np.ndarray]) -> bool:
        """Tell whether a shard's vectors are [n, L, D] of n items."""
        return tensors["layer_embeddings"].shape == (len(positions), *self.shape[1:])

    def write(self, number: int, positions: Sequence[int], vectors: np.ndarray) -> None:
        """Write one shard: `vectors` [n, L, D] float32 of the items at `positions`."""
        expected = (len(positions), *self.shape[1:])
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise ValueError(f"vectors must be float32 {expected}; got {vectors.dtype} {vectors.shape}")
        self.write_tensors(number, positions, {"layer_embeddings": vectors})

    def finish(self, n_shards: int) -> EmbeddingStore:
        """Note every shard's SHA-256, which makes the store whole, and open it."""
        self.write_index(n_shards)
        return open_store(self.folder, verify=False)
