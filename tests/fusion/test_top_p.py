"""Adaptive Top-P: the smallest set that holds the share, and a share that rises with the score."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.fusion import FusionError
from miner_diag.fusion.top_p import TopPOptions, adaptive_etas, top_p_mask

SALIENCIES = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any).map(np.array)
ETAS = st.integers(1, 20).map(lambda twentieths: twentieths / 20)


@given(SALIENCIES, ETAS)
def test_no_smaller_set_holds_the_share(saliency, eta):
    mask = top_p_mask(saliency.astype(float), eta)
    target = eta * saliency.sum() - 1e-9
    assert saliency[mask].sum() >= target
    fewer = combinations(range(len(saliency)), int(mask.sum()) - 1)
    assert all(saliency[list(chosen)].sum() < target for chosen in fewer)
    assert not (~mask).any() or saliency[mask].min() >= saliency[~mask].max()


@given(SALIENCIES, ETAS, ETAS)
def test_a_larger_eta_keeps_what_a_smaller_one_does(saliency, one, other):
    smaller, larger = (top_p_mask(saliency, eta) for eta in sorted((one, other)))
    assert (larger | ~smaller).all()


@given(SALIENCIES, ETAS, st.integers(1, 12))
def test_the_floor_is_kept_and_adds_the_next_most_salient(saliency, eta, floor):
    without, mask = top_p_mask(saliency, eta), top_p_mask(saliency, eta, floor)
    assert mask.sum() == max(without.sum(), min(floor, len(saliency))) and mask[without].all()
    assert not (~mask).any() or saliency[mask].min() >= saliency[~mask].max()


@given(SALIENCIES, ETAS, st.integers(-8, 8))
def test_the_scale_of_the_saliency_does_not_matter(saliency, eta, power):
    np.testing.assert_array_equal(top_p_mask(saliency * 2.0**power, eta), top_p_mask(saliency, eta))


@given(st.permutations([1, 2, 4, 8, 16, 32]), ETAS)
def test_neurons_are_known_by_their_saliency_alone(order, eta):
    values = np.array([1.0, 2, 4, 8, 16, 32])
    np.testing.assert_array_equal(
        top_p_mask(np.array(order, dtype=float), eta), top_p_mask(values, eta)[np.log2(order).astype(int)]
    )


def test_by_hand():
    saliency = np.array([1.0, 6.0, 0.0, 3.0])
    kept = {eta: np.flatnonzero(top_p_mask(saliency, eta)).tolist() for eta in (0.1, 0.6, 0.61, 0.9, 0.95, 1.0)}
    assert kept == {0.1: [1], 0.6: [1], 0.61: [1, 3], 0.9: [1, 3], 0.95: [0, 1, 3], 1.0: [0, 1, 3]}
    assert top_p_mask(np.array([1.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [True, True, False, False]  # of equals the first


def test_no_saliency_at_all_is_a_sentence():
    with pytest.raises(
        FusionError, match="all neurons have saliency 0, so Top-P cannot say which to keep; lower the L1"
    ):
        top_p_mask(np.zeros(4), 0.5)


@pytest.mark.parametrize("eta", [0.0, -0.1, 1.01, float("nan")])
def test_eta_out_of_range_is_named(eta):
    with pytest.raises(ValueError, match="must be above 0 and at most 1; got"):
        top_p_mask(np.ones(4), eta)
    for name in ("least_eta", "most_eta"):
        with pytest.raises(ValueError, match=rf"{name} must be above 0 and at most 1; got"):
            TopPOptions(**{name: eta})


@pytest.mark.parametrize("saliency", [[1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_what_is_no_saliency_is_refused(saliency):
    with pytest.raises(ValueError, match="salience must be finite and at least 0"):
        top_p_mask(np.array(saliency), 0.5)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"least_eta must be at most most_eta, 0.3; got 0.5"):
        TopPOptions(most_eta=0.3)
    with pytest.raises(ValueError, match="floor must be at least 1; got 0"):
        TopPOptions(floor=0)


# --- eta follows the score


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8), ETAS, ETAS)
def test_eta_rises_with_the_score_between_its_ends(scores, one, other):
    least, most = sorted((one, other))
    etas = adaptive_etas(np.array(scores) / 100, TopPOptions(least, most))
    assert (etas >= least - 1e-12).all() and (etas <= most + 1e-12).all()
    assert etas[np.argmax(scores)] == pytest.approx(most)
    assert len(set(scores)) == 1 or etas[np.argmin(scores)] == pytest.approx(least)
    order = np.argsort(scores)
    assert (np.diff(etas[order]) >= -1e-12).all()


def test_eta_by_hand_and_of_a_single_layer_and_of_none():
    options = TopPOptions(0.5, 0.9)
    np.testing.assert_allclose(adaptive_etas(np.array([0.3, 0.2, 0.6]), options), [0.6, 0.5, 0.9])
    np.testing.assert_allclose(adaptive_etas(np.array([0.3]), options), [0.9])
    assert len(adaptive_etas(np.zeros(0), options)) == 0
