"""Intervals that cover, tests that keep their level, hand numbers, bad input."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from miner_diag.stats import (
    Interval,
    bootstrap_crossed,
    bootstrap_crossed_tables,
    bootstrap_mean,
    bootstrap_means,
    effective_number,
    holm,
    paired_bootstrap,
    paired_permutation,
    smallest_detectable,
)

# values of nDCG@5 with one right page: absent, or at rank 1 to 5; and how often each
NDCG = np.array([0, *1 / np.log2(np.arange(2, 7))])
OFTEN = np.array([0.45, 0.30, 0.10, 0.06, 0.05, 0.04])
RARELY = np.array([0.90, 0.04, 0.02, 0.02, 0.01, 0.01])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# --- bootstrap


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize(("n", "share"), [(12, OFTEN), (50, OFTEN), (150, RARELY)])
def test_95_percent_intervals_cover(rng, method, n, share):
    truth = NDCG @ share
    samples = rng.choice(NDCG, p=share, size=(600, n))
    intervals = [bootstrap_mean(row, rng, n_resamples=500, method=method) for row in samples]
    covered = np.mean([i.low <= truth <= i.high for i in intervals])
    # 600 trials of 0.95 have a standard deviation of 0.009; percentile intervals of a skewed mean lack about 0.02
    assert 0.91 <= covered <= 0.985


def test_bca_misses_on_both_sides_alike_where_the_mean_is_skewed(rng):
    truth = NDCG @ RARELY
    samples = rng.choice(NDCG, p=RARELY, size=(600, 60))
    too_low = {}
    for method in ("bca", "percentile"):
        intervals = [bootstrap_mean(row, rng, n_resamples=500, method=method) for row in samples]
        too_low[method] = np.mean([interval.high < truth for interval in intervals])
    # nominal: 0.025 with a standard deviation of 0.006
    assert too_low["bca"] < 0.05 < too_low["percentile"]


def test_clustered_intervals_cover_and_plain_ones_do_not(rng):
    inside = {"clusters": 0, "rows": 0}
    for _ in range(300):
        clusters = np.repeat(np.arange(15), rng.integers(5, 40, 15))
        values = rng.normal(0, 0.2, 15)[clusters] + rng.normal(0, 0.4, len(clusters))
        for kind, labels in (("clusters", clusters), ("rows", None)):
            interval = bootstrap_mean(values, rng, clusters=labels, n_resamples=400)
            inside[kind] += interval.low <= 0 <= interval.high
    assert inside["clusters"] / 300 >= 0.90
    assert inside["rows"] / 300 <= 0.80  # the negative control: documents are not independent queries


# Queries in each test document of debian-docs-large: five of the 53 documents hold 47 % of the queries.
DOCUMENT_SIZES = np.array(
    "442 327 295 174 158 141 118 104 98 82 78 78 63 55 49 47 45 45 42 38 38 36 36 28 23 22 22 20 18 17 17 17 16 15 14 "
    "13 12 10 9 9 8 8 7 7 7 7 6 5 5 4 4 3 2".split(),
    dtype=int,
)


def coverage(intervals):
    """Share of the intervals that hold the true mean, 0."""
    return np.mean([interval.low <= 0 <= interval.high for interval in intervals])


def use_the_number_of_clusters(patch):
    """The rule that was used before: clusters count fully, whatever their sizes."""
    patch.setattr("miner_diag.stats.effective_number", lambda sizes: float(len(sizes)))


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_over_documents_of_unequal_size_cover(monkeypatch, rng, method, noise):
    """Columns are replications: document effect and noise, both normal; 1,500 trials of 0.95 have an sd of 0.006."""
    clusters = np.repeat(np.arange(53), DOCUMENT_SIZES)
    values = rng.normal(size=(53, 1500))[clusters]
    if noise:
        values = values + noise * rng.normal(size=values.shape)
    new = bootstrap_means(values, np.random.default_rng(2), clusters=clusters, method=method)
    assert new[0].n_clusters == 53 and new[0].effective_clusters == pytest.approx(15.87, abs=0.01)
    use_the_number_of_clusters(monkeypatch)
    old = bootstrap_means(values, np.random.default_rng(2), clusters=clusters, method=method)
    assert 0.92 <= coverage(new) <= 0.97
    assert coverage(old) < coverage(new) - 0.015  # the negative control
    assert method == "percentile" or coverage(old) < 0.90


def test_crossed_intervals_over_documents_of_unequal_size_cover(monkeypatch, rng):
    clusters = np.repeat(np.arange(53), np.ceil(DOCUMENT_SIZES / 10).astype(int))  # a tenth of the queries, for speed
    tables = rng.normal(size=(1000, 1, 53))[:, :, clusters] + rng.normal(size=(1000, 2, len(clusters)))
    found = {}
    for rule in ("effective number", "number of documents"):
        if rule == "number of documents":
            use_the_number_of_clusters(monkeypatch)
        found[rule] = coverage(
            bootstrap_crossed(table, np.random.default_rng(row), clusters=clusters, n_resamples=500)
            for row, table in enumerate(tables)
        )
    assert 0.92 <= found["effective number"] <= 0.97
    assert found["number of documents"] < found["effective number"] - 0.01


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_documents_of_equal_size_and_single_items_have_the_intervals_they_had(monkeypatch, rng, method):
    values, pairs = rng.normal(size=(60, 4)), rng.normal(size=(3, 60))
    over = [None, np.repeat(np.arange(12), 5), np.arange(60)]

    def all_intervals():
        return [
            *(bootstrap_means(values, np.random.default_rng(0), clusters=labels, method=method) for labels in over),
            *(bootstrap_crossed(pairs, np.random.default_rng(0), clusters=labels) for labels in over),
            *(paired_bootstrap(pairs[0], pairs[1], np.random.default_rng(0), clusters=labels) for labels in over),
        ]

    new = all_intervals()
    use_the_number_of_clusters(monkeypatch)
    assert all_intervals() == new


def test_unequal_documents_widen_every_interval(monkeypatch, rng):
    values, clusters = rng.normal(size=(2, 60)), np.repeat(np.arange(6), [35, 5, 5, 5, 5, 5])

    def widths():
        intervals = [
            bootstrap_mean(values[0], np.random.default_rng(0), clusters=clusters, method="percentile"),
            bootstrap_crossed(values, np.random.default_rng(0), clusters=clusters),
            paired_bootstrap(*values, np.random.default_rng(0), clusters=clusters, method="percentile"),
        ]
        return np.array([interval.high - interval.low for interval in intervals])

    new = widths()
    use_the_number_of_clusters(monkeypatch)
    assert (new > 1.1 * widths()).all()


def test_effective_number_by_hand():
    # sizes 3, 1: (3 + 1)^2 / (9 + 1) = 1.6; sizes 47 and 53 times 1: 100^2 / (47^2 + 53)
    assert effective_number([3, 1]) == 1.6
    assert effective_number([47] + [1] * 53) == 100**2 / (47**2 + 53)
    assert effective_number([5]) == 1.0


def test_effective_number_is_a_number_of_equals(rng):
    sizes = rng.integers(1, 100, size=20)
    assert 1 < effective_number(sizes) < 20
    assert effective_number(sizes) == pytest.approx(effective_number(7 * sizes)) == effective_number(sizes[::-1])
    assert effective_number(np.tile(sizes, 3)) == pytest.approx(3 * effective_number(sizes))
    for count in (2, 3, 7, 53):  # exactly, so that nothing changes where sizes are equal
        assert effective_number(np.full(count, 11)) == count


def test_one_document_that_holds_nearly_all_leaves_a_range(rng):
    values, clusters = rng.normal(size=2000), np.r_[np.zeros(1999), 1]
    for method in ("bca", "percentile"):
        interval = bootstrap_mean(values, rng, clusters=clusters, method=method)
        assert np.isfinite([interval.low, interval.high]).all()
        assert interval.low <= interval.value <= interval.high


def test_agrees_with_scipy_but_for_the_widening(rng):
    values = rng.choice(NDCG, p=OFTEN, size=400)  # at n = 400 the widening is 0.4 %
    for method, theirs in (("percentile", "percentile"), ("bca", "BCa")):
        ours = bootstrap_mean(values, rng, n_resamples=20_000, method=method)
        other = stats.bootstrap((values,), np.mean, rng=rng, n_resamples=20_000, method=theirs).confidence_interval
        width = other.high - other.low
        assert ours.low == pytest.approx(other.low, abs=0.03 * width)
        assert ours.high == pytest.approx(other.high, abs=0.03 * width)


def test_small_samples_are_as_wide_as_students(rng):
    values = rng.normal(size=8)
    interval = bootstrap_mean(values, rng, n_resamples=40_000, method="percentile")
    low, high = stats.t.interval(0.95, 7, values.mean(), values.std(ddof=1) / np.sqrt(8))
    assert (interval.high - interval.low) / (high - low) == pytest.approx(1, abs=0.08)


def test_columns_share_resamples_and_equal_single_calls(rng):
    values = rng.normal(size=(60, 3))
    together = bootstrap_means(values, np.random.default_rng(5))
    for column, interval in enumerate(together):
        alone = bootstrap_mean(values[:, column], np.random.default_rng(5))
        assert (alone.low, alone.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_clusters_of_one_row_are_rows(rng):
    values = rng.normal(size=30)
    plain = bootstrap_mean(values, np.random.default_rng(1))
    single = bootstrap_mean(values, np.random.default_rng(1), clusters=np.arange(30))
    assert (plain.low, plain.high) == (pytest.approx(single.low), pytest.approx(single.high))
    assert (plain.n_clusters, single.n_clusters) == (None, 30)


def test_shift_and_scale_carry_over(rng):
    values = rng.normal(size=40)
    plain = bootstrap_mean(values, np.random.default_rng(1))
    moved = bootstrap_mean(1e6 - 2 * values, np.random.default_rng(1))
    assert moved.value == pytest.approx(1e6 - 2 * plain.value)
    # a mirrored sample has the mirrored interval, up to the spacing of the resamples' quantiles
    assert moved.low == pytest.approx(1e6 - 2 * plain.high, abs=1e-2)


def test_more_confidence_is_wider(rng):
    values = rng.normal(size=50)
    widths = [
        (i := bootstrap_mean(values, np.random.default_rng(0), confidence=level)).high - i.low
        for level in (0.5, 0.8, 0.95, 0.99)
    ]
    assert widths == sorted(widths) and widths[0] < widths[-1]


def test_blocks_do_not_matter(rng, monkeypatch):
    values = rng.normal(size=(30, 2))
    whole = bootstrap_means(values, np.random.default_rng(0), n_resamples=200)
    p = paired_permutation(values[:, 0], values[:, 1], np.random.default_rng(0), n_permutations=200)
    monkeypatch.setattr("miner_diag.stats._BLOCK", 90)
    assert [i.value for i in bootstrap_means(values, np.random.default_rng(0), n_resamples=200)] == [
        i.value for i in whole
    ]
    assert 0 < paired_permutation(values[:, 0], values[:, 1], np.random.default_rng(0), n_permutations=200) <= 1
    assert 0 < p <= 1


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_constant_values_have_an_interval_of_no_width(rng, method):
    interval = bootstrap_mean(np.full(1000, 0.1), rng, method=method)
    assert interval.low == interval.value == interval.high
    assert interval.value == pytest.approx(0.1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_handful_with_an_outlier_stays_a_range(rng, n):
    interval = bootstrap_mean([0.0] * (n - 1) + [1.0], rng)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_interval_says_what_it_rests_on(rng):
    interval = bootstrap_mean([1.0, 2.0, 3.0, 4.0], rng, clusters=["a", "a", "b", "b"], confidence=0.9)
    assert (interval.value, interval.confidence, interval.n, interval.n_clusters) == (2.5, 0.9, 4, 2)
    assert interval.effective_clusters == 2.0
    assert bootstrap_mean([1.0, 2.0, 3.0], rng).effective_clusters is None
    uneven = bootstrap_crossed(np.ones((2, 4)), rng, clusters=["a", "a", "a", "b"])
    assert (uneven.n_clusters, uneven.effective_clusters) == (2, 1.6)
    assert str(Interval(0.5, 0.4, 0.6, 0.95, 10)) == "0.5000 [0.4000, 0.6000]"


def test_paired_interval_is_that_of_the_differences(rng):
    a, b = rng.normal(size=50), rng.normal(size=50)
    paired = paired_bootstrap(a, b, np.random.default_rng(2))
    plain = bootstrap_mean(a - b, np.random.default_rng(2))
    assert paired == plain
    # pairing is the point: noise that both systems share cancels
    shared = 5 * rng.normal(size=50)
    again = paired_bootstrap(a + shared, b + shared, np.random.default_rng(2))
    assert (again.low, again.high) == (pytest.approx(plain.low), pytest.approx(plain.high))


# --- bootstrap of seeds by queries


def seeds_by_queries(rng, n_seeds, clusters, *, seed, document, query, both):
    """[S, N] with mean 0: what each seed, document, query and seed-query pair adds, as standard deviations."""
    n = len(clusters)
    return (
        seed * rng.normal(size=(n_seeds, 1))
        + document * rng.normal(size=clusters.max() + 1)[clusters]
        + query * rng.normal(size=n)
        + both * rng.normal(size=(n_seeds, n))
    )


@pytest.mark.parametrize("clustered", [False, True])
def test_crossed_intervals_cover(rng, clustered):
    """Seeds matter as much as they do for a head on cached vectors: a tenth of what queries do."""
    clusters, inside = np.repeat(np.arange(25), 6), 0
    for _ in range(300):
        values = seeds_by_queries(rng, 5, clusters, seed=0.01, document=0.1 * clustered, query=0.3, both=0.1)
        interval = bootstrap_crossed(values, rng, clusters=clusters if clustered else None, n_resamples=400)
        inside += interval.low <= 0 <= interval.high
    assert 0.90 <= inside / 300 <= 0.995  # 300 trials of 0.95 have a standard deviation of 0.013


def test_intervals_that_forget_seeds_or_documents_do_not_cover(rng):
    """The negative controls: twenty seeds that differ a lot, and documents whose queries share their fortune."""
    clusters = np.repeat(np.arange(25), 6)
    inside = dict.fromkeys(("crossed", "mean of seeds", "queries"), 0)
    for _ in range(200):
        values = seeds_by_queries(rng, 20, clusters, seed=0.3, document=0.2, query=0.2, both=0.1)
        found = {
            "crossed": bootstrap_crossed(values, rng, clusters=clusters, n_resamples=400),
            "mean of seeds": bootstrap_mean(values.mean(axis=0), rng, clusters=clusters, n_resamples=400),
            "queries": bootstrap_crossed(values[:1] - values.mean(), rng, n_resamples=400),
        }
        for name, interval in found.items():
            inside[name] += interval.low <= 0 <= interval.high
    assert inside["crossed"] / 200 >= 0.90
    assert inside["mean of seeds"] / 200 < 0.85 and inside["queries"] / 200 < 0.85


@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(20), 10)])
def test_one_seed_is_the_bootstrap_of_a_mean(rng, clusters):
    values = rng.choice(NDCG, p=OFTEN, size=200)
    crossed = bootstrap_crossed(values[None], rng, clusters=clusters, n_resamples=20_000)
    plain = bootstrap_mean(values, rng, clusters=clusters, n_resamples=20_000, method="percentile")
    width = plain.high - plain.low
    assert crossed.value == pytest.approx(plain.value) and (crossed.n, crossed.n_clusters) == (200, plain.n_clusters)
    assert crossed.low == pytest.approx(plain.low, abs=0.03 * width)
    assert crossed.high == pytest.approx(plain.high, abs=0.03 * width)


@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(15), 4)])
def test_tables_of_one_system_have_the_same_resamples_and_the_intervals_of_each_alone(rng, clusters):
    tables = [rng.choice(NDCG, p=OFTEN, size=(3, 60)), rng.normal(5, 2, size=(3, 60)), np.ones((3, 60))]
    together = bootstrap_crossed_tables(tables, np.random.default_rng(2), clusters=clusters)
    for table, interval in zip(tables, together, strict=True):
        alone = bootstrap_crossed(table, np.random.default_rng(2), clusters=clusters)
        assert (interval.n, interval.n_clusters, interval.effective_clusters) == (
            60,
            alone.n_clusters,
            alone.effective_clusters,
        )
        np.testing.assert_allclose(
            (interval.value, interval.low, interval.high), (alone.value, alone.low, alone.high), rtol=1e-12
        )
    assert (together[2].low, together[2].high) == (pytest.approx(1), pytest.approx(1))
    with pytest.raises(ValueError, match=r"of one shape if there are several; got \[3, 60\], \[3, 59\]"):
        bootstrap_crossed_tables([tables[0], tables[1][:, 1:]], rng)
    with pytest.raises(ValueError, match="got none"):
        bootstrap_crossed_tables([], rng)


def test_equal_seeds_add_nothing_and_unequal_ones_do(rng):
    values = rng.normal(size=100)
    one, same, other = (
        bootstrap_crossed(table, np.random.default_rng(3), n_resamples=10_000)
        for table in (values[None], np.tile(values, (5, 1)), values + np.linspace(-1, 1, 5)[:, None])
    )
    assert same.high - same.low == pytest.approx(one.high - one.low, rel=0.03)
    assert other.high - other.low > 2 * (one.high - one.low)
    assert one.value == pytest.approx(same.value) == pytest.approx(other.value)


def test_crossed_intervals_carry_shift_scale_and_order(rng):
    values = rng.normal(size=(4, 30))
    plain = bootstrap_crossed(values, np.random.default_rng(0))
    moved = bootstrap_crossed(10 + 2 * values, np.random.default_rng(0))
    assert (moved.low, moved.high) == (pytest.approx(10 + 2 * plain.low), pytest.approx(10 + 2 * plain.high))
    assert plain.value == pytest.approx(values.mean()) and plain.low < plain.value < plain.high
    turned = bootstrap_crossed(values[::-1, ::-1], np.random.default_rng(1), n_resamples=20_000)
    assert turned.low == pytest.approx(plain.low, abs=0.1 * (plain.high - plain.low))


def test_more_confidence_is_wider_for_crossed_intervals_too(rng):
    values = rng.normal(size=(3, 50))
    ends = [bootstrap_crossed(values, np.random.default_rng(0), confidence=level) for level in (0.5, 0.8, 0.95, 0.99)]
    widths = [interval.high - interval.low for interval in ends]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    assert [interval.confidence for interval in ends] == [0.5, 0.8, 0.95, 0.99]


# --- permutation


def test_exact_p_by_hand(rng):
    # differences 1, 2, -3: sums over the 8 sign patterns are 0 (1+2-3), 6, 4, 2 and their negatives 0, -6, -4, -2;
    # observed 0, so all 8 are as extreme
    assert paired_permutation([1, 2, 0], [0, 0, 3], rng) == 1.0
    # differences 1, 2, 4: observed 7 is reached by +++ and --- only: 2 / 8
    assert paired_permutation([1, 2, 4], [0, 0, 0], rng) == 2 / 8
    # differences 1, 2, -0.5: observed 2.5; 3.5, 2.5 and their negatives: 4 / 8
    assert paired_permutation([1, 2, 0], [0, 0, 0.5], rng) == 4 / 8


def test_exact_p_is_enumeration(rng):
    a, b = rng.choice(NDCG, size=9), rng.choice(NDCG, size=9)
    difference = a - b
    sums = [abs(np.dot(signs, difference)) for signs in product([1, -1], repeat=9)]
    assert paired_permutation(a, b, rng) == np.mean(np.array(sums) >= abs(difference.sum()) - 1e-12)


def test_random_flips_approach_the_exact_p(rng):
    a, b = rng.normal(0.4, 1, size=13), np.zeros(13)
    exact = paired_permutation(a, b, rng)  # 8,192 patterns
    drawn = paired_permutation(a, b, rng, n_permutations=8000)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact / 8000))
    assert paired_permutation(a, b, None) == exact  # nothing is drawn where all is counted


def test_drawn_p_is_never_0(rng):
    assert paired_permutation(np.ones(100), np.zeros(100), rng, n_permutations=999) == 1 / 1000


def test_queries_that_do_not_differ_do_not_matter(rng):
    a, b = np.array([0.2, 0.5, 0.9, 1.0]), np.array([0.1, 0.2, 0.5, 0.3])
    padded = paired_permutation(np.r_[a, np.ones(500)], np.r_[b, np.ones(500)], rng)
    assert padded == paired_permutation(a, b, rng) == 2 / 16
    assert paired_permutation(a, a, rng) == 1.0


def test_direction_does_not_matter_and_power_is_there(rng):
    a = rng.normal(size=200)
    b = a + rng.normal(0.2, 0.5, size=200)
    p = paired_permutation(a, b, np.random.default_rng(0))
    assert p == paired_permutation(b, a, np.random.default_rng(0)) < 0.01


@pytest.mark.parametrize("clustered", [False, True])
def test_p_is_uniform_under_the_null(rng, clustered):
    p_values = []
    for _ in range(400):
        clusters = np.repeat(np.arange(25), 4) if clustered else None
        noise = rng.normal(size=25)[clusters] if clustered else 0.0
        a, b = rng.normal(size=100) + noise, rng.normal(size=100)
        p_values.append(paired_permutation(a, b, rng, clusters=clusters, n_permutations=499))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_flipping_rows_of_one_document_apart_is_too_sure(rng):
    p_values = []
    for _ in range(300):
        noise = np.repeat(rng.normal(size=25), 4)
        p_values.append(paired_permutation(noise + rng.normal(size=100), np.zeros(100), rng, n_permutations=199))
    assert np.mean(np.array(p_values) <= 0.05) > 0.08  # the negative control


# --- Holm


# --- what a test of this size can find


def found(rng, make, effect, clusters=None, n_samples=400):
    """The share of samples in which the paired test finds a true difference of this size."""
    samples = (make() + effect for _ in range(n_samples))
    p_values = [paired_permutation(d, 0 * d, rng, clusters=clusters, n_permutations=399) for d in samples]
    return np.mean(np.array(p_values) < 0.05)


def usual_size(make, clusters=None, n_samples=100):
    """The smallest detectable difference as pilot samples estimate it."""
    return np.sqrt(np.mean([smallest_detectable(make(), clusters=clusters) ** 2 for _ in range(n_samples)]))


@pytest.mark.parametrize("n", [12, 60])
def test_a_difference_of_the_detectable_size_is_found_in_80_of_100_samples(rng, n):
    def make():
        return rng.normal(0, 0.3, n)

    size = usual_size(make)
    assert found(rng, make, size) == pytest.approx(0.8, abs=0.06)  # 400 samples: a standard error of 0.02
    assert found(rng, make, size / 2) < 0.4  # the negative control
    assert found(rng, make, -2 * size) > 0.98


def test_over_documents_it_is_as_large_as_documents_make_it(rng):
    clusters = np.repeat(np.arange(20), 10)

    def make():
        return rng.normal(0, 0.15, 20)[clusters] + rng.normal(0, 0.3, 200)

    size, of_queries = usual_size(make, clusters), usual_size(make)
    assert found(rng, make, size, clusters) == pytest.approx(0.8, abs=0.06)
    assert found(rng, make, of_queries, clusters) < 0.55  # the negative control: queries of one document are alike


def test_over_documents_of_unequal_size_it_promises_no_more_than_80(rng):
    sizes = np.ceil(DOCUMENT_SIZES / 10).astype(int)
    clusters = np.repeat(np.arange(len(sizes)), sizes)

    def make():
        return rng.normal(0, 0.15, len(sizes))[clusters] + rng.normal(0, 0.3, len(clusters))

    assert 0.78 <= found(rng, make, usual_size(make, clusters), clusters) <= 0.95


def test_the_detectable_size_scales_and_shrinks_with_the_root_of_n(rng):
    values = rng.normal(0, 0.2, 50)
    size = smallest_detectable(values)
    assert smallest_detectable(3 * values) == pytest.approx(3 * size)
    assert smallest_detectable(values + 0.7) == pytest.approx(size) == smallest_detectable(-values)
    assert smallest_detectable(values, clusters=np.arange(50)) == pytest.approx(size)
    assert smallest_detectable(np.tile(values, 400)) == pytest.approx(size / 20, rel=0.05)
    assert smallest_detectable(values, power=0.9) > size > smallest_detectable(values, alpha=0.1)


def test_where_no_size_can_be_told_there_is_none(rng):
    values = rng.normal(size=60)
    assert smallest_detectable(np.zeros(60)) is None  # the same system twice
    assert smallest_detectable((values + 0.1) - values) is None  # one difference, but for rounding
    five, six = np.repeat(np.arange(6), [12, 12, 12, 12, 6, 6]).clip(max=4), np.repeat(np.arange(6), 10)
    assert smallest_detectable(values, clusters=five) is None  # the least p of five documents is 2 / 32
    assert smallest_detectable(values, clusters=six) > 0  # of six 2 / 64
    assert smallest_detectable(values[:5]) is None and smallest_detectable(values[:6]) > 0
    assert smallest_detectable(values, clusters=six, alpha=0.01) is None


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; made rising: 0.02, 0.03, 0.06, 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_capped_keeps_order_and_ties():
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([0.02, 0.02, 0.02]) == pytest.approx([0.06] * 3)
    assert holm([0.3]).tolist() == [0.3]
    assert holm([]).tolist() == []


def test_holm_keeps_the_family_wise_error(rng):
    wrong = np.mean([(holm(rng.random(8)) <= 0.05).any() for _ in range(2000)])
    assert wrong <= 0.065  # 0.05 and three standard deviations of 2,000 trials
    plain = np.mean([(rng.random(8) <= 0.05).any() for _ in range(2000)])
    assert plain > 0.25  # what it protects against


# --- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: bootstrap_mean([1.0], g), "at least 2 values are needed.*; got 1"),
        (lambda g: bootstrap_mean([], g), "at least 2 values are needed.*; got 0"),
        (lambda g: bootstrap_mean([1.0, np.nan, 2.0], g), r"values holds nan at \[1"),
        (lambda g: bootstrap_mean([1.0, np.inf], g), "values holds inf"),
        (lambda g: bootstrap_mean(np.ones((2, 2)), g), "values must be one-dimensional"),
        (lambda g: bootstrap_means(np.ones(3), g), r"values must be \[N, C\]"),
        (lambda g: bootstrap_mean([1.0, 2.0], g, confidence=95), "confidence must be between 0 and 1.*got 95"),
        (lambda g: bootstrap_mean([1.0, 2.0], g, confidence=0), "confidence must be"),
        (lambda g: bootstrap_mean([1.0, 2.0], g, confidence=float("nan")), "confidence must be"),
        (lambda g: bootstrap_mean([1.0, 2.0], g, n_resamples=10), "n_resamples must be at least 100; got 10"),
        (lambda g: bootstrap_mean([1.0, 2.0], g, method="t"), "method must be 'bca' or 'percentile'; got 't'"),
        (lambda g: bootstrap_mean([1.0, 2.0], g, clusters=["a"]), "clusters must label each of the 2 values"),
        (lambda g: bootstrap_mean([1.0, 2.0], g, clusters=["a", "a"]), "at least 2 clusters are needed; all 2 values"),
        (lambda g: bootstrap_crossed(np.ones(3), g), r"values must be \[S, N\], a row per seed.*; got \[3\]"),
        (lambda g: bootstrap_crossed(np.ones((3, 1)), g), "at least 2 values are needed.*; got 1"),
        (lambda g: bootstrap_crossed([[1.0, np.nan]], g), r"values holds nan at \[0, 1\]"),
        (lambda g: bootstrap_crossed(np.ones((2, 3)), g, clusters=["a"] * 3), "at least 2 clusters are needed"),
        (lambda g: bootstrap_crossed(np.ones((2, 3)), g, clusters=["a", "b"]), "clusters must label each of the 3"),
        (lambda g: bootstrap_crossed(np.ones((2, 3)), g, confidence=1.0), "confidence must be between 0 and 1"),
        (lambda g: bootstrap_crossed(np.ones((2, 3)), g, n_resamples=10), "n_resamples must be at least 100; got 10"),
        (lambda g: paired_bootstrap([1.0, 2.0], [1.0], g), r"a and b must pair row by row.*\[2\] and \[1\]"),
        (lambda g: paired_permutation([1.0, 2.0], [1.0, np.nan], g), "b holds nan"),
        (lambda g: paired_permutation([1.0], [2.0], g), "at least 2 values"),
        (lambda g: paired_permutation([1.0, 2.0], [0.0, 0.0], g, n_permutations=0), "n_permutations must be"),
        (lambda g: effective_number([]), "sizes must be one positive number for each cluster"),
        (lambda g: effective_number([2, 0]), r"sizes must be one positive number.*got \[2.0, 0.0\]"),
        (lambda g: effective_number([[1, 2]]), "sizes must be"),
        (lambda g: smallest_detectable([1.0]), "at least 2 values are needed.*; got 1"),
        (lambda g: smallest_detectable([1.0, np.nan]), r"differences holds nan at \[1"),
        (lambda g: smallest_detectable([[1.0, 2.0]]), r"differences must be one-dimensional \[N\]; got \[1, 2\]"),
        (lambda g: smallest_detectable([1.0, 2.0], clusters=["a", "a"]), "at least 2 clusters are needed"),
        (lambda g: smallest_detectable([1.0, 2.0], power=80), "power must be between 0 and 1, both excluded; got 80"),
        (lambda g: smallest_detectable([1.0, 2.0], alpha=0), "alpha must be between 0 and 1"),
        (lambda g: holm([0.1, np.nan]), "number 1 is nan"),
        (lambda g: holm([1.2]), "p_values must be between 0 and 1; number 0 is 1.2"),
        (lambda g: holm([[0.1]]), "p_values must be one-dimensional"),
    ],
)
def test_bad_input_is_a_sentence(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(rng)
