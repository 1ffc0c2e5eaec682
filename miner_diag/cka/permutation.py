"""What CKA would be if the pairing of rows were broken: the permutation null, from its exact moments.

Shuffling the rows of one side leaves both self-HSICs alone, so the null of CKA is the null of
``sum_ij A_ij B_p(i)p(j)`` over permutations p. For U-centred matrices (zero diagonal, rows summing to zero) its moments
over *all* n! permutations are closed forms. Mean: 0. Variance of the debiased CKA: ``2 / (n (n - 3))``, whatever the
data. Third moment: from ``sum A_ij^3`` and ``tr(A^3)`` of each side (`third_moment`). A Pearson type III law with these
three moments gives the p value, the approximation known to be accurate for the RV coefficient, of which CKA is the
kernel form (Josse, Pages & Husson 2008). It is exact in the two limits: chi-squared for one dimension, normal for many.

The p value assumes that rows are exchangeable under the null. Where rows come in groups (pages of one document), a
small p value may say no more than that both sides know the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from scipy import special

from miner_diag.cka.hsic import Kernel, centre_kernel
from miner_diag.cka.layers import Layer
from miner_diag.cka.sides import Sides
from miner_diag.cka.sums import PairSums

SHAPE_ITEMS = 512


@dataclass(frozen=True)
class PermutationNull:
    """Law of CKA when rows are paired at random, and where the observed value falls in it."""

    mean: float
    """Exact mean over all permutations; 0 for the debiased estimator."""
    sd: float
    """Exact standard deviation of the debiased CKA over all permutations."""
    skewness: float
    """Third standardised moment."""
    upper: float
    """95th percentile: debiased CKA above it is significant at 0.05, one-sided."""
    p_value: float
    """Share of pairings at least as similar as the observed one, by the debiased statistic."""


@dataclass(frozen=True)
class KernelShape:
    """What of one centred kernel matrix decides the skewness of the null."""

    triangles: float
    """tr(A^3) / (sum A_ij^2)^(3/2)."""
    cubes: float
    """sum A_ij^3 / (sum A_ij^2)^(3/2)."""


def null_sd(n: int) -> float:
    """Exact standard deviation of debiased CKA over all permutations of n items."""
    return float(np.sqrt(2 / (n * (n - 3))))


def biased_null_mean(traces: np.ndarray, sums: PairSums, n: int) -> np.ndarray:
    """Exact mean `[L, M]` of biased CKA over all permutations: tr(A) tr(B) / ((n - 1) |A| |B|).

    `traces` are those of the doubly centred kernels of x, then, if there is a second side, of y.
    """
    count = len(sums.self_x)
    second = traces[count:] if len(traces) > count else traces
    return np.outer(traces[:count] / np.sqrt(sums.self_x), second / np.sqrt(sums.self_y)) / (n - 1)


def shape_items(n: int) -> np.ndarray:
    """Return the items [min(n, SHAPE_ITEMS)] of n that `kernel_shape` looks at, at even distances."""
    return np.unique(np.linspace(0, n - 1, min(n, SHAPE_ITEMS)).round().astype(int))


def kernel_shape(side: Layer, kernel: Kernel, sigma: float, *, n: int | None = None) -> KernelShape:
    """Shape of a layer's U-centred kernel.

    Exact up to `SHAPE_ITEMS` items; of more, that many are taken at even distances, which leaves the skewness (a
    property of the kernel's spectrum) within a few per cent and its cost bounded. A layer that holds only these items
    says by `n` how many there are in all.
    """
    import torch

    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel must be one of {', '.join(map(repr, get_args(Kernel)))}, got {kernel!r}")
    items = shape_items(side.n)
    rows = side.block(items, torch.float64, torch.device("cpu"))
    matrix = (rows @ rows.T).numpy()
    if kernel == "rbf":
        norms = matrix.diagonal()
        matrix = np.exp(-np.maximum(norms[:, None] + norms[None, :] - 2 * matrix, 0) / (2 * sigma**2))
    centred = centre_kernel(matrix, "debiased")
    squares = centred**2
    size = squares.sum() ** 1.5
    if size == 0:
        return KernelShape(0.0, 0.0)
    triangles = float((torch.from_numpy(centred) @ torch.from_numpy(centred)).numpy().ravel() @ centred.ravel())
    return KernelShape(triangles / size, float(squares.ravel() @ centred.ravel()) / size * len(items) / (n or side.n))


def third_moment(shape_x: KernelShape, shape_y: KernelShape, n: int) -> float:
    """Third moment of debiased CKA over all permutations of n >= 4 items.

    Notes
    -----
    Expand the cube of ``2 sum_{i<j} A_ij B_p(i)p(j)`` into triples of edges and sort them by shape. A random p carries
    a triple to a uniformly random one of the same shape, so each shape contributes (its sum over A) (its sum over B) /
    (its count). Because rows sum to zero, all eight sums reduce to ``u = sum_{i<j} A_ij^3`` and ``t = tr(A^3)``.
    """
    pairs = n * (n - 1) / 2
    triples = n * (n - 1) * (n - 2)
    quadruples = triples * (n - 3)
    # (labelled triples of edges, share of one labelling, sum over A as multiples of u and t)
    shapes = [
        (pairs, 1, (1, 0)),  # the same edge three times
        (pairs * 2 * (n - 2), 3, (-2, 0)),  # twice an edge and one that touches it
        (pairs * (n - 2) * (n - 3) / 2, 3, (1, 0)),  # twice an edge and one apart
        (triples, 1, (0, 1)),  # a triangle
        (quadruples, 1, (4, 0)),  # a star
        (3 * quadruples, 1, (6, -3)),  # a path of four items
        (3 * triples * (n - 3) * (n - 4) / 2, 1, (-12, 3)),  # two that touch and one apart
        (pairs * (n - 2) * (n - 3) / 2 * (n - 4) * (n - 5) / 2, 1, (4, -1)),  # three apart
    ]
    total = 0.0
    for count, labellings, (edges, triangles) in shapes:
        if count > 0:
            sum_x = edges * shape_x.cubes / 2 + triangles * shape_x.triangles
            sum_y = edges * shape_y.cubes / 2 + triangles * shape_y.triangles
            total += labellings * sum_x * sum_y / count
    return 8 * total


def pearson3_sf(z: float, skewness: float) -> float:
    """P(Z > z) for a Pearson type III variable of mean 0, sd 1: a shifted gamma, mirrored for negative skewness."""
    if abs(skewness) < 1e-4:
        return float(special.ndtr(-z))
    shape = 4 / skewness**2
    scaled = max(shape + np.sign(skewness) * z * np.sqrt(shape), 0.0)
    return float(special.gammaincc(shape, scaled) if skewness > 0 else special.gammainc(shape, scaled))


def pearson3_quantile(upper: float, skewness: float) -> float:
    """Find the z with P(Z > z) = `upper`."""
    if abs(skewness) < 1e-4:
        return -float(special.ndtri(upper))
    shape = 4 / skewness**2
    scaled = special.gammainccinv(shape, upper) if skewness > 0 else special.gammaincinv(shape, upper)
    return float(np.sign(skewness) * (scaled - shape) / np.sqrt(shape))


def null_of(
    debiased_cka: float, shape_x: KernelShape, shape_y: KernelShape, n: int, *, mean: float = 0.0
) -> PermutationNull:
    """Null law and one-sided p value of an observed debiased CKA."""
    sd = null_sd(n)
    skewness = float(third_moment(shape_x, shape_y, n) / sd**3)
    # The observed pairing is one of the n! itself, so no p value is below 1 / n!.
    smallest = max(float(np.exp(-special.gammaln(n + 1))), np.finfo(float).tiny)
    p_value = max(pearson3_sf(debiased_cka / sd, skewness), smallest)
    return PermutationNull(mean, sd, skewness, pearson3_quantile(0.05, skewness) * sd, p_value)


def permutation_nulls(sides: Sides, debiased: np.ndarray, means: np.ndarray) -> tuple[tuple[PermutationNull, ...], ...]:
    """Null of every pair, from the debiased CKA `[L, M]` and the means of the statistic that is reported `[L, M]`."""
    shapes = [kernel_shape(side, sides.kernel, sigma) for side, sigma in zip(sides.layers, sides.sigmas, strict=True)]
    first, second = shapes[: len(sides.x)], shapes if sides.y is None else shapes[len(sides.x) :]
    return tuple(
        tuple(
            null_of(float(debiased[i, j]), shape_x, shape_y, sides.n, mean=float(means[i, j]))
            for j, shape_y in enumerate(second)
        )
        for i, shape_x in enumerate(first)
    )
