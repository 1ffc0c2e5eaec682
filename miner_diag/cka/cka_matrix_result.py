"""The result of comparing many layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner_diag.cka.hsic import Estimator, Kernel
from miner_diag.cka.permutation import PermutationNull
from miner_diag.stats import Interval


@dataclass(frozen=True)
class CKAMatrix:
    """CKA of every layer of one side with every layer of another, and how it was computed."""

    values: np.ndarray
    """CKA `[L, M]`, float64."""
    low: np.ndarray | None
    """Lower ends of the intervals `[L, M]`; None if intervals were not asked for."""
    high: np.ndarray | None
    """Upper ends `[L, M]`."""
    null: tuple[tuple[PermutationNull, ...], ...] | None
    """Permutation null of each pair; None if not asked for."""
    left_out: np.ndarray | None
    """CKA without item i `[N, L, M]`; None if intervals were not asked for."""
    left_out_groups: np.ndarray | None
    """CKA without group g `[G, L, M]`; None without groups, for the RBF kernel and for more than 256 groups, where
    intervals add up the influences of the items of a group instead."""
    estimator: Estimator
    kernel: Kernel
    route: str
    """"gram" or "features": the route taken."""
    operations: dict[str, float]
    """Multiply-adds that each possible route would take."""
    dtype: str
    """Precision of the products; sums are float64 always."""
    device: str
    n: int
    """Items."""
    n_groups: int | None
    """Groups that the intervals rest on; None where each item stands for itself."""
    widths: tuple[int, ...]
    """Width of each layer of the first side."""
    other_widths: tuple[int, ...]
    """Width of each layer of the second side."""
    names: tuple[str, ...]
    other_names: tuple[str, ...]
    confidence: float

    def interval(self, layer: int, other: int) -> Interval:
        """Value and interval of one pair."""
        if self.low is None or self.high is None:
            raise ValueError("intervals were not computed; call cka_matrix with intervals=True")
        low, high = float(self.low[layer, other]), float(self.high[layer, other])
        return Interval(float(self.values[layer, other]), low, high, self.confidence, self.n, self.n_groups)
