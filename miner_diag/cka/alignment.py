"""Two views of the same items compared in full: CKA, its null, mean cosine, alignment ratio, and what outliers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miner_diag.arrays import refuse_other_labels
from miner_diag.cka.arrays import as_matrix, as_rows
from miner_diag.cka.cka_matrix_result import CKAMatrix
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import paired_cosines
from miner_diag.cka.hsic import Estimator, Kernel
from miner_diag.cka.jackknife import (
    exactly_one,
    group_numbers,
    influence,
    leave_groups_out_of_mean,
    mean_interval,
    most_influential,
    ratio_interval,
)
from miner_diag.cka.matrix import cka_matrix, linear_cka
from miner_diag.cka.permutation import PermutationNull
from miner_diag.stats import Interval


@dataclass(frozen=True)
class OutlierCheck:
    """CKA without the items that move it most."""

    value: float
    """CKA without them."""
    change: float
    """`value` less the CKA of all items."""
    items: np.ndarray
    """Their row numbers, the most influential first."""


@dataclass(frozen=True)
class Comparison:
    """Two views of the same items."""

    cka: Interval
    """CKA of the two views."""
    null: PermutationNull
    """Law of CKA when rows are paired at random, and the p value."""
    outliers: OutlierCheck | None
    """None where too few items would be left for a CKA."""
    mean_cosine: Interval | None
    """Mean cosine of paired rows, uncentred; None where widths differ."""
    alignment_ratio: Interval | None
    """Mean cosine over CKA; None where it does not exist, and `no_ratio` says why."""
    no_ratio: str | None
    """Why there is no alignment ratio."""
    n: int
    """Number of items."""
    widths: tuple[int, int]
    """Width of each side."""
    estimator: Estimator
    """Estimator of the CKA."""
    kernel: Kernel
    """Kernel of the CKA."""
    route: str
    """How the CKA was computed: "gram", "features" or "streaming"."""


def alignment_ratio(x: Any, y: Any, *, estimator: Estimator = "debiased") -> float:
    """Mean cosine of paired rows over their linear CKA: ``AR(X, Y) = mean_i cos(x_i, y_i) / CKA(X, Y)``.

    How much of the geometry that two views share stands in the same coordinates. The cosine is uncentred, the CKA is of
    centred rows, so the ratio is not bounded by 1. Unchanged when either side is scaled; *changed* by rotation and by
    translation, because the cosine is.

    Parameters
    ----------
    x, y : array or tensor [N, D]
        Row ``i`` of both is item ``i``; the widths must be equal.
    estimator : "debiased" or "biased"
        Estimator of the CKA.

    Raises
    ------
    UndefinedCKAError
        If CKA does not exist or is not above 0 (the debiased estimate can be negative), or if a row is zero.
    ValueError
        If widths or row counts differ.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> round(alignment_ratio(x, 2.0 * x), 12)
    1.0
    """
    cosine = paired_cosines(x, y).mean()
    cka = linear_cka(x, y, estimator=estimator)
    if cka <= 0:
        raise UndefinedCKAError(_no_ratio(cka, *as_matrix(x, "x").shape))
    return float(exactly_one(cosine / cka))


def compare(
    x: Any,
    y: Any,
    *,
    estimator: Estimator = "debiased",
    kernel: Kernel = "linear",
    groups: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
    outlier_share: float = 0.01,
    names: tuple[str, str] = ("x", "y"),
    **options: Any,
) -> Comparison:
    """Everything the package says of two views of the same items.

    Parameters
    ----------
    x : array or tensor [N, D_x]
        Row ``i`` is item ``i``.
    y : array or tensor [N, D_y]
        Row ``i`` is the same item.
    estimator, kernel, groups, confidence
        As in `cka_matrix`. With `groups`, every interval holds when items of a group are alike.
    outlier_share : float
        Share of items, the most influential ones, that the outlier check leaves out.
    names : (str, str)
        What messages call the sides.
    **options
        `route`, `device`, `dtype`, `bandwidth` of `cka_matrix`; products are float64 if `dtype` is not given.

    Returns
    -------
    Comparison
        A ratio that does not exist (widths differ, CKA not above 0) is None with its reason; a CKA that does not exist
        is an error.
    """
    refuse_other_labels({"x": x, "y": y, "groups": groups})
    refuse_other_labels({"x": x, "y": y}, axis="columns")
    x, y = as_rows(x, "x"), as_rows(y, "y")
    options.setdefault("dtype", "float64")
    matrix = cka_matrix(
        [x],
        [y],
        estimator=estimator,
        kernel=kernel,
        groups=groups,
        confidence=confidence,
        names=names[:1],
        other_names=names[1:],
        **options,
    )
    assert matrix.null is not None and matrix.left_out is not None
    cka, left_out = matrix.interval(0, 0), matrix.left_out[:, 0, 0]
    widths = (matrix.widths[0], matrix.other_widths[0])
    cosine = ratio = None
    reason: str | None = None
    if widths[0] != widths[1]:
        reason = f"widths differ: {names[0]} has d={widths[0]}, {names[1]} has d={widths[1]}"
    else:
        numbers = group_numbers(groups, matrix.n)
        cosines = paired_cosines(x, y, names=names)
        cosine = mean_interval(cosines, confidence=confidence, groups=numbers)
        ratio, reason = ratio_of(cosine, cka, *_both_left_out(cosines, cka.value, matrix, numbers), d=widths[0])
    outliers = _outlier_check(x, y, cka.value, left_out, outlier_share, matrix, options)
    return Comparison(
        cka, matrix.null[0][0], outliers, cosine, ratio, reason, matrix.n, widths, estimator, kernel, matrix.route
    )


def ratio_of(
    cosine: Interval, cka: Interval, cosine_left_out: np.ndarray, cka_left_out: np.ndarray, *, d: int
) -> tuple[Interval | None, str | None]:
    """Return the alignment ratio of a mean cosine and a CKA, or None and the reason why it does not exist.

    Parameters
    ----------
    cosine, cka : Interval
        Both over the same items and groups.
    cosine_left_out, cka_left_out : ndarray [N] or [G]
        Both without each item, or without each group.
    d : int
        Width of the layers, for the reason.
    """
    if cka.value <= 0:
        return None, _no_ratio(cka.value, cka.n, d)
    ratio = ratio_interval(
        cosine.value,
        cka.value,
        cosine_left_out,
        cka_left_out,
        confidence=cka.confidence,
        n=cka.n,
        n_groups=cka.n_clusters,
        effective_groups=cka.effective_clusters,
    )
    return ratio, None


def _both_left_out(
    cosines: np.ndarray, cka: float, matrix: CKAMatrix, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine and CKA without each item, or without each group."""
    assert matrix.left_out is not None
    by_item = matrix.left_out[:, 0, 0]
    if groups is None:
        return (cosines.sum() - cosines) / (len(cosines) - 1), by_item
    if matrix.left_out_groups is not None:
        by_group = matrix.left_out_groups[:, 0, 0]
    else:
        by_group = cka - influence(cka, by_item, groups)
    return leave_groups_out_of_mean(cosines, groups), by_group


def _outlier_check(
    x: Any,
    y: Any,
    value: float,
    left_out: np.ndarray,
    share: float,
    matrix: CKAMatrix,
    options: dict[str, Any],
) -> OutlierCheck | None:
    items = most_influential(value, left_out, share)
    kept = np.setdiff1d(np.arange(len(left_out)), items)
    if len(kept) < 4:
        return None
    try:
        rest = cka_matrix(
            [as_matrix(x, "x")[kept]],
            [as_matrix(y, "y")[kept]],
            estimator=matrix.estimator,
            kernel=matrix.kernel,
            intervals=False,
            null=False,
            **options,
        )
    except UndefinedCKAError:
        return None  # these items carry a side alone; the interval, all of [-1, 1], says so
    without = float(rest.values[0, 0])
    return OutlierCheck(without, without - value, items)


def _no_ratio(cka: float, n: int, d: int) -> str:
    return (
        f"the alignment ratio does not exist: its denominator, CKA, is {cka:.6f} (n={n}, d={d}), not above 0; "
        "the sides share no geometry that this many items can show"
    )
