"""The noise floor: how far an item's vectors move when it is embedded alone instead of among others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from miner_diag.backbones.base import Backbone, Side
from miner_diag.embeddings.batching import plan_batches
from miner_diag.embeddings.extract import TOKEN_BUDGET, embed_halving
from miner_diag.embeddings.store import EmbeddingStore
from miner_diag.files import canonical_json, sha256_bytes, write_atomic

if TYPE_CHECKING:
    from miner_diag.corpus.core import Page, Query

FILE = "noise_floor.json"
"""Beside the shards of a store."""

N_ITEMS = 16
"""Items it is measured on."""


@dataclass(frozen=True)
class NoiseFloor:
    """Relative difference ``|alone - batched| / |alone|`` of pooled vectors, per layer.

    Differences between systems below it are rounding.
    """

    side: str
    """"query" or "page"."""
    n_items: int
    """On how many items."""
    token_budget: int
    """Of the batches."""
    max_relative_difference: tuple[float, ...]
    """[L], largest over the items."""
    mean_relative_difference: tuple[float, ...]
    """[L], mean over the items."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for ``run.json``."""
        return asdict(self)


def noise_floor(
    backbone: Backbone,
    items: Sequence[Query] | Sequence[Page],
    side: Side,
    *,
    token_budget: int = TOKEN_BUDGET,
    n_items: int = N_ITEMS,
) -> NoiseFloor:
    """Embed the same items one by one and in batches, and compare.

    The items are `n_items` of the given ones, evenly spread over their order; nothing is drawn.

    Raises
    ------
    ValueError
        If there is no item.
    """
    if not items:
        raise ValueError(f"items must hold at least one {side}; got none")
    chosen = np.unique(np.linspace(0, len(items) - 1, min(n_items, len(items))).round().astype(int))
    encoded = backbone.prepare([items[number] for number in chosen], side)
    alone = np.concatenate([embed_halving(backbone, [item]) for item in encoded]).astype(np.float64)
    batched = np.empty_like(alone)
    for batch in plan_batches([item.n_tokens for item in encoded], token_budget):
        batched[batch] = embed_halving(backbone, [encoded[position] for position in batch])
    norms = np.linalg.norm(alone, axis=2)  # [n, L]
    relative = np.linalg.norm(alone - batched, axis=2) / np.where(norms > 0, norms, 1.0)
    return NoiseFloor(
        side, len(encoded), token_budget, tuple(relative.max(axis=0).tolist()), tuple(relative.mean(axis=0).tolist())
    )


def noise_floor_of(store: EmbeddingStore, backbone: Backbone, items: Sequence[Query] | Sequence[Page]) -> NoiseFloor:
    """Return the noise floor of a store, measured on its items once and kept in its folder.

    Parameters
    ----------
    store : EmbeddingStore
        Of `items`, by `backbone`.
    backbone : Backbone
        Runs only if the noise floor was not measured yet.
    items : sequence of Query or of Page
        What the store was extracted from.
    """
    path, key = store.folder / FILE, sha256_bytes(canonical_json(store.key).encode())
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            read: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in kept["floor"].items()}
            return NoiseFloor(**read)
    side: Side = store.key["side"]  # type: ignore[assignment]
    measured = noise_floor(backbone, items, side, token_budget=int(store.key["token_budget"]))
    write_atomic(path, canonical_json({"key": key, "floor": measured.as_dict()}) + "\n")
    return measured
