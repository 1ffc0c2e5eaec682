"""The permutation null: exact moments against full enumeration, p values uniform under independence only."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from miner_diag.cka import cka_matrix, compare, linear_cka
from miner_diag.cka.permutation import null_sd, pearson3_quantile, pearson3_sf


def enumerated(x, y, estimator="debiased"):
    return np.array(
        [linear_cka(x, y[list(order)], estimator=estimator) for order in itertools.permutations(range(len(y)))]
    )


@pytest.mark.parametrize("n", [4, 5, 6])
def test_three_moments_equal_those_over_all_permutations(rng, n):
    x, y = rng.exponential(size=(n, 3)), rng.exponential(size=(n, 2))
    everything = enumerated(x, y)
    null = compare(x, y).null
    assert null.mean == 0
    assert everything.mean() == pytest.approx(0, abs=1e-12)
    assert null.sd == pytest.approx(everything.std(), rel=1e-10)
    assert null.sd == pytest.approx(np.sqrt(2 / (n * (n - 3))), rel=1e-14)
    assert null.skewness == pytest.approx(stats.skew(everything), abs=1e-9)


def test_third_moment_of_eight_items_over_all_permutations(rng):
    # From n = 6 on, triples of edges that do not touch take part; n = 8 has all eight shapes.
    x, y = rng.exponential(size=(8, 2)) ** 2, rng.exponential(size=(8, 2)) ** 2
    from miner_diag.cka.hsic import centre_kernel

    a, b = (centre_kernel(side @ side.T) for side in (x - x.mean(0), y - y.mean(0)))
    orders = np.array(list(itertools.permutations(range(8))))
    sums = np.einsum("ij,pij->p", a, b[orders[:, :, None], orders[:, None, :]])
    assert compare(x, y).null.skewness == pytest.approx(stats.skew(sums), abs=1e-9)


def test_biased_null_mean_equals_that_over_all_permutations(rng):
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    null = cka_matrix([x], [y], estimator="biased").null[0][0]
    assert null.mean == pytest.approx(enumerated(x, y, "biased").mean(), rel=1e-10)
    layers = [rng.normal(size=(5, 3)), rng.normal(size=(5, 2))]
    whole = cka_matrix(layers, estimator="biased").null
    pair = cka_matrix(layers[:1], layers[1:], estimator="biased").null
    assert whole[0][1] == pair[0][0]
    assert cka_matrix([x], [y], estimator="biased", kernel="rbf", intervals=False).null[0][0].mean > 0


@pytest.mark.parametrize(("n", "wide", "other"), [(12, 3, 3), (20, 2, 3), (50, 30, 40), (100, 200, 300), (200, 5, 50)])
def test_p_values_are_uniform_under_independence(n, wide, other):
    rng = np.random.default_rng(3)
    scales = np.exp(-np.arange(wide) / 10)
    p_values = [
        cka_matrix([rng.normal(size=(n, wide)) * scales], [rng.normal(size=(n, other))], intervals=False)
        .null[0][0]
        .p_value
        for _ in range(300)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) < 0.05) < 0.09  # 0.05 + 3 standard errors


def test_p_values_are_uniform_for_heavy_tails_and_rbf():
    rng = np.random.default_rng(4)
    p_values = [
        cka_matrix([rng.standard_t(4, size=(60, 4))], [rng.normal(size=(60, 4))], kernel="rbf", intervals=False)
        .null[0][0]
        .p_value
        for _ in range(300)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_one_dimension_against_one_keeps_its_right_tail():
    # The squared correlation of two columns: as far from normal as the null gets (chi-squared with 1 degree).
    rng = np.random.default_rng(5)
    p_values = np.array(
        [compare(rng.normal(size=(100, 1)), rng.normal(size=(100, 1))).null.p_value for _ in range(600)]
    )
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p_values < level) == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 600))


def test_planted_signal_is_significant_and_broken_pairs_are_not(rng):
    hidden = rng.normal(size=(80, 2))
    x, y = (hidden @ rng.normal(size=(2, 10)) + rng.normal(size=(80, 10)) for _ in range(2))
    assert compare(x, y).null.p_value < 1e-6
    assert compare(x, y).cka.value > compare(x, y).null.upper
    assert compare(x, y[rng.permutation(80)]).null.p_value > 0.01


def test_shape_of_many_items_is_that_of_a_sample(rng):
    x = rng.normal(size=(3000, 6)) * [4, 3, 2, 1, 1, 1]
    y = rng.normal(size=(3000, 5))
    null = cka_matrix([x], [y], intervals=False).null[0][0]
    sampled = [linear_cka(x, y[rng.permutation(3000)]) for _ in range(400)]
    assert null.sd == pytest.approx(np.std(sampled), rel=0.2)  # 400 draws of a skewed variable
    assert np.mean(np.array(sampled) > null.upper) == pytest.approx(0.05, abs=0.04)


def test_p_value_is_never_zero(rng):
    x = rng.normal(size=(6, 2))
    assert compare(x, x).null.p_value >= 1 / 720
    x = rng.normal(size=(500, 2))
    assert 0 < compare(x, x).null.p_value < 1e-100


@pytest.mark.parametrize("skewness", [-1.2, -0.2, 1e-6, 0.3, 2.8])
def test_pearson_three_equals_scipy(skewness):
    law = stats.pearson3(skewness)
    for z in (-2.0, -0.5, 0.0, 1.0, 5.0):
        assert pearson3_sf(z, skewness) == pytest.approx(law.sf(z), abs=1e-6)
    assert pearson3_quantile(0.05, skewness) == pytest.approx(law.ppf(0.95), rel=1e-5)


def test_null_sd_by_hand():
    # n = 4: U-centred matrices have one free value per pair of opposite edges; sd = sqrt(2 / (4 * 1)).
    assert null_sd(4) == pytest.approx(np.sqrt(0.5))
