"""CKA: what must hold, what must not, and two routes that agree with a slow third."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from miner_diag.cka import cka_matrix, linear_cka


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def planted(rng, n, widths, noise=1.0, signal=6):
    """Layers that see the same low-dimensional signal, each in its own coordinates, with noise."""
    hidden = rng.normal(size=(n, signal))
    return [hidden @ rng.normal(size=(signal, d)) + noise * rng.normal(size=(n, d)) for d in widths]


def slow_cka(x, y, estimator="debiased"):
    """Reference from the definitions, entry by entry of the kernel matrices, with nothing of the package in it."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(x)

    def kernel(side):
        side = side - side.mean(axis=0)
        return side @ side.T

    def hsic(k, l):  # noqa: E741
        if estimator == "biased":
            h = np.eye(n) - np.ones((n, n)) / n
            return np.trace(k @ h @ l @ h) / (n - 1) ** 2
        k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
        one = np.ones(n)
        first, second = np.trace(k @ l), (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        return (first + second - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))

    k, l = kernel(x), kernel(y)  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def slow_matrix(xs, ys, estimator="debiased"):
    return np.array([[slow_cka(x, y, estimator) for y in ys] for x in xs])


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
class TestInvariances:
    def test_rotation_shift_and_scale_change_nothing(self, rng, estimator):
        x, y = planted(rng, 64, (8, 5))
        moved = 2.5 * x @ ortho_group.rvs(8, random_state=0) + 7.0
        assert linear_cka(moved, y, estimator=estimator) == pytest.approx(
            linear_cka(x, y, estimator=estimator), rel=1e-12
        )

    def test_stretching_one_dimension_does(self, rng, estimator):
        x, y = planted(rng, 64, (8, 5))
        stretched = x * np.r_[10.0, np.ones(7)]
        assert linear_cka(stretched, y, estimator=estimator) != pytest.approx(
            linear_cka(x, y, estimator=estimator), rel=1e-3
        )

    def test_order_of_items_changes_nothing_but_breaking_the_pairs_does(self, rng, estimator):
        x, y = planted(rng, 64, (8, 5))
        order = rng.permutation(64)
        whole = linear_cka(x, y, estimator=estimator)
        assert linear_cka(x[order], y[order], estimator=estimator) == pytest.approx(whole, rel=1e-12)
        assert linear_cka(x[order], y, estimator=estimator) < 0.5 * whole

    def test_diagonal_is_one_and_matrix_is_symmetric(self, rng, estimator):
        result = cka_matrix(planted(rng, 50, (8, 5, 30)), estimator=estimator)
        np.testing.assert_allclose(np.diag(result.values), 1, rtol=1e-12)
        np.testing.assert_allclose(result.values, result.values.T, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
@pytest.mark.parametrize("route", ["gram", "features"])
@pytest.mark.parametrize("n", [4, 5, 37, 300])
def test_routes_equal_the_slow_reference(rng, estimator, route, n):
    layers = planted(rng, n, (20, 33, 7))
    for other in (None, layers[1:]):
        truth = slow_matrix(layers, other or layers, estimator)
        for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-5)):
            for extras in (True, False):
                result = cka_matrix(
                    layers, other, estimator=estimator, route=route, dtype=dtype, intervals=extras, null=extras
                )
                np.testing.assert_allclose(result.values, truth, rtol=0, atol=tolerance)
                assert result.route == route
                assert result.dtype == dtype
