"""The noise floor: how far an item's vectors move when it is embedded alone instead of among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from miner_diag.backbones.base import Backbone
from miner_diag.corpus.core import Page, Query
from miner_diag.embeddings.folder import NOISE, read_json
from miner_diag.embeddings.forward import embed_halving
from miner_diag.embeddings.shards import DamagedStoreError
from miner_diag.embeddings.store import EmbeddingStore
from miner_diag.files import canonical_json, sha256_bytes, write_atomic
from miner_diag.sealed import check_seal, sealed

N_ITEMS = 16
"""The number of items that it is measured on."""
ROUNDING = {"float32": 1e-3, "bfloat16": 5e-2}
"""The largest relative difference that rounding explains, by the precision of the forward: some hundred times what the
kernels of a sound model leave in float32, some ten times the last bit of bfloat16."""


NOISE_FORMAT = 2
"""The number of the layout of the file in which the answer is kept; it is a part of its name. Format 1 had no hash."""


@dataclass(frozen=True)
class NoiseFloor:
    """The relative difference ``|alone - stored| / |alone|`` of pooled vectors, for each layer.

    Differences between systems that are smaller are rounding.
    """

    side: str
    """"query" or "page"."""
    n_items: int
    """The number of items that were embedded alone."""
    token_budget: int
    """The largest number of tokens in a batch of the store."""
    max_relative_difference: tuple[float, ...]
    """[L], the largest over the items."""
    mean_relative_difference: tuple[float, ...]
    """[L], the mean over the items."""

    def caution(self, name: str, dtype: str) -> str | None:
        """Return a sentence if the vectors depend on what they are batched with by more than rounding.

        Parameters
        ----------
        name : str
            The retriever.
        dtype : str
            The precision of its forward, "float32" or "bfloat16".
        """
        bound = ROUNDING[dtype]
        largest = max(self.max_relative_difference)
        if largest <= bound:
            return None
        layer = self.max_relative_difference.index(largest)
        return (
            f"The vectors of {name} depend on the padding of their batch: a {self.side} embedded alone differs by up "
            f"to {largest:.1e} at layer {layer}, relative, and rounding explains no more than {bound:.0e}. Smaller "
            "differences between systems mean nothing; --token-budget 1 embeds every item alone"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for ``run.json``."""
        return asdict(self)


def noise_floor(
    store: EmbeddingStore, backbone: Backbone, items: Sequence[Query] | Sequence[Page], *, n_items: int = N_ITEMS
) -> NoiseFloor:
    """Embed some items one by one, and compare with what the store holds of them.

    The items are spread evenly over the given ones; nothing is drawn. The answer is kept in the store's folder, under
    the hash over which rows of which shards were compared. So it is measured once, and is the same whoever asks first.

    Parameters
    ----------
    store : EmbeddingStore
        The vectors of `items`, by `backbone`.
    backbone : Backbone
        The retriever; it runs only if these items were not compared before.
    items : sequence of Query or of Page
        The N items of the store, in its order.
    n_items : int
        The largest number of items that are compared.

    Raises
    ------
    DamagedStoreError
        If the file in which the answer was kept cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(items) - 1, min(n_items, len(items))).round().astype(np.int64))
    rows = [
        [store.items.shards[shard].name, row]
        for shard, row in zip(
            store.items.shard_numbers[chosen].tolist(), store.items.shard_rows[chosen].tolist(), strict=True
        )
    ]
    compared: list[Any] = [store.items.folder.digest, rows]
    if store.kept.layers != tuple(range(store.shape[1])):
        compared.append(store.kept.layers)
    digest = sha256_bytes(canonical_json(compared).encode())
    path = store.folder / NOISE / f"{digest[:32]}-{NOISE_FORMAT}.json"
    if path.exists():
        kept = read_json(path)
        try:
            check_seal(kept)
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in kept["floor"].items()
            }
            if kept["rows"] != digest:
                raise ValueError("it is of other items")
            return NoiseFloor(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedStoreError(path, str(error)) from error
    floor = measure_noise(backbone, [items[number] for number in chosen.tolist()], store, chosen)
    write_atomic(path, canonical_json(sealed({"rows": digest, "floor": floor.as_dict()})) + "\n")
    return floor


def measure_noise(
    backbone: Backbone, items: Sequence[Query] | Sequence[Page], store: EmbeddingStore, rows: np.ndarray
) -> NoiseFloor:
    """Embed items one by one, and compare them with the given rows of the store."""
    side = store.items.folder.side
    alone = np.concatenate([embed_halving(backbone.embed, [item]) for item in backbone.prepare(items, side)])
    alone = alone.astype(np.float64)
    norms = np.linalg.norm(alone, axis=2)  # [n, L]
    relative = np.linalg.norm(alone - store.rows(rows), axis=2) / np.where(norms > 0, norms, 1.0)
    return NoiseFloor(
        side,
        len(alone),
        int(store.key["token_budget"]),
        tuple(relative.max(axis=0).tolist()),
        tuple(relative.mean(axis=0).tolist()),
    )
