"""Which neurons stay: shares and masks by hand, what they must not depend on, and bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.fusion import MaskOptions, adaptive_shares, neuron_mask, neuron_masks

RULES = ["adaptive", "cumulative", "fixed", "random", "none"]
SCORES = np.array([0.10, 0.30, 0.20, 0.50])
"""minmax: 0, 0.5, 0.25, 1."""


@pytest.fixture
def salience(rng):
    return rng.exponential(size=(4, 16))


def masks_of(salience, scores=SCORES, **options):
    return neuron_masks(salience, scores, MaskOptions(**options), np.random.default_rng(0))


def test_adaptive_shares_by_hand():
    # rho = 0.2 + 0.6 * minmax
    assert adaptive_shares(SCORES, 0.2, 0.8) == pytest.approx([0.2, 0.5, 0.35, 0.8])
    assert adaptive_shares(np.full(3, 0.4), 0.2, 0.8) == pytest.approx([0.8] * 3)  # nothing tells them apart
    assert adaptive_shares(SCORES, 0.5, 0.5) == pytest.approx([0.5] * 4)


@given(
    scores=st.lists(st.floats(0, 1), min_size=2, max_size=12),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
    scale=st.floats(0.5, 3),
    shift=st.floats(-1, 1),
)
def test_shares_rise_with_the_score_and_stay_in_range(scores, low, high, scale, shift):
    low, high = sorted((low, high))
    scores = np.array([round(score, 3) for score in scores])
    shares = adaptive_shares(scores, low, high)
    assert (low - 1e-12 <= shares).all() and (shares <= high + 1e-12).all()
    assert (np.diff(shares[np.argsort(scores, kind="stable")]) >= -1e-12).all()
    # only the place between worst and best matters
    np.testing.assert_allclose(adaptive_shares(scale * scores + shift, low, high), shares, atol=1e-9)


def test_the_most_salient_are_kept_and_the_first_of_equals():
    assert neuron_mask(np.array([0.1, 0.7, 0.2, 0.0]), 0.5).tolist() == [False, True, True, False]
    assert neuron_mask(np.array([1.0, 2.0, 1.0, 1.0]), 0.75).tolist() == [True, True, True, False]
    assert neuron_mask(np.zeros(8), 0.25).tolist() == [True, True, *[False] * 6]
    assert neuron_mask(np.array([1.0, 3.0, 2.0]), 0.01).tolist() == [False, True, False]  # one at least
    assert neuron_mask(np.arange(5), 1.0).all()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"mask": "adaptive", "min_share": 0.25, "max_share": 1.0}, [4, 10, 7, 16]),  # 16 * (0.25, 0.625, 0.4375)
        ({"mask": "random", "min_share": 0.25, "max_share": 1.0}, [4, 10, 7, 16]),
        ({"mask": "fixed", "share": 0.25}, [4, 4, 4, 16]),
        # to the nearest: 16 * (0.3, 0.65, 0.475) is 4.8, 10.4 and 7.6
        ({"mask": "adaptive", "min_share": 0.3, "max_share": 1.0}, [5, 10, 8, 16]),
        ({"mask": "random", "min_share": 0.3, "max_share": 1.0}, [5, 10, 8, 16]),
        ({"mask": "fixed", "share": 0.3}, [5, 5, 5, 16]),
        ({"mask": "none"}, [16] * 4),
    ],
)
def test_how_many_neurons_each_rule_keeps(salience, options, kept):
    assert masks_of(salience, **options).sum(axis=1).tolist() == kept


@pytest.mark.parametrize("rule", ["adaptive", "cumulative", "fixed"])
def test_no_neuron_that_is_kept_is_less_salient_than_one_that_is_not(salience, rule):
    masks = masks_of(salience, mask=rule)
    for values, mask in zip(salience[:-1], masks[:-1], strict=True):
        assert not mask.all() or rule == "cumulative"
        if not mask.all():
            assert values[mask].min() > values[~mask].max()


def test_cumulative_is_the_smallest_set_with_its_share_of_the_salience(salience):
    masks = masks_of(salience, mask="cumulative", min_share=0.3, max_share=0.9)
    for layer, share in enumerate(adaptive_shares(SCORES, 0.3, 0.9)[:-1]):
        values, mask = salience[layer], masks[layer]
        assert values[mask].sum() >= share * values.sum() - 1e-12
        assert values[mask].sum() - values[mask].min() < share * values.sum()  # any fewer hold less


def test_cumulative_by_hand():
    salience = np.array([[4.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0], [9.0, 0.5, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]])
    masks = masks_of(salience, np.array([0.0, 0.0, 0.0, 1.0]), mask="cumulative", min_share=0.6, max_share=1.0)
    assert masks[0].tolist() == [True, False, True, False]  # 4 + 3 of 10
    assert masks[1].tolist() == [True, True, True, False]  # of equals the first: 3 of 4
    assert masks[2].tolist() == [True, False, False, False]
    assert masks_of(np.zeros((2, 4)), np.array([0.1, 0.2]), mask="cumulative").all()  # no salience tells nothing


@pytest.mark.parametrize("rule", RULES)
def test_the_final_layer_keeps_all(salience, rule):
    assert masks_of(salience, np.array([0.9, 0.8, 0.7, 0.1]), mask=rule, share=0.1)[-1].all()


@pytest.mark.parametrize("rule", ["adaptive", "cumulative", "fixed", "none"])
def test_order_and_size_of_neurons_do_not_matter(salience, rng, rule):
    order = rng.permutation(16)
    masks = masks_of(salience, mask=rule)
    np.testing.assert_array_equal(masks_of(salience[:, order], mask=rule), masks[:, order])
    np.testing.assert_array_equal(masks_of(7.5 * salience, mask=rule), masks)


def test_random_masks_ignore_salience_and_follow_the_generator(salience):
    options = MaskOptions(mask="random", min_share=0.25)
    draw = lambda values, seed: neuron_masks(values, SCORES, options, np.random.default_rng(seed))  # noqa: E731
    np.testing.assert_array_equal(draw(salience, 0), draw(salience[:, ::-1], 0))
    assert (draw(salience, 0) != draw(salience, 1)).any()
    mean = np.mean([draw(salience, seed)[0] for seed in range(400)], axis=0)
    assert np.abs(mean - 0.25).max() < 0.1  # every neuron has the same chance; its deviation is 0.022


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_share": 0.0}, "min_share must be above 0 and at most 1; got 0.0"),
        ({"max_share": 1.1}, "max_share must be above 0 and at most 1; got 1.1"),
        ({"share": float("nan")}, "share must be above 0 and at most 1; got nan"),
        ({"min_share": 0.8, "max_share": 0.5}, "min_share must be at most max_share, 0.5; got 0.8"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MaskOptions(**options)


@pytest.mark.parametrize(
    ("salience", "scores", "message"),
    [
        (np.ones((3, 4)), np.ones(2), r"salience \[L, D\] and scores \[L\] must fit; got \(3, 4\) and \(2,\)"),
        (np.ones(4), np.ones(4), "must fit"),
        (-np.ones((2, 4)), np.ones(2), "salience must be finite and at least 0"),
        (np.full((2, 4), np.nan), np.ones(2), "salience must be finite"),
        (np.ones((2, 4)), np.array([0.1, np.nan]), "scores must be finite"),
    ],
)
def test_arrays_that_do_not_fit_are_named(salience, scores, message):
    with pytest.raises(ValueError, match=message):
        masks_of(salience, scores)
