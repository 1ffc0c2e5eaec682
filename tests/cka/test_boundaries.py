"""The edges of CKA: the smallest p value, the fewest items a group may leave, items that cannot be left out."""

import math

import numpy as np
import pytest
import torch

from miner_diag.cka import cka_matrix, compare, hsic_from_kernels
from miner_diag.cka import permutation as permutation_module
from miner_diag.cka.bandwidth import median_distances
from miner_diag.cka.jackknife import influence, most_influential, t_quantile
from miner_diag.cka.layers import as_layers
from miner_diag.cka.permutation import KernelShape, biased_null_mean, kernel_shape, null_of, null_sd, pearson3_sf

FLAT = KernelShape(0.0, 0.0)


@pytest.mark.parametrize("n", [7, 8, 9, 10])
def test_no_p_value_is_below_that_of_one_order_among_all(n):
    """The observed pairing is one of n! orders; a normal tail alone would go below that."""
    assert pearson3_sf(1 / null_sd(n), 0.0) < 1 / math.factorial(n)
    assert null_of(1.0, FLAT, FLAT, n).p_value == pytest.approx(1 / math.factorial(n), rel=1e-9)


def test_no_p_value_is_0_where_the_tail_underflows():
    assert pearson3_sf(1 / null_sd(3000), 0.0) == 0
    assert null_of(1.0, FLAT, FLAT, 3000).p_value == np.finfo(float).tiny


@pytest.mark.parametrize("width", [4, 300])
def test_the_shape_of_many_items_is_that_of_all_of_them(rng, monkeypatch, width):
    """The cubes fall as 1 / n: those of the items that are looked at are brought to the number there is."""
    layer = as_layers([rng.exponential(size=(1800, width))])[0]
    sampled = kernel_shape(layer, "linear", 1.0)
    monkeypatch.setattr(permutation_module, "SHAPE_ITEMS", 1800)
    whole = kernel_shape(layer, "linear", 1.0)
    assert sampled.cubes == pytest.approx(whole.cubes, rel=0.35)
    assert sampled.triangles == pytest.approx(whole.triangles, rel=0.35)


def test_a_layer_of_the_looked_at_items_says_how_many_there_are(rng):
    rows = rng.normal(size=(100, 5))
    alone, of_many = (kernel_shape(as_layers([rows])[0], "linear", 1.0, n=n) for n in (None, 1000))
    assert of_many.cubes == pytest.approx(alone.cubes / 10)
    assert of_many.triangles == alone.triangles


def test_an_item_without_which_there_is_no_cka_is_the_most_influential():
    left_out = np.array([0.5, 0.1, np.nan, 0.49])
    assert most_influential(0.5, left_out, 0.25).tolist() == [2]
    assert most_influential(0.5, left_out, 0.5).tolist() == [2, 1]


def test_the_outlier_check_leaves_out_what_carries_a_side_alone(rng):
    """Two items make a side: without one of them nothing is left of it, so the check has no value to give."""
    x, y = np.zeros((30, 2)), rng.normal(size=(30, 3))
    x[[7, 8]] = (1.0, 0.0)
    assert compare(x, y, outlier_share=0.03).outliers is None


def test_shares_of_outliers_are_rounded_up():
    left_out = np.linspace(0.1, 0.9, 11)
    assert len(most_influential(0.5, left_out, 0.1)) == 2


@pytest.mark.parametrize(("estimator", "fewest"), [("debiased", 4), ("biased", 2)])
def test_a_group_may_leave_as_few_items_as_have_a_cka(rng, estimator, fewest):
    x, y = rng.normal(size=(2, 10, 3))
    for left, known in ((fewest, True), (fewest - 1, False)):
        groups = np.array(["large"] * (10 - left) + ["small"] * left)
        result = cka_matrix([x], [y], groups=groups, null=False, estimator=estimator)
        without_large = result.left_out_groups[0, 0, 0]
        assert np.isfinite(without_large) == known


def test_the_mean_of_the_biased_null_is_that_of_two_traces():
    from types import SimpleNamespace

    sums = SimpleNamespace(self_x=np.array([4.0]), self_y=np.array([9.0]))
    assert biased_null_mean(np.array([5.0, 7.0]), sums, 11) == pytest.approx(np.array([[5 / 2 * 7 / 3 / 10]]))


def test_the_debiased_terms_by_hand():
    """Song's three terms on kernels whose rows have different sums."""
    kernels = []
    for seed in (0, 1):
        half = np.triu(np.random.default_rng(seed).integers(1, 9, (5, 5)), 1).astype(float)
        kernels.append(half + half.T)
    k, l = kernels  # noqa: E741
    n, one = 5, np.ones(5)
    wanted = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ l @ one
    assert hsic_from_kernels(k, l) == pytest.approx(wanted / (n * (n - 3)))


def test_the_width_of_rbf_is_the_median_distance():
    rows = np.array([[0.0], [1.0], [3.0], [7.0]])  # distances 1, 3, 7, 2, 6, 4
    layer = as_layers([rows])[0]
    assert median_distances([layer]) == [pytest.approx(3.5 * layer.scale)]
    assert median_distances([layer], 2.0) == [pytest.approx(7.0 * layer.scale)]


def test_the_quantile_of_a_two_sided_interval():
    assert t_quantile(0.95, 1e9) == pytest.approx(1.959964, abs=1e-5)
    assert t_quantile(0.95, 5) == pytest.approx(2.776445, abs=1e-5)


def test_the_influence_of_a_group_is_the_sum_over_its_items():
    left_out = np.array([0.4, 0.3, 0.5, 0.6])
    assert influence(0.5, left_out, np.array([0, 0, 1, 1])) == pytest.approx(np.array([0.3, -0.1]))


def test_a_mean_far_above_the_spread_is_taken_off_without_its_rounding(rng):
    """Under an offset of 1e7 times the spread, float32 rows are centred by the mean in two parts."""
    rows = (1e3 + 1e-2 * rng.normal(size=(60, 6))).astype(np.float32)
    layer = as_layers([rows])[0]
    exact = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    block = layer.block(slice(None), torch.float32, torch.device("cpu")).double().numpy()
    np.testing.assert_allclose(block, layer.scale * exact, atol=1e-6 * np.abs(exact).max() * layer.scale)
