"""The rows of the ablation: what each is, what it starts from, and that controls are as large as what they control."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from miner_diag.fusion import (
    Fusion,
    FusionConfig,
    FusionError,
    FusionTrainOptions,
    MaskOptions,
    apply,
    build_fusion,
    chosen_rows,
    encode,
    ndcg_of,
    query_specific,
    train,
)
from miner_diag.fusion.baselines import ShuffledLayers, SingleProbe
from miner_diag.fusion.rows import ALWAYS, DEFAULT, FORMS, ROWS, Role
from miner_diag.fusion.rows import HEADS as HEADS_OF_ROWS
from miner_diag.retrieval import ndcg_at_k, score_all
from tests.fusion.helpers import make_probes, materials_of, retrieval_data

UNTRAINED = {"backbone", "best_single_layer", "whitened", "mean_last_2", "mean_last_3", "concat_pca"}
OWN_START = {"scalar_mix", "weighted_layer_pooling", "miner_whitened"}
"""Trained, but from the mean of all layers, or from the whitened final one."""
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
    "miner",
    "trained_maps",
}
HEADS = ("final_layer_vector", "final_layer_linear", "final_layer_head", "final_layer_mlp")
WHITENED_HEADS = HEADS[1:]
"""Those that start where our form does; the one of MINER's form starts as the backbone."""
QUICK = FusionTrainOptions(epochs=3, batch_size=10, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2)


BUILT = {row.name: row for row in ROWS if row.build is not None}
"""All rows but those that start from a fitted fusion."""


@pytest.fixture
def listed(small):
    """All systems before training, and what they are built from."""

    def make(config=None, mask=None, **probes):
        materials = materials_of(small, config, mask, **probes)
        return {name: build(name, materials) for name in BUILT}, materials

    return make


def build(name, materials, seed=0):
    return BUILT[name].build(materials, np.random.default_rng(seed))


def masks_of(system):
    return system.masks.numpy() > 0


def test_every_control_asked_for_is_a_row(listed):
    systems, materials = listed()
    assert set(systems) >= ASKED_FOR and {"mean_last_2", "mean_last_3"} < set(systems)
    assert {name for name, row in BUILT.items() if not row.trained} == UNTRAINED
    for name, row in BUILT.items():
        assert (systems[name].n_trained > 0) == row.trained, name
    for row in ROWS:
        what = row.what.format(**materials.words())
        assert what and what != row.name and "{" not in what


def test_names_are_unique_and_every_role_is_filled():
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) == 33
    roles = {role: [row.name for row in ROWS if row.role == role] for role in get_args(Role)}
    assert roles["backbone"] == ["backbone"] and roles["fusion"] == ["miner", "trained_maps"] == list(FORMS)
    assert tuple(roles["head"]) == HEADS == HEADS_OF_ROWS
    assert set(roles["control"]) == {"random_mask", "shuffled_layers"}
    assert all(roles.values()) and sum(map(len, roles.values())) == len(names)
    assert [row.name for row in ROWS if row.build_on is not None] == ["query_specific"]


def test_what_rows_are_called_in_words(listed):
    _, materials = listed()
    words = {row.name: row.what.format(**materials.words()) for row in ROWS}
    assert words["trained_maps"] == (
        "our form: maps trained further from a whitened start, layers 0, 1, 3, 4, adaptive mask"
    )
    assert words["miner"] == "MINER's form, layers 1, 3, 4"
    assert words["fixed_mask"] == "the same share of neurons, 0.5, of every inner layer"
    layer, kind = materials.best_probe
    assert words["best_single_layer"].endswith(f"best validation score: {kind}, layer {layer}")


def test_rows_are_chosen_by_name_and_keep_their_order():
    assert {row.name for row in chosen_rows()} == set(DEFAULT) == {*ALWAYS, "whitened"}
    assert chosen_rows(("all",)) == ROWS
    names = [row.name for row in chosen_rows(("query_specific", "no_bias"))]
    assert names == ["backbone", *HEADS, "no_bias", "miner", "trained_maps", "query_specific"]
    assert len(chosen_rows(("default", "no_bias"))) == len(DEFAULT) + 1
    with pytest.raises(
        ValueError, match=r"systems must be default, differences, all, or some of backbone, .*; got magic, spell"
    ):
        chosen_rows(("spell", "miner", "magic"))


