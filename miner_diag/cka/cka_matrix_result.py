"""The result of comparing many layers, and how both ways of computing it put it together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miner_diag.cka.hsic import Estimator, Kernel
from miner_diag.cka.jackknife import ROUNDING, ROUNDING_FLOAT32, cka_bounds, unit_count
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
    """Estimator of HSIC."""
    kernel: Kernel
    """Kernel of HSIC."""
    route: str
    """The route taken: "gram", "features" or "streaming"."""
    operations: dict[str, float]
    """Multiply-adds that each possible route would take."""
    dtype: str
    """Precision of the products; sums are float64 always."""
    device: str
    """Where the products were computed."""
    n: int
    """Number of items."""
    n_groups: int | None
    """Number of groups that the intervals rest on; None where each item stands for itself."""
    effective_groups: float | None
    """Kish's effective number of these groups."""
    widths: tuple[int, ...]
    """Width of each layer of the first side."""
    other_widths: tuple[int, ...]
    """Width of each layer of the second side."""
    names: tuple[str, ...]
    """Name of each layer of the first side."""
    other_names: tuple[str, ...]
    """Name of each layer of the second side."""
    confidence: float
    """Nominal coverage of the intervals."""

    def interval(self, layer: int, other: int) -> Interval:
        """Value and interval of one pair."""
        if self.low is None or self.high is None:
            raise ValueError("intervals were not computed; call cka_matrix with intervals=True")
        low, high = float(self.low[layer, other]), float(self.high[layer, other])
        over = (self.n, self.n_groups, self.effective_groups)
        return Interval(float(self.values[layer, other]), low, high, self.confidence, *over)


def assemble(
    values: np.ndarray,
    *,
    names: Sequence[str],
    widths: Sequence[int],
    n_x: int,
    n: int,
    estimator: Estimator,
    route: str,
    operations: dict[str, float],
    confidence: float,
    left_out: np.ndarray | None = None,
    left_out_groups: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    null: tuple[tuple[PermutationNull, ...], ...] | None = None,
    kernel: Kernel = "linear",
    dtype: str = "float64",
    device: str = "cpu",
) -> CKAMatrix:
    """Put a result together: the bounds of the intervals from what was left out, and the two sides apart.

    Parameters
    ----------
    values : ndarray [L, M]
        CKA.
    names, widths : sequence
        Name and width of every layer, those of the first side first.
    n_x : int
        Number of layers of the first side. It is compared with itself if there are no others.
    n : int
        Number of items.
    left_out : ndarray [N, L, M], optional
        CKA without each item.
    left_out_groups : ndarray [G, L, M], optional
        CKA without each group; bounds are taken from it where it is given.
    groups : ndarray [N] of int, optional
        Group number of each item.
    others
        As the fields of `CKAMatrix`.
    """
    n_groups, effective, _ = unit_count(groups, n)
    units, unit_groups = (left_out, groups) if left_out_groups is None else (left_out_groups, None)
    low = high = None
    if units is not None:
        low, high = np.empty_like(values), np.empty_like(values)
        rounding = ROUNDING_FLOAT32 if dtype == "float32" else ROUNDING
        for layer in range(len(values)):  # one at a time: the scale of z takes as much memory again
            low[layer], high[layer] = cka_bounds(
                values[layer],
                units[:, layer],
                confidence=confidence,
                groups=unit_groups,
                effective=effective,
                rounding=rounding,
            )
    second = slice(n_x, None) if len(names) > n_x else slice(0, n_x)
    return CKAMatrix(
        values=values,
        low=low,
        high=high,
        null=null,
        left_out=left_out,
        left_out_groups=left_out_groups,
        estimator=estimator,
        kernel=kernel,
        route=route,
        operations=operations,
        dtype=dtype,
        device=device,
        n=n,
        n_groups=n_groups,
        effective_groups=effective,
        widths=tuple(widths[:n_x]),
        other_widths=tuple(widths[second]),
        names=tuple(names[:n_x]),
        other_names=tuple(names[second]),
        confidence=confidence,
    )
