"""Which items the noise floor is measured on: spread from the first to the last, rounded to the nearest."""

import numpy as np
import pytest

from miner_diag.backbones.base import KeptLayers
from miner_diag.embeddings import noise


class Store:
    """Where rows lie, and nothing else."""

    def __init__(self, n, folder):
        from types import SimpleNamespace

        shards = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
        self.folder, self.shape, self.kept = folder, (n, 1, 1), KeptLayers(1, (0,))
        self.items = SimpleNamespace(
            shards=shards,
            shard_numbers=np.arange(n) % 2,
            shard_rows=np.arange(n) // 2,
            folder=SimpleNamespace(digest="digest", side="page"),
        )


@pytest.mark.parametrize(
    ("n", "n_items", "rows"),
    [
        (7, 4, [0, 2, 4, 6]),
        (6, 4, [0, 2, 3, 5]),
        (10, 3, [0, 4, 9]),
        (3, 16, [0, 1, 2]),
        (1, 4, [0]),
        (100, 2, [0, 99]),
    ],
)
def test_items_are_spread_from_the_first_to_the_last(tmp_path, monkeypatch, n, n_items, rows):
    seen = []

    def measured(backbone, items, store, chosen):
        seen.append((list(items), chosen.tolist()))
        return noise.NoiseFloor("page", len(items), 1, (0.0,), (0.0,))

    monkeypatch.setattr(noise, "measure_noise", measured)
    items = [f"item {number}" for number in range(n)]
    floor = noise.noise_floor(Store(n, tmp_path), None, items, n_items=n_items)
    assert seen == [([items[row] for row in rows], rows)] and floor.n_items == len(rows)
