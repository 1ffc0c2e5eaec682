"""Intervals whose every part can be computed by hand: acceleration, cluster sizes, the ends and their tails."""

import numpy as np
import pytest
from scipy import special, stats

from miner_diag.stats import (
    _bca_levels,
    _expanded_tail,
    bootstrap_crossed,
    bootstrap_mean,
    effective_number,
    holm,
    paired_permutation,
    smallest_detectable,
)


def test_acceleration_is_a_sixth_of_the_skewness():
    """Efron and Tibshirani, equation 14.15: sum of cubes over 6 times the sum of squares to the power 3/2."""
    deviations = np.array([3.0, -1.0, -1.0, -1.0])[:, None]
    resampled = np.array([-1.0, 1.0])[:, None]  # half lies below: no bias
    levels = np.array([[-1.0], [1.0]])
    pull = deviations[:, 0] / 3
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    got = _bca_levels(levels, resampled, deviations, np.ones(4), trust=1.0)
    np.testing.assert_allclose(got[:, 0], [-1 / (1 + acceleration), 1 / (1 - acceleration)], rtol=1e-12)
    half = _bca_levels(levels, resampled, deviations, np.ones(4), trust=0.5)
    np.testing.assert_allclose(half[:, 0], [-1 / (1 + acceleration / 2), 1 / (1 - acceleration / 2)], rtol=1e-12)


def test_bias_is_the_normal_quantile_of_what_lies_below():
    """Equation 14.14; resamples at the estimate itself count half. Without skewness levels move by twice the bias."""
    deviations, levels = np.array([[1.0], [-1.0]]), np.array([[-1.0], [1.0]])
    resampled = np.array([-1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])[:, None]
    bias = special.ndtri(0.2)
    got = _bca_levels(levels, resampled, deviations, np.ones(2), trust=1.0)
    np.testing.assert_allclose(got[:, 0], 2 * bias + levels[:, 0], rtol=1e-12)


def test_the_tail_is_that_of_students_t():
    for n in (5.0, 12.7, 400.0):
        wanted = np.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1)
        assert _expanded_tail(0.95, n) == pytest.approx(wanted)
    assert _expanded_tail(0.95, 1.0 + 1e-9) == -100


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_mean_over_drawn_documents_is_divided_by_how_many_queries_they_hold(rng, seeds):
    """Documents of very different size, all queries worth 1: every resample has the mean 1, whatever was drawn."""
    clusters = np.repeat(np.arange(8), [1, 2, 40, 3, 1, 60, 5, 2])
    interval = bootstrap_crossed(np.ones((seeds, len(clusters))), rng, clusters=clusters, n_resamples=200)
    assert (interval.value, interval.low, interval.high) == pytest.approx((1, 1, 1))
    plain = bootstrap_mean(np.ones(len(clusters)), rng, clusters=clusters, n_resamples=200)
    assert (plain.value, plain.low, plain.high) == (1, 1, 1)


def test_a_shift_of_all_values_moves_a_crossed_interval_by_as_much(rng):
    clusters = np.repeat(np.arange(8), [1, 2, 40, 3, 1, 60, 5, 2])
    values = rng.normal(size=(3, len(clusters)))
    here, there = (
        bootstrap_crossed(values + shift, np.random.default_rng(1), clusters=clusters) for shift in (0.0, 100.0)
    )
    np.testing.assert_allclose([there.low - 100, there.high - 100], [here.low, here.high], atol=1e-9)


def test_effective_number_by_hand():
    assert effective_number([3, 1]) == 16 / 10


def test_ends_of_a_percentile_interval_are_the_quantiles_of_the_resamples():
    """Two values: a resample's mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4."""
    for confidence, ends in ((0.05, (0.5, 0.5)), (0.95, (0.0, 1.0))):
        interval = bootstrap_mean(
            [0.0, 1.0], np.random.default_rng(0), confidence=confidence, method="percentile", n_resamples=2000
        )
        assert (interval.low, interval.high) == ends


def test_equals_count_as_extreme_in_the_exact_test(rng):
    # differences 1, 1, -2: sums of the 8 patterns are 0, 2, 2, 4 and their negatives; the observed one is 0
    assert paired_permutation([1, 1, -2], [0, 0, 0], rng) == 1.0
    # 2, 1, 1: sums 4, 2, 2, 0, 0, 2, 2, 4 in size; the observed one is 4
    assert paired_permutation([2, 1, 1], [0, 0, 0], rng) == 0.25


def test_a_drawn_p_counts_the_observed_order_itself():
    p = paired_permutation(np.ones(40), np.zeros(40), np.random.default_rng(0), n_permutations=99)
    assert p == 1 / 100


def test_holm_never_falls_and_multiplies_by_what_is_left():
    assert holm([0.01, 0.011, 0.5]).tolist() == pytest.approx([0.03, 0.03, 0.5])
    assert holm([0.4, 0.5]).tolist() == pytest.approx([0.8, 0.8])


def test_a_resample_of_documents_is_divided_by_its_own_queries():
    """Documents of one and of three queries, worth 0 and 1: the mean is 0.75, and resamples are 0, 0.75 or 1."""
    values, clusters = [0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]
    interval = bootstrap_mean(values, np.random.default_rng(0), clusters=clusters, method="percentile")
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.75, 0, 1))


def test_bias_and_skewness_are_trusted_as_far_as_documents_are_of_like_size(monkeypatch):
    """Kish: sizes 6, 1, 1 and 1 say as much as 81 / 39 documents of equal size, of four."""
    trusted = []

    def keep(*given, trust):
        trusted.append(trust)
        return _bca_levels(*given, trust=trust)

    monkeypatch.setattr("miner_diag.stats._bca_levels", keep)
    clusters = ["a"] * 6 + ["b", "c", "d"]
    values = np.arange(9.0) ** 2
    bootstrap_mean(values, np.random.default_rng(0), clusters=clusters, n_resamples=200)
    assert trusted == pytest.approx([81 / 39 / 4])


def test_the_detectable_difference_of_single_queries_is_a_multiple_of_their_standard_error():
    """Eight differences, four of 0.1 and four of -0.1: variance 8 * 0.01 / 7; t at 7 degrees 2.3646 and 0.8960."""
    error = np.sqrt(8 * 0.01 / 7 / 8)
    size = smallest_detectable([0.1, -0.1] * 4)
    assert size == pytest.approx((2.364624 + 0.896030) * error, rel=1e-6)


def test_the_detectable_difference_over_documents_sums_each_document_first():
    """Eight documents of 1 to 3 queries, 16 in all; the mean is 0, and documents sum to +-0.3, +-0.2, +-0.1 and +-0.2.

    Sizes 3, 3, 2, 2, 1, 1, 2, 2 say as much as 256 / 36 documents of equal size.
    """
    sums, sizes = [0.3, -0.3, 0.2, -0.2, 0.1, -0.1, 0.2, -0.2], [3, 3, 2, 2, 1, 1, 2, 2]
    values = np.concatenate([[total / n] * n for total, n in zip(sums, sizes, strict=True)])
    clusters = np.repeat(list("abcdefgh"), sizes)
    k = 256 / 36
    variance = k / (k - 1) * (2 * (0.09 + 0.04 + 0.01 + 0.04)) / 16**2
    expected = stats.t.ppf([0.975, 0.8], k - 1).sum() * np.sqrt(variance)
    assert smallest_detectable(values, clusters=clusters) == pytest.approx(expected, rel=1e-12)
    mixed = np.random.default_rng(0).permutation(16)
    assert smallest_detectable(values[mixed], clusters=clusters[mixed]) == pytest.approx(expected, rel=1e-12)
