"""Intervals from leave-one-out values, and which items a number hangs on.

Leave-one-out values of CKA are exact and cost nothing beyond the row sums of the one computation (see `sums`), so the
jackknife replaces a thousand recomputations. The bootstrap is no alternative here: a resample repeats items, and a
repeated item is a pair of identical rows that the debiased estimator counts as similarity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from miner_diag.stats import Interval


def influence(value: float | np.ndarray, left_out: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Find what each item, or each group of items together, adds to a value.

    Parameters
    ----------
    value : float or ndarray [...]
        The value from all items.
    left_out : ndarray [N, ...]
        The value without item i.
    groups : ndarray [N] of int, optional
        Group number of each item, 0 … G - 1.

    Returns
    -------
    ndarray [N, ...] or [G, ...]
        ``value - left_out``, summed within groups (delete-one-group to first order).
    """
    own = value - left_out
    if groups is None:
        return own
    summed = np.zeros((int(groups.max()) + 1, *own.shape[1:]))
    np.add.at(summed, groups, own)
    return summed


def group_numbers(groups: Sequence[object] | np.ndarray | None, n: int) -> np.ndarray | None:
    """Turn group labels into numbers 0 … G - 1, checked: one per item, at least two different."""
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups must name the group of each of the {n} items, got shape {labels.shape}")
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups must hold at least 2 different groups for an interval, got only {names[0]!r}")
    return numbers


def standard_error(influences: np.ndarray) -> np.ndarray:
    """Jackknife standard error `[...]` from the influences `[G, ...]` of items or groups."""
    count = len(influences)
    centred = influences - influences.mean(axis=0)
    return np.sqrt((count - 1) / count * (centred**2).sum(axis=0))


def t_quantile(confidence: float, count: int) -> float:
    """Two-sided Student quantile for `count` independent units."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return float(stats.t.ppf(0.5 + confidence / 2, count - 1))


def cka_bounds(
    value: np.ndarray, left_out: np.ndarray, *, confidence: float = 0.95, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Jackknife interval of CKA on the scale of Fisher's z.

    Parameters
    ----------
    value : ndarray [...]
        CKA of all items.
    left_out : ndarray [N, ...]
        CKA without item i; NaN where that does not exist.
    confidence : float
        Nominal coverage.
    groups : ndarray [N] of int, optional
        Group numbers, for an interval that holds when items of a group are alike.

    Returns
    -------
    low, high : ndarray [...]
        Within [-1, 1]. All of [-1, 1] where some item cannot be left out (n = 4, or one item carries a side alone);
        a point where the value is 1 whatever is left out.

    Notes
    -----
    ``z = atanh(CKA)`` is unbounded and its spread changes little with its size, so the interval near 1 is skewed as it
    should be and never passes 1. The standard error is that of z's own leave-one-out values.
    """
    edge = 1 - 1e-12
    z = np.arctanh(np.clip(value, -edge, edge))
    z_left_out = np.arctanh(np.clip(left_out, -edge, edge))
    influences = influence(z, z_left_out, groups)
    half = t_quantile(confidence, len(influences)) * standard_error(influences)
    low, high = np.tanh(z - half), np.tanh(z + half)
    unknown = ~np.isfinite(half)
    fixed = ~unknown & (np.abs(value) >= edge) & (half == 0)
    low = np.where(unknown, -1.0, np.where(fixed, value, low))
    high = np.where(unknown, 1.0, np.where(fixed, value, high))
    return np.minimum(low, value), np.maximum(high, value)


def leave_groups_out_of_mean(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean of values `[N]` without each group `[G]`."""
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups)
    return (values.sum() - sums) / (len(values) - counts)


def mean_interval(values: np.ndarray, *, confidence: float = 0.95, groups: np.ndarray | None = None) -> Interval:
    """Student interval of a mean over items `[N]`, cluster-robust with `groups`."""
    mean, n = float(values.mean()), len(values)
    left_out = (n * mean - values) / (n - 1) if groups is None else leave_groups_out_of_mean(values, groups)
    influences = influence(mean, left_out)
    half = t_quantile(confidence, len(influences)) * float(standard_error(influences))
    return Interval(mean, mean - half, mean + half, confidence, n, None if groups is None else len(influences))


def ratio_interval(
    numerator: float,
    denominator: float,
    numerator_left_out: np.ndarray,
    denominator_left_out: np.ndarray,
    *,
    n: int,
    confidence: float = 0.95,
    n_groups: int | None = None,
) -> Interval:
    """Fieller's interval of a ratio from joint values of its two parts without item i `[N]` or without group g `[G]`.

    The set of ratios rho for which ``numerator - rho * denominator`` is within t standard errors of 0. Unbounded
    (-inf, inf) where the denominator itself is not significantly above 0: any ratio is then possible.
    """
    a, b = numerator - numerator_left_out, denominator - denominator_left_out
    count = len(a)
    value = numerator / denominator
    if not np.isfinite(b).all():
        return Interval(value, -np.inf, np.inf, confidence, n, n_groups)
    cov = (count - 1) * np.cov(np.stack([a, b]), bias=True)
    t2 = t_quantile(confidence, count) ** 2
    # (numerator - rho denominator)^2 <= t^2 (c00 - 2 rho c01 + rho^2 c11), a quadratic in rho
    square = denominator**2 - t2 * cov[1, 1]
    if square <= 0:
        return Interval(value, -np.inf, np.inf, confidence, n, n_groups)
    middle = (numerator * denominator - t2 * cov[0, 1]) / square
    constant = (numerator**2 - t2 * cov[0, 0]) / square
    half = np.sqrt(max(middle**2 - constant, 0.0))
    low, high = min(middle - half, value), max(middle + half, value)
    return Interval(value, float(low), float(high), confidence, n, n_groups)


def most_influential(value: float, left_out: np.ndarray, share: float) -> np.ndarray:
    """Find the ``ceil(share * N)`` items whose absence moves the value most, the strongest first."""
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    moved = np.where(np.isnan(left_out), np.inf, np.abs(value - left_out))
    return np.argsort(-moved, kind="stable")[: int(np.ceil(share * len(moved)))]
