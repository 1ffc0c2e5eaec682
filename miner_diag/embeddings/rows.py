"""Some items of a store, seen as a store of their own: a split needs no second pass through the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from miner_diag.embeddings.store import EmbeddingStore


class StoreRows:
    """The items of a store with these ids, in this order; vectors are read when they are asked for.

    Parameters
    ----------
    store : EmbeddingStore
        Where they lie.
    ids : sequence of str [n]
        Which items.

    Raises
    ------
    ValueError
        If an id is not in the store; it is named.
    """

    def __init__(self, store: EmbeddingStore, ids: Sequence[str]) -> None:
        place = {item_id: number for number, item_id in enumerate(store.ids)}
        missing = [item_id for item_id in ids if item_id not in place]
        if missing:
            raise ValueError(
                f"{store.folder} holds no item {missing[0]!r} ({len(missing)} of {len(ids)} are not there)"
            )
        self.store = store
        self.ids: tuple[str, ...] = tuple(ids)
        """Ids of the items, in the order they were given."""
        self.numbers = np.array([place[item_id] for item_id in ids], dtype=np.int64)
        """[n] their rows in the store."""
        self.shape: tuple[int, int, int] = (len(self.ids), *store.shape[1:])
        """(n, L, D)."""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def layer_embeddings(self) -> np.ndarray:
        """All pooled vectors [n, L, D], float32, read into memory once. Read-only."""
        whole = self.store.rows(self.numbers)
        whole.setflags(write=False)
        return whole

    def layer(self, layer: int) -> np.ndarray:
        """Return one layer's vectors [n, D], float32; raises ValueError if there is no such layer."""
        return self.store.layer(layer)[self.numbers]

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return all layers [k, L, D], float32, of the items with these numbers; raises ValueError if there is none."""
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise ValueError(f"rows must be 0 … {len(self) - 1}; got {rows.min()} … {rows.max()}")
        return self.store.rows(self.numbers[rows])
