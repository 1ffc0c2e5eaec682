"""Intervals: leave-one-out values are exact, nominal coverage holds, groups and influence do what they say."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.cka import StreamingCKA, anisotropy, cka_matrix, compare, effective_rank, linear_cka, mean_cosine
from miner_diag.cka.jackknife import cka_bounds, mean_interval, most_influential, ratio_interval
from miner_diag.stats import effective_number


class Planted:
    """Two Gaussian views of one signal, whose population CKA has a closed form."""

    def __init__(self, noise, width=12, signal=4):
        rng = np.random.default_rng(5)
        self.a = rng.normal(size=(signal, width))
        self.b = self.a + 0.7 * rng.normal(size=(signal, width))
        self.noise = noise
        # |S_xy|^2 / (|S_xx| |S_yy|) of the covariances A'B, A'A + s^2 I, B'B + s^2 I
        own = noise**2 * np.eye(width)
        cross, x, y = self.a.T @ self.b, self.a.T @ self.a + own, self.b.T @ self.b + own
        self.cka = (cross**2).sum() / np.sqrt((x**2).sum() * (y**2).sum())

    def draw(self, rng, n, hidden=None):
        hidden = rng.normal(size=(n, len(self.a))) if hidden is None else hidden
        shape = (n, self.a.shape[1])
        return hidden @ self.a + self.noise * rng.normal(size=shape), hidden @ self.b + self.noise * rng.normal(
            size=shape
        )


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
@pytest.mark.parametrize("route", ["gram", "features"])
@pytest.mark.parametrize("n", [5, 6, 30])
def test_leave_one_out_values_equal_recomputation(rng, estimator, route, n):
    layers = [rng.normal(size=(n, d)) for d in (3, 9)]
    layers[1][:, :3] += layers[0]
    for other in (None, layers[:1]):
        result = cka_matrix(layers, other, estimator=estimator, route=route)
        for item in range(n):
            kept = np.arange(n) != item
            again = linear_cka(layers[1][kept], layers[0][kept], estimator=estimator)
            assert result.left_out[item, 1, 0] == pytest.approx(again, abs=1e-9)


def test_leave_one_out_values_of_rbf_hold_the_width(rng):
    # The median distance is that of all items, so the reference must keep it, too.
    from miner_diag.cka.hsic import hsic_from_kernels

    x, y = rng.normal(size=(2, 20, 3))

    def kernel(side):
        squared = ((side[:, None] - side[None]) ** 2).sum(-1)
        return np.exp(-squared / (2 * np.median(np.sqrt(squared)[np.triu_indices(20, 1)]) ** 2))

    k, l = kernel(x), kernel(y)  # noqa: E741
    for estimator in ("debiased", "biased"):
        result = cka_matrix([x], [y], kernel="rbf", estimator=estimator)
        kept = np.ix_(np.arange(20) != 7, np.arange(20) != 7)
        xy, xx, yy = (hsic_from_kernels(a[kept], b[kept], estimator=estimator) for a, b in ((k, l), (k, k), (l, l)))
        assert result.left_out[7, 0, 0] == pytest.approx(xy / np.sqrt(xx * yy), abs=1e-10)


@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("noise", [0.05, 0.5, 1.5, 4.0])
def test_coverage_of_the_nominal_95_percent_interval(n, noise):
    # Population CKA from 0.9 (noise 0.05) to 0.1 (noise 4). A true coverage of 0.93 falls below 0.90 in 800 draws
    # with a chance of 0.001.
    model, rng = Planted(noise), np.random.default_rng(11)
    draws = 800 if n == 100 else 400
    hits = 0
    for _ in range(draws):
        result = cka_matrix(*([side] for side in model.draw(rng, n)), null=False)
        hits += result.low[0, 0] <= model.cka <= result.high[0, 0]
    assert 0.90 <= hits / draws <= 0.99


@pytest.mark.parametrize("noise", [0.5, 1.5, 4.0])
def test_coverage_of_the_alignment_ratio(noise):
    model, rng = Planted(noise), np.random.default_rng(13)
    x, y = model.draw(rng, 400_000)
    truth = (np.einsum("nd,nd->n", x, y) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).mean() / model.cka
    hits = 0
    for _ in range(400):
        ratio = compare(*model.draw(rng, 100)).alignment_ratio
        hits += ratio.low <= truth <= ratio.high
    assert hits / 400 >= 0.90


def test_groups_make_the_interval_honest_where_items_of_a_group_are_alike():
    # 40 documents of 10 pages that share most of the signal: treating pages as independent promises too much.
    model, rng = Planted(0.5), np.random.default_rng(14)
    documents = np.repeat(np.arange(40), 10)
    alone, grouped = 0, 0
    for _ in range(120):
        hidden = np.sqrt(0.9) * rng.normal(size=(40, 4))[documents] + np.sqrt(0.1) * rng.normal(size=(400, 4))
        x, y = model.draw(rng, 400, hidden)
        for groups in (None, documents):
            result = cka_matrix([x], [y], null=False, groups=groups)
            hit = result.low[0, 0] <= model.cka <= result.high[0, 0]
            alone, grouped = (alone + hit, grouped) if groups is None else (alone, grouped + hit)
            assert result.n_groups == (None if groups is None else 40)
    assert alone / 120 < 0.75
    assert grouped / 120 >= 0.90


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
def test_leave_one_group_out_values_equal_recomputation(rng, estimator):
    layers = [rng.normal(size=(30, d)) for d in (3, 9, 4)]
    layers[1][:, :3] += layers[0]
    groups = rng.permutation(np.repeat([0, 1, 2, 3], [1, 4, 10, 15]))
    for other in (None, layers[:1]):
        result = cka_matrix(layers, other, estimator=estimator, groups=groups)
        assert result.left_out_groups.shape == (4, *result.values.shape)
        for group in range(4):
            kept = groups != group
            again = cka_matrix(
                [side[kept] for side in layers], other and [layers[0][kept]], estimator=estimator, null=False
            )
            np.testing.assert_allclose(result.left_out_groups[group], again.values, rtol=0, atol=1e-9)


def test_groups_too_large_to_leave_out_leave_everything_open(rng):
    x, y = rng.normal(size=(2, 12, 3))
    result = cka_matrix([x], [y], groups=[0] * 10 + [1] * 2)
    assert (result.low[0, 0], result.high[0, 0]) == (-1, 1)


@pytest.mark.parametrize("documents", [6, 12])
def test_coverage_with_few_groups(documents):
    model, rng = Planted(0.5), np.random.default_rng(15)
    groups = np.repeat(np.arange(documents), 360 // documents)
    hits = 0
    for _ in range(300):
        hidden = np.sqrt(0.5) * (rng.normal(size=(documents, 4))[groups] + rng.normal(size=(360, 4)))
        result = cka_matrix(*([side] for side in model.draw(rng, 360, hidden)), null=False, groups=groups)
        hits += result.low[0, 0] <= model.cka <= result.high[0, 0]
    assert hits / 300 >= 0.90


UNEQUAL = np.array([101, 55, 46, 42, 17, 9, 9, 8, 8, 7, 7, 5])
"""Queries in each test document of debian-docs-small; 12 documents that count as 5.5."""


def use_the_number_of_groups(patch):
    """The rule that was used before: groups count fully, whatever their sizes."""
    patch.setattr("miner_diag.cka.jackknife.effective_number", lambda sizes: float(len(sizes)))


def test_a_mean_over_documents_of_unequal_size_is_covered(monkeypatch, rng):
    """Document effect and noise, both normal; 2,000 trials of 0.95 have a standard deviation of 0.005."""
    groups = np.repeat(np.arange(12), UNEQUAL)
    samples = rng.normal(size=(2000, 12))[:, groups] + rng.normal(size=(2000, len(groups)))

    def coverage():
        intervals = [mean_interval(sample, groups=groups) for sample in samples]
        assert intervals[0].n_clusters == 12
        return np.mean([interval.low <= 0 <= interval.high for interval in intervals])

    new = coverage()
    use_the_number_of_groups(monkeypatch)
    assert 0.92 <= new <= 0.97
    assert coverage() < 0.92  # the negative control


def test_cka_over_documents_of_unequal_size_is_covered():
    model, rng = Planted(0.5), np.random.default_rng(21)
    groups = np.repeat(np.arange(12), UNEQUAL)
    n, new, old = len(groups), 0, 0
    for _ in range(200):
        hidden = np.sqrt(0.7) * rng.normal(size=(12, 4))[groups] + np.sqrt(0.3) * rng.normal(size=(n, 4))
        result = cka_matrix(*([side] for side in model.draw(rng, n, hidden)), null=False, groups=groups)
        new += result.low[0, 0] <= model.cka <= result.high[0, 0]
        low, high = cka_bounds(result.values, result.left_out_groups)  # twelve groups count as twelve
        old += low[0, 0] <= model.cka <= high[0, 0]
    assert new / 200 >= 0.90
    assert old < new  # the negative control


def all_intervals(groups):
    x, y = Planted(1.0).draw(np.random.default_rng(3), 60)
    view = compare(x, y, groups=groups)
    return [
        view.cka,
        view.mean_cosine,
        view.alignment_ratio,
        anisotropy(x, groups=groups),
        effective_rank(x, groups=groups),
    ]


@pytest.mark.parametrize("groups", [None, np.arange(60), np.repeat(np.arange(12), 5)])
def test_groups_of_equal_size_and_single_items_have_the_intervals_they_had(monkeypatch, groups):
    new = all_intervals(groups)
    use_the_number_of_groups(monkeypatch)
    assert all_intervals(groups) == new
    for interval in new:
        assert interval.effective_clusters == (None if groups is None else len(set(groups)))


def test_unequal_groups_widen_every_interval_and_say_how_many_they_count(monkeypatch):
    groups = np.repeat(np.arange(6), [35, 5, 5, 5, 5, 5])
    new = all_intervals(groups)
    use_the_number_of_groups(monkeypatch)
    for interval, before in zip(new, all_intervals(groups), strict=True):
        assert interval.high - interval.low > 1.1 * (before.high - before.low)
        assert interval.n_clusters == 6
        assert interval.effective_clusters == pytest.approx(effective_number([35, 5, 5, 5, 5, 5]))


def test_groups_of_one_item_change_nothing(rng):
    x, y = Planted(1.0).draw(rng, 60)
    plain, grouped = compare(x, y), compare(x, y, groups=[f"page {i}" for i in range(60)])
    for name in ("cka", "mean_cosine", "alignment_ratio"):
        one, other = getattr(plain, name), getattr(grouped, name)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-12)
        assert (one.n_clusters, other.n_clusters) == (None, 60)


def test_intervals_stay_inside_their_range_and_close_at_one(rng):
    x = rng.normal(size=(40, 5))
    near = cka_matrix([x], [x + 0.01 * rng.normal(size=x.shape)])
    assert near.values[0, 0] > 0.999
    assert near.low[0, 0] < near.values[0, 0] < near.high[0, 0] < 1
    itself = cka_matrix([x]).interval(0, 0)
    assert (itself.low, itself.value, itself.high) == (1, 1, 1)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("estimator", ["debiased", "biased"])
@pytest.mark.parametrize("scale", [1.0, 3.0, 1e-20, 0.1])
def test_a_layer_with_itself_is_exactly_one(rng, grouped, estimator, scale):
    """By definition, so on every machine: no last bit of a product may show in value or ends."""
    for n, d in ((40, 5), (137, 64), (64, 300)):
        x = rng.normal(size=(n, d)) * np.exp(rng.normal(size=(n, 1))) + 3
        groups = np.repeat(np.arange(8), [n - 21, *[3] * 7]) if grouped else None
        view = compare(x, scale * x, estimator=estimator, groups=groups)
        for interval in (view.cka, view.alignment_ratio):
            assert (interval.low, interval.value, interval.high) == (1, 1, 1)
        assert view.mean_cosine.low == view.mean_cosine.value == view.mean_cosine.high


@pytest.mark.parametrize("route", ["gram", "features"])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_layer_with_itself_in_float32_has_no_width(rng, route, grouped):
    """Products of float32 differ in their seventh digit, and the scale of Fisher's z would make 0.3 of that."""
    x = rng.normal(size=(200, 3, 48)).astype(np.float32)
    groups = np.repeat(np.arange(10), 20) if grouped else None
    result = cka_matrix(x, x[:, -1], route=route, groups=groups)
    assert result.dtype == "float32"
    itself = result.interval(2, 0)
    assert itself.low == itself.value == itself.high == pytest.approx(1, abs=1e-5)
    assert result.high[0, 0] - result.low[0, 0] > 0.01


