"""Alignment ratio and geometry: known answers, what changes them and what must not, errors by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from miner_diag.cka import (
    UndefinedCKAError,
    alignment_ratio,
    anisotropy,
    compare,
    effective_rank,
    linear_cka,
    mean_cosine,
    paired_cosines,
)


@pytest.fixture
def pair(rng):
    hidden = rng.normal(size=(80, 8))
    return hidden, hidden + 0.5 * rng.normal(size=(80, 8)) + 0.3


class TestAlignmentRatio:
    def test_is_mean_cosine_over_cka(self, pair):
        x, y = pair
        cosine = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(x, y, strict=True)])
        for estimator in ("debiased", "biased"):
            expected = cosine / linear_cka(x, y, estimator=estimator)
            assert alignment_ratio(x, y, estimator=estimator) == pytest.approx(expected, rel=1e-12)
        assert compare(x, y).alignment_ratio.value == pytest.approx(alignment_ratio(x, y), rel=1e-12)

    def test_of_a_layer_with_itself_is_one(self, pair):
        assert alignment_ratio(pair[0], 3 * pair[0]) == pytest.approx(1, rel=1e-12)

    def test_rotation_keeps_cka_and_loses_alignment(self, pair):
        x, y = pair
        turned = y @ ortho_group.rvs(8, random_state=1)
        assert linear_cka(x, turned) == pytest.approx(linear_cka(x, y), rel=1e-12)
        assert alignment_ratio(x, turned) < 0.5 * alignment_ratio(x, y)

    def test_cosine_is_uncentred(self, pair):
        x, y = pair
        assert mean_cosine(x + 100, y + 100).value > 0.99
        assert alignment_ratio(x + 100, y + 100) > alignment_ratio(x, y)

    def test_isotropic_scale_changes_nothing(self, pair):
        x, y = pair
        for scale in (1e30, 1e-30, 1e200):
            assert alignment_ratio(x * scale, y) == pytest.approx(alignment_ratio(x, y), rel=1e-12)

    def test_widths_that_differ_are_named(self, pair):
        x, y = pair
        with pytest.raises(ValueError, match=r"same width: x has d=8, y has d=5"):
            alignment_ratio(x, y[:, :5])
        result = compare(x, y[:, :5], names=("layer 3", "final"))
        assert result.mean_cosine is None and result.alignment_ratio is None
        assert result.no_ratio == "widths differ: layer 3 has d=8, final has d=5"

    def test_rows_that_do_not_match_are_named(self, pair):
        with pytest.raises(ValueError, match="x has 80 rows, y has 79"):
            alignment_ratio(pair[0], pair[1][:-1])

    def test_zero_rows_are_named(self, pair):
        x, y = pair[0].copy(), pair[1]
        x[[4, 9]] = 0
        with pytest.raises(UndefinedCKAError, match=r"x \(n=80, d=8\): row 4 is zero \(2 such rows\)"):
            alignment_ratio(x, y)

    def test_a_cka_that_is_not_positive_gives_no_ratio(self):
        # Two of Hadamard's columns are orthogonal: debiased CKA is below 0 by design.
        x = np.array([[1.0, 2], [1, -2], [-1, 2], [-1, -2]] * 5)
        y = np.array([[1.0, 3], [-1, 3], [-1, 3], [1, 3]] * 5)
        assert linear_cka(x, y) < 0
        with pytest.raises(UndefinedCKAError, match=r"its denominator, CKA, is -0.\d+ \(n=20, d=2\), not above 0"):
            alignment_ratio(x, y)
        result = compare(x, y)
        assert result.alignment_ratio is None and "not above 0" in result.no_ratio
        assert result.mean_cosine is not None


class TestCosineAndAnisotropy:
    def test_by_hand(self):
        x = np.array([[1.0, 0], [0, 2], [3, 4]])
        y = np.array([[1.0, 1], [0, -5], [4, 3]])
        np.testing.assert_allclose(paired_cosines(x, y), [np.sqrt(0.5), -1, 24 / 25], rtol=1e-14)
        # pairs of x: (1,0).(0,1) = 0, (1,0).(.6,.8) = .6, (0,1).(.6,.8) = .8; mean 1.4 / 3
        assert anisotropy(x).value == pytest.approx(1.4 / 3, rel=1e-14)

    def test_anisotropy_is_the_mean_over_all_pairs(self, rng):
        x = rng.normal(size=(40, 6)) + 0.7
        cosines = np.corrcoef(np.c_[x, -x], rowvar=True)  # rows of mean 0: correlation is cosine
        assert anisotropy(np.c_[x, -x]).value == pytest.approx(cosines[np.triu_indices(40, 1)].mean(), rel=1e-12)

    def test_a_cone_is_seen_and_its_removal_too(self, rng):
        x = rng.normal(size=(50, 20))
        assert anisotropy(x + 30).value > 0.99
        assert abs(anisotropy(x).value) < 0.05

    def test_narrow_types_do_not_overflow(self):
        x = torch.full((5, 4), 60000.0, dtype=torch.float16)
        assert anisotropy(x).value == pytest.approx(1, rel=1e-12)

    def test_too_few_rows(self):
        with pytest.raises(ValueError, match="at least 3 rows, got 2"):
            anisotropy(np.eye(2))


class TestEffectiveRank:
    def test_equal_directions_count_fully(self):
        # Four orthogonal columns of equal length and mean 0: four equal singular values.
        columns = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1] * 2, [1, -1] * 4, [1, -1, -1, 1] * 2]).T
        assert effective_rank(columns.astype(float)).value == pytest.approx(4, rel=1e-12)

    def test_by_hand(self):
        # Singular values 3 : 1, so H = -(.75 ln .75 + .25 ln .25) and the rank is exp(H).
        columns = np.array([[3.0, 3, -3, -3], [1, -1, 1, -1]]).T
        assert effective_rank(columns).value == pytest.approx(0.75**-0.75 * 0.25**-0.25, rel=1e-12)

    def test_an_offset_counts_only_when_asked(self, rng):
        x = rng.normal(size=(60, 5))
        assert effective_rank(x + 1000).value == pytest.approx(effective_rank(x).value, rel=1e-9)
        assert effective_rank(x + 1000, centred=False).value < 1.1

    def test_scale_and_rotation_change_nothing(self, rng):
        x = rng.normal(size=(60, 5)) * [5, 4, 3, 2, 1]
        moved = 1e30 * x @ ortho_group.rvs(5, random_state=0)
        assert effective_rank(moved).value == pytest.approx(effective_rank(x).value, rel=1e-10)
        assert effective_rank(x[:4]).value <= 3

    def test_constant_is_named(self):
        with pytest.raises(UndefinedCKAError, match="x is the same for all 10 items"):
            effective_rank(np.ones((10, 3)))
