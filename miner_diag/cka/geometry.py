"""Numbers of one layer alone, or of two in the same coordinates: paired cosine, anisotropy, effective rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from miner_diag.arrays import refuse_other_labels
from miner_diag.cka.arrays import as_matrix, as_rows
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.jackknife import group_numbers, influence, interval_around, mean_interval
from miner_diag.cka.layers import as_layers
from miner_diag.stats import Interval


def unit_rows(values: Any, name: str = "x") -> np.ndarray:
    """Rows at length one, float64 `[N, D]`; not centred.

    Raises
    ------
    UndefinedCKAError
        If a row is zero or holds NaN or Inf: it has no direction.
    """
    tensor = as_matrix(values, name)
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ValueError(f"{name} must be [N, D] with N and D at least 1, got {tuple(tensor.shape)}")
    rows = tensor.double().cpu().numpy()
    largest = np.abs(rows).max(axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(largest[:, 0]) | (largest[:, 0] == 0))
    if len(bad):
        what = "zero" if largest[bad[0], 0] == 0 else "NaN or Inf"
        raise UndefinedCKAError(
            f"{name} (n={rows.shape[0]}, d={rows.shape[1]}): row {bad[0]} is {what} ({len(bad)} such rows), so it has "
            "no direction and no cosine; remove these items or check how they were pooled"
        )
    scaled = rows / largest
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def paired_cosines(x: Any, y: Any, *, names: tuple[str, str] = ("x", "y")) -> np.ndarray:
    """Cosine of each row of x `[N, D]` with the same row of y `[N, D]`, uncentred: float64 `[N]`."""
    for axis in ("index", "columns"):  # a cosine pairs coordinates as it pairs rows
        refuse_other_labels({"x": x, "y": y}, axis=axis)
    left, right = unit_rows(x, names[0]), unit_rows(y, names[1])
    if len(left) != len(right):
        raise ValueError(
            f"rows must pair item by item: {names[0]} has {len(left)} rows, {names[1]} has {len(right)}; "
            "bring both sides to the same items in the same order"
        )
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"a cosine needs sides of the same width: {names[0]} has d={left.shape[1]}, {names[1]} has "
            f"d={right.shape[1]}; layers of different width have a CKA but no cosine and no alignment ratio"
        )
    return np.einsum("nd,nd->n", left, right)


def mean_cosine(
    x: Any, y: Any, *, groups: Sequence[object] | np.ndarray | None = None, confidence: float = 0.95
) -> Interval:
    """Mean cosine of paired rows with its Student interval (cluster-robust with `groups`)."""
    refuse_other_labels({"x": x, "y": y, "groups": groups})
    cosines = paired_cosines(x, y)
    if len(cosines) < 2:
        raise ValueError(f"an interval needs at least 2 rows, got {len(cosines)}")
    return mean_interval(cosines, confidence=confidence, groups=group_numbers(groups, len(cosines)))


def anisotropy(x: Any, *, groups: Sequence[object] | np.ndarray | None = None, confidence: float = 0.95) -> Interval:
    """Mean cosine between two different rows of x `[N, D]`, uncentred, with its jackknife interval.

    0 for directions spread evenly, 1 for a collapsed layer. Exact over all pairs: with unit rows ``u_i`` and their sum
    ``s`` it is ``(|s|^2 - n) / (n (n - 1))``; without row i, ``s - u_i`` takes the place of ``s``. Costs ``n d``.

    Examples
    --------
    >>> print(anisotropy(np.eye(5)))
    0.0000 [0.0000, 0.0000]
    """
    refuse_other_labels({"x": x, "groups": groups})
    rows = unit_rows(x)
    n = len(rows)
    if n < 3:
        raise ValueError(f"anisotropy with an interval needs at least 3 rows, got {n}")
    total = rows.sum(axis=0)
    length = float(total @ total)
    value = (length - n) / (n * (n - 1))
    left_out = (length - 2 * rows @ total + 1 - (n - 1)) / ((n - 1) * (n - 2))
    numbers = group_numbers(groups, n)
    influences = influence(value, left_out, numbers)
    return interval_around(value, influences, n=n, confidence=confidence, groups=numbers, scale=1.0)


def effective_rank(
    x: Any,
    *,
    centred: bool = True,
    groups: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Effective rank of x `[N, D]` (Roy & Vetterli 2007): how many directions its rows use.

    ``exp(H(p))`` with ``p_k = s_k / sum(s)`` over the singular values of x, by default of x with its mean row removed,
    so that a common offset does not count as a direction. Between 1 and min(N - 1, D). It grows with N until N is well
    above D: compare only values of equal N. The interval is the infinitesimal jackknife, from
    ``d s_k = - s_k u_ik^2 / 2`` when row i leaves; it speaks of the spread between samples of N items, not of N.
    Costs ``n d min(n, d)``.

    Raises
    ------
    UndefinedCKAError
        If x is constant, has fewer than four rows, NaN or Inf.
    """
    refuse_other_labels({"x": x, "groups": groups})
    side = as_layers([as_rows(x, "x")], ["x"])[0]
    import torch

    rows = side.block(slice(None), torch.float64, torch.device("cpu"))
    if not centred:
        rows = rows + side.mean
    n = side.n
    wide = side.width > n
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = values.numpy(), vectors.numpy()
    kept = values > values[-1] * max(rows.shape) * np.finfo(float).eps
    singular, vectors = np.sqrt(values[kept]), vectors[:, kept]
    left = vectors if wide else rows.numpy() @ vectors / singular
    share = singular / singular.sum()
    entropy = -float(share @ np.log(share))
    value = float(np.exp(entropy))
    influences = -value / 2 * (left**2) @ (share * (np.log(share) + entropy))
    numbers = group_numbers(groups, n)
    influences = influence(0.0, -influences, numbers)
    return interval_around(value, influences, n=n, confidence=confidence, groups=numbers, scale=value)
