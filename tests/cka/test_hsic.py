"""HSIC from kernel matrices: hand-derived numbers and what centring must do."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.cka.hsic import centre_kernel, hsic_from_kernels, linear_row_sums


def test_debiased_by_hand():
    # Four items on a line at 0, 1, 2, 4; K_ij = x_i x_j, diagonal removed: row sums k = (0, 6, 10, 12), total 28.
    # tr(K~K~) = 2 (2^2 + 4^2 + 8^2) = 168; total^2 / ((n-1)(n-2)) = 784 / 6; 2/(n-2) sum k^2 = 280.
    # HSIC = (168 + 784/6 - 280) / (4 * 1) = 14/3.
    line = np.array([0.0, 1.0, 2.0, 4.0])
    kernel = np.outer(line, line)
    assert hsic_from_kernels(kernel, kernel) == pytest.approx(14 / 3, rel=1e-14)


def test_biased_by_hand():
    # Centred items of 0, 1, 2, 5 are -2, -1, 0, 3; |x'x|^2 / (n-1)^2 = 14^2 / 9.
    line = np.array([0.0, 1.0, 2.0, 5.0])
    kernel = np.outer(line, line)
    assert hsic_from_kernels(kernel, kernel, estimator="biased") == pytest.approx(196 / 9, rel=1e-14)


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
def test_centred_rows_sum_to_zero_and_the_input_is_left_alone(rng, estimator):
    kernel = rng.normal(size=(9, 9))
    kernel += kernel.T
    before = kernel.copy()
    centred = centre_kernel(kernel, estimator)
    np.testing.assert_allclose(centred.sum(1), 0, atol=1e-12)
    np.testing.assert_array_equal(kernel, before)


def test_debiased_ignores_the_diagonal_and_biased_does_not(rng):
    x = rng.normal(size=(12, 5))
    kernel = x @ x.T
    changed = kernel + np.diag(rng.normal(size=12))
    assert hsic_from_kernels(changed, kernel) == pytest.approx(hsic_from_kernels(kernel, kernel), rel=1e-12)
    assert hsic_from_kernels(changed, kernel, estimator="biased") != pytest.approx(
        hsic_from_kernels(kernel, kernel, estimator="biased"), rel=1e-3
    )


def test_row_sums_of_the_linear_kernel_are_known_without_it(rng):
    x = rng.normal(size=(12, 5))
    x -= x.mean(0)
    kernel = x @ x.T
    off_diagonal = kernel - np.diag(kernel.diagonal())
    np.testing.assert_allclose(linear_row_sums((x**2).sum(1), "debiased"), off_diagonal.sum(1), atol=1e-12)
    np.testing.assert_allclose(linear_row_sums((x**2).sum(1), "biased"), kernel.sum(1), atol=1e-12)


def test_debiased_is_zero_on_average_for_independent_sides_and_biased_is_not():
    rng = np.random.default_rng(1)
    means = {"debiased": [], "biased": []}
    for _ in range(400):
        x, y = rng.normal(size=(10, 20)), rng.normal(size=(10, 20))
        for estimator, values in means.items():
            values.append(hsic_from_kernels(x @ x.T, y @ y.T, estimator=estimator))
    for estimator, values in means.items():
        z = np.mean(values) / (np.std(values) / 20)  # 20 = sqrt(400): mean in standard errors
        assert (abs(z) < 4) == (estimator == "debiased")


def test_shapes_are_named():
    with pytest.raises(ValueError, match=r"N >= 4; got \(3, 3\) and \(3, 3\)"):
        hsic_from_kernels(np.eye(3), np.eye(3))
