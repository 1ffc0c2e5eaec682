"""The rows of the ablation: what each is, what it starts from, and that controls are as large as what they control."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from miner_diag.fusion import (
    Fusion,
    FusionConfig,
    FusionError,
    FusionTrainOptions,
    MaskOptions,
    build_fusion,
    embed_split,
    ndcg_of,
    query_specific,
    rows,
    train,
)
from miner_diag.fusion.systems import ShuffledLayers, SingleProbe, n_parameters
from miner_diag.retrieval import ndcg_at_k, score_all

UNTRAINED = {"backbone", "best_single_layer", "whitened", "mean_last_2", "mean_last_3", "concat_pca"}
OWN_START = {"scalar_mix", "weighted_layer_pooling"}
"""Trained, but from the mean of all layers."""
ASKED_FOR = {
    "backbone",
    "final_layer_head",
    "best_single_layer",
    "concat_pca",
    "scalar_mix",
    "weighted_layer_pooling",
    "random_mask",
    "shuffled_layers",
    "base_only",
    "projection_only",
    "no_bias",
    "fixed_mask",
    "fusion",
}
HEADS = ("final_layer_linear", "final_layer_head", "final_layer_mlp")
QUICK = FusionTrainOptions(epochs=3, batch_size=10, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2)


@pytest.fixture
def listed(small, make_probed):
    def make(shape=None, mask=None, **changed):
        probed = make_probed(**changed)
        found = rows(probed, small, small, shape or FusionConfig(), mask or MaskOptions())
        return {row.name: row for row in found}, probed

    return make


def built(row, seed=0):
    return row.build(np.random.default_rng(seed))


def masks_of(system):
    return system.masks.numpy() > 0


def test_every_control_asked_for_is_a_row(listed):
    found, _ = listed()
    assert set(found) >= ASKED_FOR and {"mean_last_2", "mean_last_3"} < set(found)
    assert {name for name, row in found.items() if not row.trained} == UNTRAINED
    for name, row in found.items():
        assert (n_parameters(built(row)) > 0) == row.trained, name
        assert row.what and row.what != name


@pytest.mark.parametrize("final", ["gate", "projection"])
def test_what_is_trained_starts_as_the_backbone(listed, small, final):
    found, _ = listed(FusionConfig(final=final, start="identity", inner_weight=0.0))
    raw = embed_split(built(found["backbone"]), small)
    ranked = np.argsort(-(raw[0] @ raw[1].T), axis=1)
    for name in set(found) - UNTRAINED - OWN_START:
        queries, pages = embed_split(built(found[name]), small)
        np.testing.assert_allclose(queries, raw[0], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(pages, raw[1], atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(np.argsort(-(queries @ pages.T), axis=1), ranked, err_msg=name)


@pytest.mark.parametrize("inner_weight", [0.0, 0.3])
def test_heads_start_as_the_whitened_final_layer_and_so_does_the_fusion_without_inner_layers(
    listed, small, inner_weight
):
    found, _ = listed(
        FusionConfig(inner_weight=inner_weight), MaskOptions(mask="none"), kinds=("normalized_projection",) * 5
    )
    even = embed_split(built(found["whitened"]), small)
    raw = embed_split(built(found["backbone"]), small)
    assert np.abs(even[1] - raw[1]).max() > 0.01
    for name in (*HEADS, "fusion"):
        alike = [
            np.abs(mine - its).max() < 1e-6
            for mine, its in zip(embed_split(built(found[name]), small), even, strict=True)
        ]
        assert all(alike) if name != "fusion" or inner_weight == 0 else not any(alike), name


def test_identity_start_is_the_backbone_whatever_the_shape(listed, small):
    found, _ = listed(FusionConfig(inner_weight=0.5))
    for mine, raw in zip(
        embed_split(built(found["identity_start"]), small), embed_split(built(found["backbone"]), small), strict=True
    ):
        np.testing.assert_allclose(mine, raw, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_heads_read_the_final_layer_alone(listed, small, rng, name):
    found, _ = listed(FusionConfig(inner_weight=0.5))
    changed = []
    for vectors in (small.queries, small.pages):
        other = rng.normal(size=vectors.shape).astype(np.float32)
        other[:, -1] = vectors[:, -1]
        changed.append(other)
    head = built(found[name])
    before, after = embed_split(head, small), embed_split(head, replace(small, queries=changed[0], pages=changed[1]))
    for mine, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(mine, other)
    fusion = built(found["fusion"])  # the negative control
    assert np.abs(embed_split(fusion, small)[0] - embed_split(fusion, replace(small, queries=changed[0]))[0]).max() > 0


@pytest.mark.parametrize("mask", ["adaptive", "fixed", "none"])
def test_the_head_has_the_fusions_size(listed, mask):
    found, _ = listed(mask=MaskOptions(mask=mask))
    head, fusion = built(found["final_layer_head"]), built(found["fusion"])
    assert n_parameters(head) == n_parameters(fusion)
    np.testing.assert_array_equal(masks_of(head), masks_of(fusion))


@pytest.mark.parametrize("sides", [1, 2])
def test_the_mlp_has_as_many_parameters_as_the_fusion(listed, sides):
    found, probed = listed(sides=sides)
    mlp, fusion = (n_parameters(built(found[name])) for name in ("final_layer_mlp", "fusion"))
    few = 2 * len(probed.selected) * probed.width  # gates, weights and bias
    assert abs(mlp - fusion) <= few


@pytest.mark.parametrize("mask", ["adaptive", "cumulative", "fixed", "none"])
def test_the_random_mask_keeps_as_many_neurons_as_the_fusion(listed, mask):
    found, _ = listed(mask=MaskOptions(mask=mask, share=0.4))
    random, fusion = masks_of(built(found["random_mask"])), masks_of(built(found["fusion"]))
    np.testing.assert_array_equal(random.sum(axis=1), fusion.sum(axis=1))


def test_random_masks_follow_the_seed(listed):
    found, _ = listed()
    first, same, other = (masks_of(built(found["random_mask"], seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any() and (first != masks_of(built(found["fusion"]))).any()


def test_variants_are_what_they_are_called(listed):
    found, probed = listed()
    kinds = {name: set(built(found[name]).kinds) for name in ("base_only", "projection_only")}
    assert kinds == {"base_only": {"base"}, "projection_only": {"normalized_projection"}}
    assert not built(found["no_bias"]).bias.requires_grad and built(found["fusion"]).bias.requires_grad
    assert masks_of(built(found["fixed_mask"])).sum(axis=1).tolist() == [8, 8, 8, 16]
    assert masks_of(built(found["no_mask"])).all()
    assert built(found["all_layers"]).layers == (0, 1, 2, 3, 4)
    assert built(found["fusion"]).layers == probed.selected == (0, 1, 3, 4)
    frozen = built(found["frozen_probes"]).groups()
    assert not frozen["maps"] and sorted(tuple(p.shape) for p in frozen["weights"]) == [(4,), (16,)]
    assert found["fusion_mrl"].training == {"mrl": True}
    assert built(found["mean_last_3"]).layers == (2, 3, 4)
    assert set(built(found["concat_pca"]).layers) == set(built(found["scalar_mix"]).layers) == {0, 1, 2, 3, 4}


def test_best_single_layer_is_the_best_on_validation(listed, small):
    found, probed = listed()
    kind, layer = np.unravel_index(int(probed.scores.argmax()), probed.scores.shape)
    best = built(found["best_single_layer"])
    assert best.layers == (layer,)
    probe = probed.stack.probe(int(layer), ("base", "normalized_projection")[kind])
    queries, pages = probe.apply(small.queries[:, layer], "query"), probe.apply(small.pages[:, layer], "page")
    expected = ndcg_at_k(score_all(queries, pages), small.relevance)
    np.testing.assert_allclose(ndcg_of(best, small), expected, atol=1e-9)


def test_frozen_probes_mix_what_the_first_stage_fitted(make_probed, small):
    probed = make_probed((1, 4))
    fusion = build_fusion(
        probed, (1, 4), FusionConfig(inner_weight=1.0), MaskOptions(mask="none"), np.random.default_rng(0)
    )
    z = probed.stack.probe(1, "normalized_projection").apply(small.pages[:, 1])
    final = small.pages[:, -1] / np.linalg.norm(small.pages[:, -1], axis=1, keepdims=True)
    expected = (z + final) / np.linalg.norm(z + final, axis=1, keepdims=True)
    np.testing.assert_allclose(fusion.apply_to(small.pages), expected, atol=1e-5)


# --- shuffled layers


def inner_only(probed):
    """A fusion of layer 1 alone, whatever the final layer says."""
    fusion = build_fusion(
        probed, (1, 4), FusionConfig(inner_weight=1.0), MaskOptions(mask="none"), np.random.default_rng(0)
    )
    with torch.no_grad():
        fusion.layer_weights[-1] = 1e-6
    return fusion


def test_shuffled_layers_carry_nothing(small, make_probed):
    fusion = inner_only(make_probed((1, 4)))
    whole, shuffled = (ndcg_of(system, small).mean() for system in (fusion, ShuffledLayers(fusion, 3)))
    assert whole > 0.3 and shuffled < 0.2  # a random order of 50 pages has 0.06


def test_shuffled_layers_carry_nothing_where_queries_and_pages_share_their_rows(small, make_probed, judged):
    even = judged(small.queries, small.pages[:40])
    fusion = inner_only(make_probed((1, 4)))
    whole, shuffled = (ndcg_of(system, even).mean() for system in (fusion, ShuffledLayers(fusion, 3)))
    assert whole > 0.3 and shuffled < 0.2


def test_shuffled_layers_leave_the_final_layer_and_are_the_same_in_each_run(small, make_probed):
    fusion = build_fusion(
        make_probed((1, 4)), (1, 4), FusionConfig(inner_weight=0.0), MaskOptions(), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(embed_split(ShuffledLayers(fusion, 3), small)[1], embed_split(fusion, small)[1])
    with torch.no_grad():
        fusion.layer_weights.fill_(1.0)
    first, again, other = (embed_split(ShuffledLayers(fusion, seed), small)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


# --- query-specific


@pytest.fixture
def fitted(small, make_probed):
    probed = make_probed()
    start = build_fusion(probed, probed.selected, FusionConfig(), MaskOptions(), np.random.default_rng(0))
    return train(start, small, small, QUICK).system


def test_query_specific_starts_as_the_fusion_and_leaves_pages_alone(small, fitted):
    variant = query_specific(fitted)
    for mine, its in zip(embed_split(variant, small), embed_split(fitted, small), strict=True):
        assert mine.tobytes() == its.tobytes()
    assert fitted.query_map is None
    assert n_parameters(variant) == 4 * 16
    trained = train(variant, small, small, replace(QUICK, weight_learning_rate=0.1, patience=3)).system
    with torch.no_grad():
        if not trained.query_map.any():  # training need not help
            trained.query_map.normal_(generator=torch.Generator().manual_seed(0))
    queries, pages = embed_split(trained, small)
    assert pages.tobytes() == embed_split(fitted, small)[1].tobytes()
    assert np.abs(queries - embed_split(fitted, small)[0]).max() > 0
    for name, tensor in fitted.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor), name


def test_query_specific_learns(small, fitted, monkeypatch):
    rising = iter(range(100))
    monkeypatch.setattr(
        sys.modules["miner_diag.fusion.train"], "ndcg_of", lambda *args: np.array([float(next(rising))])
    )  # the last epoch is kept
    trained = train(query_specific(fitted), small, small, replace(QUICK, weight_learning_rate=0.1))
    assert trained.system.query_map.abs().max() > 0.01 and trained.loss[-1] < trained.loss[0]


# --- bad input


def test_the_final_layer_alone_is_nothing_to_fuse(listed):
    with pytest.raises(FusionError, match="the selected layers are the final one, 4, only: there is nothing to fuse"):
        listed(selected=(4,))


def test_single_probes_are_not_trained(make_probed):
    assert n_parameters(SingleProbe(make_probed(), 2, "base")) == 0
    assert n_parameters(Fusion.identity(5, 16)) == 0