def test_a_stream_with_itself_has_no_width(rng):
    x = rng.normal(size=(100, 5))
    stream = StreamingCKA(blocks=4)
    for part in np.array_split(x, 9):
        stream.update(part, 0.3 * part)
    itself = stream.compute().interval(0, 0)
    assert (itself.low, itself.value, itself.high) == (1, 1, 1)


def test_half_widths_of_rounding_size_are_zero(rng):
    def noisy(value):
        return value * (1 + 1e-13 * rng.normal(size=30))

    ratio = ratio_interval(0.7, 0.7, noisy(0.7), noisy(0.7), n=30)
    assert (ratio.low, ratio.value, ratio.high) == (1, 1, 1)
    other = ratio_interval(0.2, 0.7, noisy(0.2), noisy(0.7), n=30)
    assert other.low == other.value == other.high == 0.2 / 0.7
    mean = mean_interval(noisy(0.3))
    assert mean.low == mean.value == mean.high
    low, high = cka_bounds(np.array([1.0, 0.4]), np.stack([1 - np.abs(noisy(1.0) - 1), noisy(0.4)], axis=1))
    assert low.tolist() == high.tolist() == [1.0, 0.4]


def test_half_widths_above_rounding_size_stay(rng):
    spread = 1e-6 * rng.normal(size=30)
    assert mean_interval(0.3 + spread).high > 0.3 + spread.mean()
    ratio = ratio_interval(0.3, 0.7, 0.3 + spread, np.full(30, 0.7), n=30)
    half = ratio.high - ratio.value
    # with a constant denominator the interval is that of the numerator over it
    assert half == pytest.approx(2.045229642132703 * np.sqrt(29 / 30 * ((spread - spread.mean()) ** 2).sum()) / 0.7)
    low, high = cka_bounds(np.array(0.4), 0.4 + spread)
    assert low < 0.4 < high


