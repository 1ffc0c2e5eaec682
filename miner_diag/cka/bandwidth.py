"""Width of the RBF kernel by the median heuristic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.layers import Layer

MEDIAN_ITEMS = 2048


def median_distances(layers: Sequence[Layer], bandwidth: float = 1.0) -> list[float]:
    """`bandwidth` times the median distance between two items, for each layer, in the units of its scaled rows.

    The median is over all pairs of different items up to `MEDIAN_ITEMS` items, beyond that over all pairs of as many
    items taken at even distances. Tied to the data's own scale, it leaves RBF CKA unchanged by isotropic scaling.
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")
    return [bandwidth * _median_distance(side) for side in layers]


def _median_distance(side: Layer) -> float:
    import torch

    items = np.unique(np.linspace(0, side.n - 1, min(side.n, MEDIAN_ITEMS)).round().astype(int))
    rows = side.block(items, torch.float64, torch.device("cpu"))
    norms = (rows * rows).sum(1)
    squared = norms[:, None] + norms[None, :] - 2 * rows @ rows.T
    upper = torch.triu_indices(len(items), len(items), 1)
    distances = squared[upper[0], upper[1]].clamp_(min=0).sqrt_()  # a square below 0 is rounding and means 0
    median = float(np.median(distances.numpy()))
    if median <= 1e-6 * float(norms.mean()) ** 0.5:
        raise UndefinedCKAError(
            f"{side.name} (n={side.n}, d={side.width}): more than half of the items coincide, so the median distance "
            "that sets the RBF width is 0; use kernel='linear' or drop repeated items"
        )
    return median
