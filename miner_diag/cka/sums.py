"""What a route hands to CKA: sums over item pairs, whole and per item.

With centred matrices ``A_l`` (see `hsic`), ``cross[l, m] = sum_ij A_l,ij B_m,ij``, and its share of item i is the row
sum ``cross_rows[i, l, m] = sum_j A_l,ij B_m,ij``. The rows are what leave-one-out values are made of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner_diag.cka.hsic import Estimator, check_estimator
from miner_diag.cka.jackknife import exactly_one


@dataclass(frozen=True)
class PairSums:
    """Sums of products of centred kernel matrices, all float64."""

    cross: np.ndarray
    """Between the sides `[L, M]`."""
    self_x: np.ndarray
    """Each layer of the first side with itself `[L]`."""
    self_y: np.ndarray
    """Each layer of the second side with itself `[M]`."""
    cross_rows: np.ndarray | None
    """Per item `[N, L, M]`, or None if not asked for."""
    self_rows_x: np.ndarray | None
    """Per item `[N, L]`."""
    self_rows_y: np.ndarray | None
    """Per item `[N, M]`."""
    diagonal_x: np.ndarray | None
    """Diagonals of ``A_l`` `[N, L]`; zeros when debiased."""
    diagonal_y: np.ndarray | None
    """Diagonals of ``B_m`` `[N, M]`."""

    def cka(self) -> np.ndarray:
        """CKA `[L, M]`; a value that differs from 1 by rounding alone is 1."""
        return exactly_one(self.cross / np.sqrt(self.self_x)[:, None] / np.sqrt(self.self_y)[None, :])

    def leave_one_out(self, layer: int, estimator: Estimator) -> np.ndarray:
        """CKA of one layer with all others without item i, exactly, for every i `[N, M]`; NaN where it does not exist.

        Notes
        -----
        Removing item i from U-centred matrices, whose rows sum to zero, leaves (n - 1 items, by Song's formula)
        ``T - 2 r_i`` for the pair sum, 0 for the product of totals and ``r_i`` for ``1'A B1``, together
        ``T - 2 r_i (n-2)/(n-3)``. For the biased form, with ``d_i = A_ii B_ii`` and ``f = n/(n-1)``:
        ``T - 2 f r_i + f^2 d_i``. The common divisors cancel in CKA.
        """
        check_estimator(estimator)
        if self.cross_rows is None or self.self_rows_x is None or self.self_rows_y is None:
            raise ValueError("leave-one-out values need row sums; ask the route for rows=True")
        rows, rows_x, rows_y = self.cross_rows[:, layer], self.self_rows_x[:, layer], self.self_rows_y
        n = len(rows)
        if estimator == "debiased":
            if n < 5:
                return np.full(rows.shape, np.nan)
            factor = 2 * (n - 2) / (n - 3)
            cross = self.cross[layer] - factor * rows
            self_x, self_y = self.self_x[layer] - factor * rows_x, self.self_y - factor * rows_y
        else:
            assert self.diagonal_x is not None and self.diagonal_y is not None
            f = n / (n - 1)
            own, others = self.diagonal_x[:, layer], self.diagonal_y
            cross = self.cross[layer] - 2 * f * rows + f**2 * own[:, None] * others
            self_x = self.self_x[layer] - 2 * f * rows_x + f**2 * own**2
            self_y = self.self_y - 2 * f * rows_y + f**2 * others**2
        # An item that carries a side alone leaves rounding noise behind; its absence has no CKA.
        self_x = np.where(self_x <= 1e-9 * self.self_x[layer], np.nan, self_x)
        self_y = np.where(self_y <= 1e-9 * self.self_y, np.nan, self_y)
        return cross / np.sqrt(self_x)[:, None] / np.sqrt(self_y)