def test_fieller_is_the_root_of_its_quadratic(rng):
    """Where nothing cancels, the ends are those of the formula as it stands in the books."""
    values, others = 2 + rng.normal(size=20), 3 + rng.normal(size=20)
    left_out = [(side.sum() - side) / 19 for side in (values, others)]
    a, b = values.mean(), others.mean()
    result = ratio_interval(a, b, *left_out, n=20)
    (c00, c01), (_, c11) = 19 * np.cov(np.stack([a - left_out[0], b - left_out[1]]), bias=True)
    t2 = 2.093024054408263**2
    ends = np.sort(np.roots([b**2 - t2 * c11, -2 * (a * b - t2 * c01), a**2 - t2 * c00]))
    assert (result.low, result.high) == pytest.approx(tuple(ends), rel=1e-9)


def test_where_an_item_cannot_be_left_out_the_interval_is_everything(rng):
    four = cka_matrix([rng.normal(size=(4, 3))], [rng.normal(size=(4, 3))])
    assert (four.low[0, 0], four.high[0, 0]) == (-1, 1)
    spike = np.zeros((20, 1))
    spike[3] = 1.0
    alone = cka_matrix([spike], [rng.normal(size=(20, 2))], estimator="biased", null=False)
    assert (alone.low[0, 0], alone.high[0, 0]) == (-1, 1)