@pytest.mark.parametrize("final", ["gate", "projection"])
def test_what_is_trained_starts_as_the_backbone(listed, small, final):
    systems, _ = listed(FusionConfig(final=final, start="identity", inner_weight=0.0))
    raw = encode(systems["backbone"], small)
    ranked = np.argsort(-(raw[0] @ raw[1].T), axis=1)
    for name in set(systems) - UNTRAINED - OWN_START:
        queries, pages = encode(systems[name], small)
        np.testing.assert_allclose(queries, raw[0], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(pages, raw[1], atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(np.argsort(-(queries @ pages.T), axis=1), ranked, err_msg=name)


@pytest.mark.parametrize("inner_weight", [0.0, 0.3])
def test_heads_start_as_the_whitened_final_layer_and_so_does_the_fusion_without_inner_layers(
    listed, small, inner_weight
):
    systems, _ = listed(
        FusionConfig(inner_weight=inner_weight), MaskOptions(mask="none"), kinds=("normalized_projection",) * 5
    )
    even = encode(systems["whitened"], small)
    raw = encode(systems["backbone"], small)
    assert np.abs(even[1] - raw[1]).max() > 0.01
    for name in (*WHITENED_HEADS, "miner_whitened", "trained_maps"):
        alike = [
            np.abs(vectors - expected).max() < 1e-6
            for vectors, expected in zip(encode(systems[name], small), even, strict=True)
        ]
        assert all(alike) if name != "trained_maps" or inner_weight == 0 else not any(alike), name


def test_identity_start_is_the_backbone_whatever_the_configuration(listed, small):
    systems, _ = listed(FusionConfig(inner_weight=0.5))
    started, raw = encode(systems["identity_start"], small), encode(systems["backbone"], small)
    for vectors, expected in zip(started, raw, strict=True):
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_heads_read_the_final_layer_alone(listed, small, rng, name):
    systems, _ = listed(FusionConfig(inner_weight=0.5))
    changed = []
    for vectors in (small.queries, small.pages):
        other = rng.normal(size=vectors.shape).astype(np.float32)
        other[:, -1] = vectors[:, -1]
        changed.append(other)
    head = systems[name]
    before, after = encode(head, small), encode(head, replace(small, queries=changed[0], pages=changed[1]))
    for vectors, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(vectors, other)
    fusion = systems["trained_maps"]  # the negative control
    assert np.abs(encode(fusion, small)[0] - encode(fusion, replace(small, queries=changed[0]))[0]).max() > 0


@pytest.mark.parametrize("mask", ["adaptive", "fixed", "none"])
def test_the_head_has_the_fusions_size(listed, mask):
    systems, _ = listed(mask=MaskOptions(mask=mask))
    head, fusion = systems["final_layer_head"], systems["trained_maps"]
    assert head.n_trained == fusion.n_trained
    np.testing.assert_array_equal(masks_of(head), masks_of(fusion))


@pytest.mark.parametrize("sides", [1, 2])
def test_the_mlp_has_as_many_parameters_as_the_fusion(listed, sides):
    systems, materials = listed(sides=sides)
    mlp, fusion = (systems[name].n_trained for name in ("final_layer_mlp", "trained_maps"))
    few = 2 * len(materials.layers) * materials.probes.width  # gates, weights and bias
    assert abs(mlp - fusion) <= few


@pytest.mark.parametrize("mask", ["adaptive", "cumulative", "fixed", "none"])
def test_the_random_mask_keeps_as_many_neurons_as_the_fusion(listed, mask):
    systems, _ = listed(mask=MaskOptions(mask=mask, share=0.4))
    random, fusion = masks_of(systems["random_mask"]), masks_of(systems["trained_maps"])
    np.testing.assert_array_equal(random.sum(axis=1), fusion.sum(axis=1))


def test_random_masks_follow_the_seed(listed):
    systems, materials = listed()
    first, same, other = (masks_of(build("random_mask", materials, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any() and (first != masks_of(systems["trained_maps"])).any()


def test_variants_are_what_they_are_called(listed):
    systems, materials = listed()
    kinds = {name: set(systems[name].kinds) for name in ("base_only", "projection_only")}
    assert kinds == {"base_only": {"base"}, "projection_only": {"normalized_projection"}}
    assert not systems["no_bias"].bias.requires_grad and systems["trained_maps"].bias.requires_grad
    assert masks_of(systems["fixed_mask"]).sum(axis=1).tolist() == [8, 8, 8, 16]
    assert masks_of(systems["no_mask"]).all()
    assert systems["all_layers"].layers == (0, 1, 2, 3, 4)
    assert systems["trained_maps"].layers == materials.layers == (0, 1, 3, 4)
    frozen = systems["frozen_probes"].groups()
    assert not frozen["maps"] and sorted(tuple(p.shape) for p in frozen["weights"]) == [(4,), (16,)]
    assert BUILT["fusion_mrl"].training == {"mrl": True}
    assert systems["mean_last_3"].layers == (2, 3, 4)
    assert set(systems["concat_pca"].layers) == set(systems["scalar_mix"].layers) == {0, 1, 2, 3, 4}


def test_best_single_layer_is_the_best_on_validation(listed, small):
    systems, materials = listed()
    probes = materials.probes
    kind, layer = np.unravel_index(int(probes.scores.argmax()), probes.scores.shape)
    best = systems["best_single_layer"]
    assert best.layers == (layer,)
    probe = probes.stack.probe(int(layer), ("base", "normalized_projection")[kind])
    queries, pages = probe.apply(small.queries[:, layer], "query"), probe.apply(small.pages[:, layer], "page")
    expected = ndcg_at_k(score_all(queries, pages), small.relevance)
    np.testing.assert_allclose(ndcg_of(best, small), expected, atol=1e-9)


def test_frozen_probes_mix_what_the_first_stage_fitted(small):
    probes = make_probes((1, 4))
    fusion = build_fusion(
        probes, (1, 4), FusionConfig(inner_weight=1.0), MaskOptions(mask="none"), np.random.default_rng(0)
    )
    z = probes.stack.probe(1, "normalized_projection").apply(small.pages[:, 1])
    final = small.pages[:, -1] / np.linalg.norm(small.pages[:, -1], axis=1, keepdims=True)
    expected = (z + final) / np.linalg.norm(z + final, axis=1, keepdims=True)
    np.testing.assert_allclose(apply(fusion, small.pages), expected, atol=1e-5)


# --- shuffled layers


def inner_only(probes):
    """A fusion of layer 1 alone, whatever the final layer says."""
    fusion = build_fusion(
        probes, (1, 4), FusionConfig(inner_weight=1.0), MaskOptions(mask="none"), np.random.default_rng(0)
    )
    with torch.no_grad():
        fusion.layer_weights[-1] = 1e-6
    return fusion


def test_shuffled_layers_carry_nothing(small):
    fusion = inner_only(make_probes((1, 4)))
    ordered, shuffled = (ndcg_of(system, small).mean() for system in (fusion, ShuffledLayers(fusion, 3)))
    assert ordered > 0.3 and shuffled < 0.2  # a random order of 50 pages has 0.06


def test_shuffled_layers_carry_nothing_where_queries_and_pages_share_their_rows(small):
    even = retrieval_data(small.queries, small.pages[:40])
    fusion = inner_only(make_probes((1, 4)))
    ordered, shuffled = (ndcg_of(system, even).mean() for system in (fusion, ShuffledLayers(fusion, 3)))
    assert ordered > 0.3 and shuffled < 0.2


def test_shuffled_layers_leave_the_final_layer_and_are_the_same_in_each_run(small):
    fusion = build_fusion(
        make_probes((1, 4)), (1, 4), FusionConfig(inner_weight=0.0), MaskOptions(), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(encode(ShuffledLayers(fusion, 3), small)[1], encode(fusion, small)[1])
    with torch.no_grad():
        fusion.layer_weights.fill_(1.0)
    first, again, other = (encode(ShuffledLayers(fusion, seed), small)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


# --- query-specific


@pytest.fixture
def fitted(small):
    probes = make_probes()
    start = build_fusion(probes, probes.selected, FusionConfig(), MaskOptions(), np.random.default_rng(0))
    return train(start, small, small, QUICK).system


def test_query_specific_starts_as_the_fusion_and_leaves_pages_alone(small, fitted):
    variant = query_specific(fitted)
    for vectors, expected in zip(encode(variant, small), encode(fitted, small), strict=True):
        assert vectors.tobytes() == expected.tobytes()
    assert fitted.query_map is None
    assert variant.n_trained == 4 * 16
    trained = train(variant, small, small, replace(QUICK, weight_learning_rate=0.1, patience=3)).system
    with torch.no_grad():
        if not trained.query_map.any():  # training need not help
            trained.query_map.normal_(generator=torch.Generator().manual_seed(0))
    queries, pages = encode(trained, small)
    assert pages.tobytes() == encode(fitted, small)[1].tobytes()
    assert np.abs(queries - encode(fitted, small)[0]).max() > 0
    for name, tensor in fitted.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor), name


def test_query_specific_learns(small, fitted, monkeypatch):
    rising = iter(range(100))
    # the last epoch is kept
    monkeypatch.setattr("miner_diag.fusion.training.ndcg_of", lambda *args: np.array([float(next(rising))]))
    trained = train(query_specific(fitted), small, small, replace(QUICK, weight_learning_rate=0.1))
    assert trained.system.query_map.abs().max() > 0.01 and trained.loss[-1] < trained.loss[0]


# --- bad input


def test_the_final_layer_alone_is_nothing_to_fuse(listed):
    with pytest.raises(FusionError, match="the selected layers are the final one, 4, only: there is nothing to fuse"):
        listed(selected=(4,))


def test_single_probes_are_not_trained():
    assert SingleProbe(make_probes().stack.probe(2, "base"), 5).n_trained == 0
    assert Fusion.identity(5, 16).n_trained == 0
