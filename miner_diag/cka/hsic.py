"""Hilbert-Schmidt independence criterion: the sums over item pairs that CKA divides.

With kernel matrices ``K, L`` ``[N, N]`` of the two sides:

- biased (Kornblith et al. 2019, eq. 2): ``tr(K H L H) / (n - 1)^2``, ``H = I - 11'/n``;
- debiased (Song et al. 2012, eq. 5): with the diagonals removed, ``K~ = K - diag(K)``,
  ``[tr(K~ L~) + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~L~1] / (n (n-3))``, whose expectation is 0 for independent
  sides.

Both are inner products of *centred* matrices, ``sum_ij A_ij B_ij``, which is what the routes in this package compute:
``A_ij = K_ij - a_i - a_j`` with, for the biased form, ``a_i`` the row mean less half the grand mean, and for the
debiased form (U-centring) ``a_i = k_i/(n-2) - sum(k) / (2(n-1)(n-2))``, ``k_i`` the row sum without the diagonal, and
``A_ii = 0``. So the debiased CKA, too, lies in [-1, 1] (Cauchy-Schwarz) and is exactly 1 on the diagonal.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from miner_diag.arrays import finite_array, real_array, refuse_other_labels

Estimator = Literal["debiased", "biased"]
Kernel = Literal["linear", "rbf"]


def check_estimator(estimator: str) -> None:
    """Raise ValueError unless `estimator` is one that the package has: any other name would be read as one of them."""
    if estimator not in get_args(Estimator):
        raise ValueError(
            f"estimator must be one of 'debiased', 'biased', got {estimator!r}; the unbiased HSIC of Song et al. "
            "is 'debiased'"
        )


def centring_offsets(row_sums: np.ndarray, estimator: Estimator) -> np.ndarray:
    """Find the ``a`` `[N]` for which ``K_ij - a_i - a_j`` is centred.

    Parameters
    ----------
    row_sums : ndarray [N]
        Row sums of the kernel matrix; without its diagonal for ``"debiased"``, with it for ``"biased"``.
    estimator : "debiased" or "biased"
        Which HSIC the centred matrix is for.
    """
    check_estimator(estimator)
    n = len(row_sums)
    if estimator == "debiased":
        return row_sums / (n - 2) - row_sums.sum() / (2 * (n - 1) * (n - 2))
    return row_sums / n - row_sums.sum() / (2 * n * n)


def linear_row_sums(squared_norms: np.ndarray, estimator: Estimator) -> np.ndarray:
    """Row sums `[N]` of the linear kernel of *centred* rows: all zero, so only the diagonal is missing."""
    check_estimator(estimator)
    return -squared_norms if estimator == "debiased" else np.zeros_like(squared_norms)


def centre_kernel(kernel: np.ndarray, estimator: Estimator = "debiased") -> np.ndarray:
    """Centre a symmetric kernel matrix `[N, N]`: the ``A`` of the module's text, float64.

    Raises
    ------
    ValueError
        If it is not square, symmetric, real and finite, or there is no such estimator.
    """
    check_estimator(estimator)
    centred = np.array(_checked_kernel(kernel, "kernel"), dtype=np.float64)
    if estimator == "debiased":
        np.fill_diagonal(centred, 0.0)
    offsets = centring_offsets(centred.sum(axis=1), estimator)
    centred -= offsets[:, None] + offsets[None, :]
    if estimator == "debiased":
        np.fill_diagonal(centred, 0.0)
    return centred


def hsic_normaliser(n: int, estimator: Estimator) -> float:
    """Divisor that makes ``sum_ij A_ij B_ij`` HSIC: n(n-3) debiased, (n-1)^2 biased. CKA does not need it."""
    check_estimator(estimator)
    return float(n * (n - 3)) if estimator == "debiased" else float((n - 1) ** 2)


def hsic_from_kernels(kernel_x: np.ndarray, kernel_y: np.ndarray, *, estimator: Estimator = "debiased") -> float:
    """HSIC of two kernel matrices held in memory.

    Parameters
    ----------
    kernel_x, kernel_y : ndarray [N, N]
        Symmetric kernel matrices over the same items, N >= 4.
    estimator : "debiased" or "biased"
        Song et al. 2012 eq. 5, or Kornblith et al. 2019 eq. 2.

    Raises
    ------
    ValueError
        If the matrices are not of one size, symmetric, real and finite, N is below 4, or there is no such estimator.

    Examples
    --------
    >>> kernel = np.diag([0.0, 1.0, 2.0, 3.0])
    >>> hsic_from_kernels(kernel, kernel, estimator="debiased")
    0.0
    """
    check_estimator(estimator)
    for axis in ("index", "columns"):
        refuse_other_labels({"kernel_x": kernel_x, "kernel_y": kernel_y}, axis=axis)
    kernel_x, kernel_y = real_array(kernel_x, "kernel_x"), real_array(kernel_y, "kernel_y")
    n = len(kernel_x) if kernel_x.ndim else 0
    if kernel_x.shape != (n, n) or kernel_y.shape != (n, n) or n < 4:
        raise ValueError(
            f"kernels must both be [N, N] over the same items, N >= 4; got {kernel_x.shape} and {kernel_y.shape}"
        )
    _checked_kernel(kernel_x, "kernel_x"), _checked_kernel(kernel_y, "kernel_y")
    products = centre_kernel(kernel_x, estimator) * centre_kernel(kernel_y, estimator)
    return float(products.sum() / hsic_normaliser(n, estimator))


def _checked_kernel(values: np.ndarray, argument: str) -> np.ndarray:
    array = real_array(values, argument)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"{argument} must be a kernel matrix [N, N]; got {list(array.shape)}")
    kernel = finite_array(array, argument)
    # How far rounding, in the dtype that the matrix came in, may set its two halves apart.
    slack = np.sqrt(np.finfo(array.dtype if array.dtype.kind == "f" else np.float64).eps)
    apart = np.abs(kernel - kernel.T)
    if apart.size and apart.max() > slack * np.abs(kernel).max():
        row, column = (int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
        raise ValueError(
            f"{argument} must be symmetric, as a kernel is; [{row}, {column}] is {kernel[row, column]:.6g} and "
            f"[{column}, {row}] is {kernel[column, row]:.6g}. Pass x @ x.T of the rows, not a product of two sides"
        )
    return kernel