def test_low_confidence_is_narrower(rng):
    x, y = Planted(1.0).draw(rng, 60)
    widths = [
        np.ptp([r.low[0, 0], r.high[0, 0]]) for c in (0.5, 0.9, 0.99) for r in [cka_matrix([x], [y], confidence=c)]
    ]
    assert widths == sorted(widths)


def test_jackknife_of_a_mean_is_the_students_interval():
    # mean 2, sd 1 over (1, 2, 3): 2 +- t(0.975, 2) / sqrt(3) = 2 +- 4.302653 / 1.732051
    result = mean_cosine(np.array([[1.0, 0], [1, 0], [1, 0]]), np.array([[1.0, 0], [0, 1], [-1, 0]]))
    assert (result.value, result.low, result.high) == pytest.approx((0, -2.484138, 2.484138), rel=1e-6)


def test_ratio_of_two_known_parts():
    # With a constant denominator of 2 Fieller's interval is that of the numerator, halved.
    values = np.array([1.0, 2.0, 3.0, 6.0])
    left_out = (values.sum() - values) / 3
    result = ratio_interval(values.mean(), 2.0, left_out, np.full(4, 2.0), n=4)
    half = 3.182446305284263 * np.std(values, ddof=1) / 2
    assert (result.low, result.high) == pytest.approx((1.5 - half / 2, 1.5 + half / 2), rel=1e-9)


