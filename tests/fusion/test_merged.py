"""The served form gives what the trained form gives, and dropped neurons are not in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.fusion import (
    Fusion,
    FusionConfig,
    FusionError,
    MaskOptions,
    apply,
    build_fusion,
    encode,
    merge,
    ndcg_of,
)
from miner_diag.retrieval import ndcg_at_k, score_all
from tests.fusion.helpers import make_probes

WIDTH, N_LAYERS = 8, 5


def random_fusion(rng, layers=(0, 1, 3, 4), sides=1, kinds=None, weights=None, masks=None):
    kinds = kinds or [str(rng.choice(["base", "normalized_projection"])) for _ in layers]
    shapes = [(sides, WIDTH) if kind == "base" else (sides, WIDTH, WIDTH) for kind in kinds]
    masks = rng.random((len(layers), WIDTH)) < 0.6 if masks is None else masks
    masks[:, 0] = True
    weights = rng.normal(size=len(layers)) if weights is None else weights
    maps = [rng.normal(size=shape) for shape in shapes]
    return Fusion(layers, kinds, maps, masks, weights, 0.3 * rng.normal(size=WIDTH), n_layers=N_LAYERS)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sides=st.sampled_from([1, 2]),
    inner=st.sets(st.integers(0, N_LAYERS - 2)),
    zero=st.booleans(),
)
def test_merged_is_unmerged(seed, sides, inner, zero):
    rng = np.random.default_rng(seed)
    layers = (*sorted(inner), N_LAYERS - 1)
    weights = rng.normal(size=len(layers))
    if zero:
        weights[0] = 0.0
    fusion = random_fusion(rng, layers, sides, weights=weights)
    states = rng.normal(size=(7, N_LAYERS, WIDTH)).astype(np.float32) * rng.uniform(0.1, 50)
    merged = merge(fusion)
    for side in ("query", "page"):
        separate, served = apply(fusion, states, side), apply(merged, states, side)
        assert served.dtype == np.float32 and served.shape == (7, WIDTH)
        np.testing.assert_allclose(served, separate, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(served, axis=1), 1, atol=1e-6)
        # cut to its first half, at length one again: what an index of short vectors holds
        short, other = (vectors[:, : WIDTH // 2] for vectors in (served, separate))
        short, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (short, other))
        np.testing.assert_allclose(short @ short.T, other @ other.T, atol=1e-5)


def test_sides_with_maps_of_their_own_differ(rng):
    fusion = random_fusion(rng, sides=2)
    states = rng.normal(size=(7, N_LAYERS, WIDTH)).astype(np.float32)
    assert np.abs(apply(merge(fusion), states, "query") - apply(merge(fusion), states, "page")).max() > 0.01


def test_dropped_neurons_and_layers_cost_nothing(rng):
    masks = np.ones((3, WIDTH), dtype=bool)
    masks[0, 2:] = masks[1, 5:] = False
    kinds = ["normalized_projection", "base", "normalized_projection"]
    merged = merge(random_fusion(rng, (0, 2, 4), kinds=kinds, masks=masks))
    assert [part.matrix.shape for part in merged.parts] == [(1, 2, WIDTH), (1, WIDTH), (1, WIDTH, WIDTH)]
    assert (merged.parts[1].matrix[:, 5:] == 0).all() and (merged.parts[1].matrix[:, :5] != 0).all()
    assert [part.rows.tolist() for part in merged.parts] == [[0, 1], [0, 1, 2, 3, 4], list(range(WIDTH))]
    # 2 * 8 + 5 + 64 numbers of maps, a weight each, and the bias
    assert merged.n_kept == 2 * 8 + 5 + 64 + 3 + 8
    weights = np.array([0.5, 0.0, 1.0])
    without = merge(random_fusion(rng, (0, 2, 4), kinds=kinds, masks=masks, weights=weights))
    assert [part.layer for part in without.parts] == [0, 4] == list(without.layers)
    assert without.n_kept == merged.n_kept - 6


def test_a_layer_that_is_left_out_is_not_read(rng):
    merged = merge(random_fusion(rng, (0, 2, 4), weights=np.array([0.5, 0.0, 1.0])))
    states = rng.normal(size=(7, N_LAYERS, WIDTH)).astype(np.float32)
    before = apply(merged, states)
    states[:, [1, 2, 3]] = np.nan
    np.testing.assert_array_equal(apply(merged, states), before)


def test_merging_leaves_the_fusion_alone(rng):
    fusion = random_fusion(rng)
    states = rng.normal(size=(7, N_LAYERS, WIDTH)).astype(np.float32)
    merged, before = merge(fusion), apply(fusion, states)
    merged.bias.zero_()
    merged.parts[0].matrix.zero_()
    np.testing.assert_array_equal(apply(fusion, states), before)


def test_mrl_cut_of_the_merged_form_ranks_as_that_of_the_unmerged(small):
    fusion = build_fusion(
        make_probes(), (0, 1, 4), FusionConfig(inner_weight=0.4), MaskOptions(), np.random.default_rng(0)
    )
    merged = merge(fusion)
    queries, pages = encode(merged, small)
    for width in (16, 8, 4, 2):
        expected = ndcg_at_k(score_all(queries[:, :width], pages[:, :width]), small.relevance)
        np.testing.assert_allclose(ndcg_of(fusion, small, width=width), expected, atol=1e-9)
        np.testing.assert_allclose(ndcg_of(merged, small, width=width), expected, atol=1e-9)


def test_what_cannot_be_merged_or_applied_is_refused(rng):
    fusion = random_fusion(rng, (0, 4))
    with pytest.raises(FusionError, match=r"must be \[N, 5, 8\]; got \[3, 5, 9\]"):
        apply(merge(fusion), np.ones((3, 5, 9), dtype=np.float32))
    with pytest.raises(FusionError, match=r"must be \[N, 5, 8\]; got \[3, 4, 8\]"):
        apply(merge(fusion), np.ones((3, 4, 8), dtype=np.float32))
    asking = Fusion(
        [0, 4],
        ["base"] * 2,
        [np.ones((1, 8))] * 2,
        np.ones((2, 8), bool),
        np.ones(2),
        np.zeros(8),
        n_layers=5,
        query_map=np.zeros((2, 8)),
    )
    with pytest.raises(FusionError, match="a query-specific fusion has no merged form; merge the fusion it started"):
        merge(asking)


def test_a_fusion_whose_weights_are_all_0_is_its_bias(rng):
    merged = merge(random_fusion(rng, (0, 2, 4), weights=np.zeros(3)))
    states = rng.normal(size=(3, N_LAYERS, WIDTH)).astype(np.float32)
    bias = merged.bias.numpy()
    np.testing.assert_allclose(
        apply(merged, states), np.repeat(bias[None], 3, axis=0) / np.linalg.norm(bias), atol=1e-6
    )


def test_no_state_is_changed_by_applying(rng):
    merged = merge(random_fusion(rng))
    states = rng.normal(size=(3, N_LAYERS, WIDTH)).astype(np.float32)
    before = states.copy()
    first, again = apply(merged, states), apply(merged, states)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(states, before)
