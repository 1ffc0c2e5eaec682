"""The sufficient statistics of linear CKA, as sums that can be added, subtracted and moved to another reference.

For rows ``x_i, y_i`` taken relative to reference points, the eight sums of a pair are ``X'Y``, ``sum x``, ``sum y``,
``sum |x|^2``, ``sum |y|^2``, ``sum |x|^2 |y|^2``, ``sum |x|^2 y`` and ``sum |y|^2 x``. Moving the references changes
them by each other only, so no row is ever needed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miner_diag.cka.hsic import Estimator, check_estimator

FIELDS = ("count", "sum_x", "sum_y", "norms_x", "norms_y", "product", "norms_xy", "norms_x_y", "norms_y_x")


@dataclass(frozen=True)
class PairMoments:
    """The eight sums of one pair of layers and the number of rows, all float64."""

    count: float
    sum_x: np.ndarray
    """`[D]`."""
    sum_y: np.ndarray
    """`[D']`."""
    norms_x: float
    """sum |x|^2."""
    norms_y: float
    """sum |y|^2."""
    product: np.ndarray
    """X'Y `[D, D']`."""
    norms_xy: float
    """sum |x|^2 |y|^2."""
    norms_x_y: np.ndarray
    """sum |x|^2 y `[D']`."""
    norms_y_x: np.ndarray
    """sum |y|^2 x `[D]`."""

    @staticmethod
    def of(x: np.ndarray, y: np.ndarray, p: np.ndarray, q: np.ndarray) -> PairMoments:
        """Take the sums of a batch `[B, D]`, `[B, D']`, relative to its references, with squared lengths `[B]`."""
        import torch

        product = torch.mm(torch.from_numpy(x).T, torch.from_numpy(y)).numpy()  # one thread pool for all products
        return PairMoments(
            float(len(x)), x.sum(0), y.sum(0), float(p.sum()), float(q.sum()), product, float(p @ q), p @ y, q @ x
        )

    def __add__(self, other: PairMoments) -> PairMoments:
        return PairMoments(*(getattr(self, name) + getattr(other, name) for name in FIELDS))

    def __sub__(self, other: PairMoments) -> PairMoments:
        return PairMoments(*(getattr(self, name) - getattr(other, name) for name in FIELDS))

    def shifted(self, x: np.ndarray, y: np.ndarray) -> PairMoments:
        """Move the references by `x` `[D]` and `y` `[D']`.

        Notes
        -----
        With ``x' = x - a``: ``|x'|^2 = |x|^2 - 2 a'x + |a|^2``; every line below is that, multiplied out and summed.
        """
        n, aa, bb = self.count, float(x @ x), float(y @ y)
        product_b, product_a = self.product @ y, self.product.T @ x
        sum_x, sum_y = self.sum_x - n * x, self.sum_y - n * y
        norms_x = self.norms_x - 2 * float(x @ self.sum_x) + n * aa
        norms_y = self.norms_y - 2 * float(y @ self.sum_y) + n * bb
        norms_xy = (
            self.norms_xy
            - 2 * float(y @ self.norms_x_y)
            - 2 * float(x @ self.norms_y_x)
            + 4 * float(x @ product_b)
            + bb * (self.norms_x - 2 * float(x @ self.sum_x))
            + aa * (self.norms_y - 2 * float(y @ self.sum_y))
            + n * aa * bb
        )
        return PairMoments(
            count=n,
            sum_x=sum_x,
            sum_y=sum_y,
            norms_x=norms_x,
            norms_y=norms_y,
            product=self.product - np.outer(x, self.sum_y) - np.outer(self.sum_x, y) + n * np.outer(x, y),
            norms_xy=norms_xy,
            norms_x_y=self.norms_x_y - 2 * product_a + aa * self.sum_y - norms_x * y,
            norms_y_x=self.norms_y_x - 2 * product_b + bb * self.sum_x - norms_y * x,
        )

    def scaled(self, x: float, y: float) -> PairMoments:
        """Multiply all rows by `x` and `y`."""
        return PairMoments(
            self.count,
            self.sum_x * x,
            self.sum_y * y,
            self.norms_x * x * x,
            self.norms_y * y * y,
            self.product * (x * y),
            self.norms_xy * (x * x * y * y),
            self.norms_x_y * (x * x * y),
            self.norms_y_x * (y * y * x),
        )

    def pair_sum(self, estimator: Estimator) -> float:
        """Sum over item pairs of the product of both centred kernels (see `features.linear_sum`)."""
        check_estimator(estimator)
        n = self.count
        centred = self.shifted(self.sum_x / n, self.sum_y / n)
        frobenius = float(np.vdot(centred.product, centred.product))
        if estimator == "biased":
            return frobenius
        return frobenius - n / (n - 2) * centred.norms_xy + centred.norms_x * centred.norms_y / ((n - 1) * (n - 2))


def total(moments: Sequence[PairMoments]) -> PairMoments:
    """Sum of moments that share their references."""
    total_moments = moments[0]
    for part in moments[1:]:
        total_moments = total_moments + part
    return total_moments