def test_ratio_over_a_denominator_that_may_be_zero_is_unbounded():
    values = np.array([-1.0, 1.0, -2.0, 2.5])
    left_out = (values.sum() - values) / 3
    result = ratio_interval(1.0, values.mean(), np.full(4, 1.0), left_out, n=4)
    assert (result.low, result.high) == (-np.inf, np.inf)


def test_bounds_are_where_the_scale_says():
    # z(-i) spread evenly around atanh(0.5): half-width t * se on z, back through tanh.
    z = np.arctanh(0.5) + np.array([-0.02, 0.0, 0.02])
    low, high = cka_bounds(np.array(0.5), np.tanh(z))
    half = 4.302652729911275 * np.sqrt(2 / 3 * 2 * 0.02**2)
    assert (low, high) == pytest.approx((np.tanh(np.arctanh(0.5) - half), np.tanh(np.arctanh(0.5) + half)), rel=1e-9)


class TestOutliers:
    def test_a_planted_outlier_is_found_and_its_absence_reported(self, rng):
        x, y = rng.normal(size=(2, 200, 5))
        x[[17, 90]] += 40
        y[[17, 90]] += 40
        result = compare(x, y)
        assert result.cka.value > 0.9
        assert sorted(result.outliers.items) == [17, 90]
        kept = np.setdiff1d(np.arange(200), [17, 90])
        assert result.outliers.value == pytest.approx(linear_cka(x[kept], y[kept]), abs=1e-12)
        assert result.outliers.change == pytest.approx(result.outliers.value - result.cka.value, abs=1e-15)
        assert result.outliers.change < -0.8

    def test_without_outliers_little_changes(self, rng):
        result = compare(*Planted(0.5).draw(rng, 500))
        assert len(result.outliers.items) == 5
        assert abs(result.outliers.change) < 0.02

    def test_share_is_checked(self):
        with pytest.raises(ValueError, match="share must lie between 0 and 1, got 1"):
            most_influential(0.5, np.zeros(10), 1)


class TestGeometryIntervals:
    def test_anisotropy_leave_one_out_is_exact(self, rng):
        x = rng.normal(size=(12, 4)) + 1
        result = anisotropy(x)
        again = [anisotropy(np.delete(x, i, 0)).value for i in range(12)]
        half = 2.200985160082949 * np.sqrt(11 / 12 * ((again - np.mean(again)) ** 2).sum())
        assert result.high - result.value == pytest.approx(half, rel=1e-9)

    def test_effective_rank_influence_is_the_derivative_of_leaving_out(self, rng):
        x = rng.normal(size=(400, 5)) * [5, 4, 3, 2, 1]
        result = effective_rank(x)
        again = np.array([effective_rank(np.delete(x, i, 0)).value for i in range(400)])
        half = 1.9659271 * np.sqrt(399 / 400 * ((again - again.mean()) ** 2).sum())
        assert result.high - result.value == pytest.approx(half, rel=0.02)
