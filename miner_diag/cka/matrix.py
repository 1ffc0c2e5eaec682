"""CKA of many layers at once, by whichever exact route is cheaper, with intervals and permutation null."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from miner_diag.arrays import refuse_other_labels
from miner_diag.cka.arrays import as_rows
from miner_diag.cka.cka_matrix_result import CKAMatrix, assemble
from miner_diag.cka.features import feature_sums
from miner_diag.cka.gram import gram_sums
from miner_diag.cka.groups import MAX_GROUPS, leave_groups_out
from miner_diag.cka.hsic import Estimator, Kernel, check_estimator
from miner_diag.cka.jackknife import group_numbers
from miner_diag.cka.permutation import biased_null_mean, permutation_nulls
from miner_diag.cka.sides import Sides, prepare, zero_hsic
from miner_diag.cka.sums import PairSums

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Route = Literal["auto", "gram", "features"]


def cka_matrix(
    layer_embeddings: Any,
    other: Any = None,
    *,
    estimator: Estimator = "debiased",
    kernel: Kernel = "linear",
    bandwidth: float = 1.0,
    route: Route = "auto",
    intervals: bool = True,
    null: bool = True,
    groups: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    names: Sequence[str] | None = None,
    other_names: Sequence[str] | None = None,
) -> CKAMatrix:
    """CKA of every pair of layers.

    ``CKA = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y))``: unchanged when either side is rotated, translated or scaled by
    one number; changed by stretching single dimensions (linear kernel). No epsilon and no clamping: where CKA does
    not exist an error says why.

    Parameters
    ----------
    layer_embeddings : array or tensor [N, L, D], or sequence of [N, D_l]
        The layers; widths may differ in a sequence. Not copied, whatever strides or device.
    other : like `layer_embeddings`, or array [N, D], optional
        The layers to compare with, same items in the same order (``other=layer_embeddings[:, -1]`` for layer against
        final, which costs L + 1 layers and not all pairs). All pairs within `layer_embeddings` if not given.
    estimator : "debiased" or "biased"
        Song et al. 2012 (default), or the plug-in form of Kornblith et al. 2019, which rises with width / N.
    kernel : "linear" or "rbf"
        ``x'y``, or ``exp(-|x - y|^2 / (2 sigma^2))`` with sigma `bandwidth` times the layer's median distance.
    route : "auto", "gram" or "features"
        Products of items in tiles, or of features in one pass. They agree; auto takes the one with fewer operations.
        Where one item is so far off that feature sums would lose it, the Gram route is taken all the same.
    intervals, null : bool
        Whether to add jackknife intervals and the permutation null.
    groups : sequence [N], optional
        Group (document) of each item; intervals then hold when items of a group are alike (delete-one-group jackknife).
    confidence : float
        Nominal coverage of the intervals.
    device : str or torch.device, optional
        Where products are computed; that of the input if not given.
    dtype : "float32" or "float64", optional
        Precision of the products: by default float64 for float64 input and float32 for the rest. A layer whose CKA
        float32 could spoil is noticed, and all is computed in float64. Sums are float64 always.
    names, other_names : sequence of str, optional
        What results and messages call the layers.

    Raises
    ------
    UndefinedCKAError
        If a layer is constant, has fewer than four items, a self-HSIC of zero, NaN or Inf.
    ValueError
        If shapes, rows or options do not fit together.

    Notes
    -----
    Gram route: ``n^2/2 (sum of widths + products of layers)`` multiply-adds, at most about 320 MiB whatever n. Feature
    route: ``n D D'`` per pair (twice with intervals), ``8 D D'`` bytes per pair in work. Intervals add ``16 n`` bytes
    per pair. Memory of neither route grows with n^2.

    References
    ----------
    .. [1] Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, eqs. 1-3.
    .. [2] Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, eq. 5.
    .. [3] Nguyen et al., "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021 (debiased HSIC in CKA).
    .. [4] Murphy et al., "Correcting Biased Centered Kernel Alignment Measures in Biological and Artificial Neural
       Networks", 2024 (why debiased: the plug-in form tends to 1 with d / n).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(200, 3, 8))
    >>> result = cka_matrix(x, other=2.0 * x[:, -1] + 1.0)
    >>> result.values.shape, round(float(result.values[-1, 0]), 6), result.route
    ((3, 1), 1.0, 'features')
    """
    import torch

    check_estimator(estimator)
    _require("kernel", kernel, get_args(Kernel))
    _require("route", route, get_args(Route))
    if kernel == "rbf" and route == "features":
        raise ValueError("route='features' exists for the linear kernel only; use route='gram' with kernel='rbf'")
    chosen_device = None if device is None else torch.device(device)

    def ready(precision: torch.dtype | None) -> Sides:
        return prepare(
            layer_embeddings,
            other,
            names=names,
            other_names=other_names,
            kernel=kernel,
            bandwidth=bandwidth,
            dtype=precision,
            device=chosen_device,
        )

    refuse_other_labels({"layer_embeddings": layer_embeddings, "other": other, "groups": groups})
    sides = ready(_dtype(dtype))
    numbers = group_numbers(groups, sides.n)
    operations = sides.operations(rows=intervals)
    taken = min(operations, key=lambda name: operations[name]) if route == "auto" else route

    def sums_by(which: Estimator, rows: bool, advice: str = "") -> PairSums:
        """Sum by the route taken, or in a higher precision or by the other route where rounding could spoil it."""
        nonlocal sides, taken
        while True:
            sums = (gram_sums if taken == "gram" else feature_sums)(sides, which, rows=rows)
            coarse = sides.too_coarse(sums, taken, which)
            if coarse is None:
                return sums
            if sides.dtype != torch.float64:
                logger.info("float32 products are too coarse for the CKA of %s; computing in float64", coarse.name)
                sides = ready(torch.float64)
            elif taken == "features":
                logger.info("feature sums are too coarse for the CKA of %s; taking the Gram route", coarse.name)
                taken = "gram"
            else:
                raise zero_hsic(coarse.name, coarse.n, coarse.width, which, advice)

    result = sums_by(estimator, intervals)
    values = result.cka()
    left_out = left_out_groups = None
    if intervals:
        left_out = np.empty((sides.n, *values.shape))
        for i in range(len(sides.x)):
            left_out[:, i] = result.leave_one_out(i, estimator)
        if numbers is not None and kernel == "linear" and numbers.max() < MAX_GROUPS:
            left_out_groups = leave_groups_out(sides, result, estimator, numbers)
    nulls = None
    if null:
        debiased, means = values, np.zeros_like(values)
        if estimator == "biased":
            debiased = sums_by("debiased", False, "; null=False leaves out the p value that needs it").cka()
            means = biased_null_mean(_centred_traces(sides, result), result, sides.n)
        nulls = permutation_nulls(sides, debiased, means)
    return assemble(
        values,
        names=[side.name for side in sides.layers],
        widths=[side.width for side in sides.layers],
        n_x=len(sides.x),
        n=sides.n,
        estimator=estimator,
        route=taken,
        operations=operations,
        confidence=confidence,
        left_out=left_out,
        left_out_groups=left_out_groups,
        groups=numbers,
        null=nulls,
        kernel=kernel,
        dtype=str(sides.dtype).removeprefix("torch."),
        device=str(sides.device),
    )


def linear_cka(x: Any, y: Any, *, estimator: Estimator = "debiased") -> float:
    """Linear CKA of two views of the same items, products and sums in float64.

    Unchanged when either side is rotated, translated or scaled by one number; changed by stretching single dimensions.
    The debiased form is 0 on average for independent sides and lies in [-1, 1]; the biased form lies in [0, 1] and
    rises with width / N.

    Parameters
    ----------
    x : array or tensor [N, D_x]
        Row ``i`` is item ``i`` as one layer sees it.
    y : array or tensor [N, D_y]
        Row ``i`` is the same item as another layer sees it.
    estimator : "debiased" or "biased"
        See `cka_matrix`, which also gives intervals and many layers at once.

    Raises
    ------
    UndefinedCKAError
        If a side is constant over items, has fewer than four rows, NaN or Inf, or a self-HSIC of zero.
    ValueError
        If the row counts differ.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> round(linear_cka(x, 3.0 * x + 1.0), 12)
    1.0
    """
    refuse_other_labels({"x": x, "y": y})
    x, y = as_rows(x, "x"), as_rows(y, "y")
    result = cka_matrix(
        [x], [y], estimator=estimator, intervals=False, null=False, dtype="float64", names=["x"], other_names=["y"]
    )
    return float(result.values[0, 0])


def _centred_traces(sides: Sides, result: PairSums) -> np.ndarray:
    """Traces of the doubly centred kernel matrices."""
    if sides.kernel == "linear":
        return sides.traces()
    if result.diagonal_x is None or result.diagonal_y is None:
        result = gram_sums(sides, "biased", rows=True)
    assert result.diagonal_x is not None and result.diagonal_y is not None
    both = [result.diagonal_x] if sides.y is None else [result.diagonal_x, result.diagonal_y]
    return np.concatenate(both, axis=1).sum(0)


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    import torch

    if dtype is None:
        return None
    for allowed in (torch.float32, torch.float64):
        if dtype in (allowed, str(allowed).removeprefix("torch.")):
            return allowed
    raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")


def _require(argument: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
