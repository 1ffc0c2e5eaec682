"""The module: it starts as the backbone, does what its formula says, and comes back from disk as it was."""

import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.fusion import (
    Fusion,
    FusionConfig,
    FusionError,
    MaskOptions,
    apply,
    build_fusion,
    encode,
    merge,
    projection_map,
)
from miner_diag.probes import Probe
from miner_diag.retrieval import score_all
from tests.fusion.helpers import ArrayStore, make_probes

KEY = {"model": "m", "revision": "abc", "pooling": "mean"}


@pytest.fixture
def states(rng):
    return (3.0 * rng.normal(size=(9, 5, 16))).astype(np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def built(layers=(0, 1, 3, 4), *, sides=1, mask="adaptive", seed=0, **config):
    config = {"inner_weight": 0.3} | config
    return build_fusion(
        make_probes(sides=sides), layers, FusionConfig(**config), MaskOptions(mask=mask), np.random.default_rng(seed)
    )


# --- identity


def test_the_identity_is_the_backbone(states):
    fusion = Fusion.identity(5, 16)
    for side in ("query", "page"):
        np.testing.assert_allclose(apply(fusion, states, side), unit(states[:, -1]), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in fusion.parameters())


@pytest.mark.parametrize("final", ["as_is", "gate", "projection"])
@pytest.mark.parametrize("mask", ["adaptive", "cumulative", "fixed", "random", "none"])
@pytest.mark.parametrize("layers", [(4,), (0, 1, 3, 4), (0, 1, 2, 3, 4)])
def test_before_training_a_fusion_is_the_backbone(small, layers, mask, final):
    fusion = built(layers, mask=mask, final=final, inner_weight=0.0)
    backbone = Fusion.identity(5, 16)
    embedded, raw = encode(fusion, small), encode(backbone, small)
    for vectors, of_backbone, states in zip(embedded, raw, (small.queries, small.pages), strict=True):
        np.testing.assert_allclose(vectors, unit(states[:, -1]), atol=1e-6)
        np.testing.assert_allclose(of_backbone, unit(states[:, -1]), atol=1e-6)
    ranked, plain = (np.argsort(-(queries @ pages.T), axis=1) for queries, pages in (embedded, raw))
    np.testing.assert_array_equal(ranked, plain)
    np.testing.assert_array_equal(plain, np.argsort(-score_all(small.queries[:, -1], small.pages[:, -1]), axis=1))


def test_with_weights_above_0_it_is_not(states):
    assert np.abs(apply(built(), states) - unit(states[:, -1])).max() > 0.01


# --- the formula


@pytest.mark.parametrize("sides", [1, 2])
def test_formula_in_float64(states, rng, sides):
    """e = normalize(sum_l a_l normalize(m_l * M_l h_l) + b)."""
    fusion = built(sides=sides)
    with torch.no_grad():
        fusion.bias.copy_(torch.from_numpy(0.1 * rng.normal(size=16)))
    for number, side in enumerate(("query", "page")):
        total = fusion.bias.detach().double().numpy()[None]
        for part, layer in enumerate(fusion.layers):
            matrix = fusion.maps[part].detach().double().numpy()[number % sides]
            z = states[:, layer] * matrix if matrix.ndim == 1 else states[:, layer] @ matrix.T
            kept = z * (fusion.masks[part].numpy() > 0)
            total = total + fusion.layer_weights[part].item() * unit(kept)
        np.testing.assert_allclose(apply(fusion, states, side), unit(total), atol=2e-6)


def test_the_length_of_a_state_does_not_matter(states):
    fusion = built()
    scale = np.array([0.01, 1, 30, 5, 2], dtype=np.float32)[None, :, None]
    np.testing.assert_allclose(apply(fusion, scale * states), apply(fusion, states), atol=1e-6)


def test_items_do_not_see_each_other(states):
    fusion = built()
    np.testing.assert_allclose(apply(fusion, states[[4]]), apply(fusion, states)[[4]], atol=1e-6)


def test_masked_neurons_get_nothing_from_their_layer(states):
    fusion = built((0, 4), mask="fixed")
    with torch.no_grad():
        fusion.layer_weights[1] = 0.0  # the inner layer alone
    dropped = fusion.masks[0].numpy() == 0
    assert dropped.sum() == 8
    assert (apply(fusion, states)[:, dropped] == 0).all()


@pytest.mark.parametrize("sides", [1, 2])
def test_projection_map_is_the_probe(rng, states, sides):
    probe = Probe(1, "normalized_projection", rng.normal(size=(sides, 16, 16)).astype(np.float32))
    shifted = states[:, 1] + 5.0  # a mean that LayerNorm takes out
    for number, side in enumerate(("query", "page")):
        mapped = unit(shifted.astype(np.float64) @ projection_map(probe)[number % sides].T.astype(np.float64))
        np.testing.assert_allclose(mapped, probe.apply(shifted, side), atol=1e-5)


@pytest.mark.parametrize("kind", ["base", "normalized_projection"])
def test_one_layer_of_a_fusion_is_its_probe(states, kind):
    probes = make_probes(kinds=(kind,) * 5)
    fusion = build_fusion(
        probes, (1, 4), FusionConfig(inner_weight=1.0), MaskOptions(mask="none"), np.random.default_rng(0)
    )
    with torch.no_grad():
        fusion.layer_weights[1] = 0.0
    np.testing.assert_allclose(apply(fusion, states), probes.stack.probe(1, kind).apply(states[:, 1]), atol=1e-5)


def test_query_map_moves_the_weights_of_queries_by_hand(states, rng):
    plain = built()
    maps = [matrix.detach().numpy() for matrix in plain.maps]
    parts = plain.masks.numpy(), plain.layer_weights.detach().numpy(), plain.bias.detach().numpy()
    turn = 0.5 * rng.normal(size=(4, 16))
    asking = Fusion(plain.layers, plain.kinds, maps, *parts, n_layers=5, query_map=turn)
    np.testing.assert_array_equal(apply(asking, states, "page"), apply(plain, states, "page"))
    for row in range(3):
        weights = parts[1] + turn @ unit(states[row, -1])
        moved = Fusion(plain.layers, plain.kinds, maps, parts[0], weights, parts[2], n_layers=5)
        np.testing.assert_allclose(
            apply(asking, states[[row]], "query"), apply(moved, states[[row]], "query"), atol=1e-5
        )


def test_parameters_are_grouped_by_how_fast_they_learn():
    fusion = built((0, 1, 4))  # base, projection, projection of the final layer
    groups = fusion.groups()
    assert [tuple(p.shape) for p in groups["maps"]] == [(1, 16, 16)] * 2
    assert sorted(tuple(p.shape) for p in groups["weights"]) == [(1, 16), (3,), (16,)]
    frozen = built((0, 1, 4), train_probes=False, bias=False, final="as_is")
    assert [tuple(p.shape) for p in frozen.groups()["weights"]] == [(3,)] and not frozen.groups()["maps"]


# --- one way to apply


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("form", ["fusion", "merged"])
def test_tensors_get_what_arrays_get(states, sides, form):
    system = built(sides=sides) if form == "fusion" else merge(built(sides=sides))
    for side in ("query", "page"):
        of_array, of_tensor = apply(system, states, side), apply(system, torch.from_numpy(states), side)
        assert isinstance(of_array, np.ndarray) and isinstance(of_tensor, torch.Tensor)
        assert of_array.dtype == np.float32 and of_tensor.dtype == torch.float32
        assert of_array.tobytes() == of_tensor.detach().numpy().tobytes()


def test_gradients_pass_through_tensors_alone(states):
    fusion = built()
    apply(fusion, torch.from_numpy(states)).sum().backward()
    assert fusion.layer_weights.grad is not None and not isinstance(apply(fusion, states), torch.Tensor)


def test_half_precision_is_read_as_single(states):
    fusion, half = built(), states.astype(np.float16)
    expected = apply(fusion, half.astype(np.float32))
    np.testing.assert_array_equal(apply(fusion, half), expected)
    np.testing.assert_array_equal(apply(fusion, torch.from_numpy(half)).detach().numpy(), expected)


@pytest.mark.parametrize("form", ["fusion", "merged"])
def test_encode_is_apply_on_both_sides_whatever_the_block_and_the_store(small, monkeypatch, form):
    system = built(sides=2) if form == "fusion" else merge(built(sides=2))
    expected = apply(system, small.queries, "query"), apply(system, small.pages, "page")
    on_disk = replace(small, queries=ArrayStore(small.queries), pages=ArrayStore(small.pages))
    for data in (small, on_disk):
        for vectors, wanted in zip(encode(system, data), expected, strict=True):
            assert vectors.tobytes() == wanted.tobytes()
    monkeypatch.setattr("miner_diag.fusion.system._BLOCK", 7)
    for vectors, wanted in zip(encode(system, on_disk), expected, strict=True):
        np.testing.assert_allclose(vectors, wanted, atol=1e-6)


def test_data_of_another_backbone_and_unknown_sides_are_refused(small, states):
    with pytest.raises(FusionError, match=r"layer_embeddings must be \[N, 4, 16\]; got \[50, 5, 16\]"):
        encode(Fusion.identity(4, 16), small)
    with pytest.raises(FusionError, match="side must be 'query' or 'page'; got 'left'"):
        apply(built(), states, "left")
    with pytest.raises(FusionError, match=r"layer_embeddings must be \[N, 5, 16\]; got \[5, 16\]"):
        apply(built(), states[0])


# --- files


@pytest.mark.parametrize("sides", [1, 2])
def test_comes_back_from_disk_as_it_was(states, tmp_path, sides):
    fusion = built(sides=sides)
    fusion.save(tmp_path / "a", KEY, corpus="planted")
    again = Fusion.load(tmp_path / "a", KEY)
    for side in ("query", "page"):
        assert apply(again, states, side).tobytes() == apply(fusion, states, side).tobytes()
    again.save(tmp_path / "b", KEY, corpus="planted")
    for name in ("fusion.safetensors", "fusion.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"fusion.safetensors", "fusion.json"}


def test_the_query_map_comes_back_too(states, tmp_path, rng):
    fusion = built()
    fusion.query_map = torch.nn.Parameter(torch.from_numpy(rng.normal(size=(4, 16)).astype(np.float32)))
    fusion.save(tmp_path, KEY)
    again = Fusion.load(tmp_path)
    assert apply(again, states, "query").tobytes() == apply(fusion, states, "query").tobytes()


def test_the_facts_are_those_of_the_fusion(tmp_path):
    fusion = built()
    fusion.save(tmp_path, KEY, corpus="planted", fold=3)
    facts = json.loads((tmp_path / "fusion.json").read_text())
    assert facts["backbone"] == KEY and (facts["corpus"], facts["fold"]) == ("planted", 3)
    assert (facts["layers"], facts["n_layers"], facts["width"]) == ([0, 1, 3, 4], 5, 16)
    assert facts["kinds"] == list(fusion.kinds)
    assert facts["kept_shares"] == pytest.approx(fusion.masks.numpy().mean(axis=1).tolist())
    assert facts["layer_weights"] == pytest.approx([0.1, 0.1, 0.1, 1.0])  # 0.3 for three
    assert math.isclose(facts["kept_shares"][-1], 1.0)


def test_another_backbone_is_refused_and_the_fields_named(tmp_path):
    built().save(tmp_path, KEY)
    other = {"model": "m", "revision": "xyz", "dtype": "bfloat16", "pooling": "mean"}
    with pytest.raises(FusionError) as refused:
        Fusion.load(tmp_path, other)
    facts = str(refused.value)
    assert "another backbone. Fields that differ: dtype: None there, 'bfloat16' asked for; " in facts
    assert "revision: 'abc' there, 'xyz' asked for" in facts and "pooling" not in facts and "model:" not in facts
    Fusion.load(tmp_path)  # not checked where nothing is asked


def test_another_width_or_depth_is_refused(states):
    fusion = built()
    with pytest.raises(FusionError, match=r"layer_embeddings must be \[N, 5, 16\]; got \[9, 5, 12\]"):
        apply(fusion, states[:, :, :12])
    with pytest.raises(FusionError, match=r"layer_embeddings must be \[N, 5, 16\]; got \[9, 4, 16\]"):
        apply(fusion, states[:, :4])


@pytest.mark.parametrize("name", ["fusion.safetensors", "fusion.json"])
def test_a_missing_file_says_what_to_do(tmp_path, name):
    built().save(tmp_path, KEY)
    (tmp_path / name).unlink()
    with pytest.raises(FusionError, match=rf"{name} is not there; fit a fusion with python -m miner_diag.fusion"):
        Fusion.load(tmp_path)


def test_damaged_and_swapped_files_are_refused(tmp_path):
    built().save(tmp_path / "a", KEY)
    built(inner_weight=0.5).save(tmp_path / "b", KEY)
    content = (tmp_path / "a" / "fusion.safetensors").read_bytes()
    shutil.copy(tmp_path / "b" / "fusion.safetensors", tmp_path / "a" / "fusion.safetensors")
    with pytest.raises(FusionError, match="is not the file that fusion.json was written with; fit again"):
        Fusion.load(tmp_path / "a")
    (tmp_path / "a" / "fusion.safetensors").write_bytes(content[:-4])
    with pytest.raises(FusionError, match="is not the file that fusion.json was written with"):
        Fusion.load(tmp_path / "a")
    for text in ("{", "[]", '"text"', "{}"):
        (tmp_path / "b" / "fusion.json").write_text(text)
        with pytest.raises(FusionError, match=r"fusion.json is damaged.*; fit again"):
            Fusion.load(tmp_path / "b")


@pytest.mark.parametrize(
    "key",
    ["backbone", "layers", "n_layers", "format", "sha256", "kinds"],
)
def test_a_fact_that_is_missing_is_an_error_of_the_file(tmp_path, key):
    built().save(tmp_path, KEY)
    facts = json.loads((tmp_path / "fusion.json").read_text())
    del facts[key]
    (tmp_path / "fusion.json").write_text(json.dumps(facts))
    with pytest.raises(FusionError, match="fit again"):
        Fusion.load(tmp_path)


def test_another_format_is_refused(tmp_path):
    built().save(tmp_path, KEY)
    facts = json.loads((tmp_path / "fusion.json").read_text())
    (tmp_path / "fusion.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(FusionError, match="has fusion format 99, this version reads 1 and 2; fit again"):
        Fusion.load(tmp_path)


def test_the_first_format_is_still_read(states, tmp_path):
    """It differs in nothing but the hash of the facts, which it lacks."""
    fusion = built()
    fusion.save(tmp_path, KEY)
    facts = json.loads((tmp_path / "fusion.json").read_text())
    del facts["facts_sha256"]
    (tmp_path / "fusion.json").write_text(json.dumps(facts | {"format": 1}))
    assert apply(Fusion.load(tmp_path, KEY), states).tobytes() == apply(fusion, states).tobytes()


@pytest.mark.parametrize("changed", [{"layers": [0, 2, 3, 4]}, {"kinds": ["base"] * 4}, {"backbone": {"model": "n"}}])
def test_facts_that_were_changed_are_refused(tmp_path, changed):
    built().save(tmp_path, KEY)
    facts = json.loads((tmp_path / "fusion.json").read_text())
    (tmp_path / "fusion.json").write_text(json.dumps(facts | changed))
    with pytest.raises(FusionError, match=r"fusion.json was changed after it was written; fit again"):
        Fusion.load(tmp_path)


def test_the_hash_of_the_facts_is_over_all_of_them(tmp_path):
    built().save(tmp_path, KEY, corpus="planted")
    facts = json.loads((tmp_path / "fusion.json").read_text())
    digest = facts.pop("facts_sha256")
    assert digest == sha256_bytes(canonical_json(facts).encode())


def test_numbers_that_are_not_finite_are_not_saved(tmp_path):
    fusion = built()
    with pytest.raises(ValueError, match="JSON"):
        fusion.save(tmp_path, KEY, score=float("nan"))
    assert not (tmp_path / "fusion.json").exists()


# --- bad input


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "layers must hold at least the final layer; got none. Select layers with miner_diag.probes"),
        ((0, 1, 2, 3, 4, 4), "layers must be at most 5, as many as the backbone has; got 6"),
        ((0, 1), r"up to the final layer 4; got \[0, 1\]"),
        ((3, 1, 4), r"must rise, each once, up to the final layer 4; got \[3, 1, 4\]"),
        ((1, 1, 4), "must rise, each once"),
        ((-1, 4), "must rise, each once"),
        ((1, 5), "up to the final layer 4"),
    ],
)
def test_layers_that_cannot_be_fused_are_named(layers, message):
    with pytest.raises(FusionError, match=message):
        build_fusion(make_probes(), layers, FusionConfig(), MaskOptions(), np.random.default_rng(0))


ONES = np.ones((1, 4))
PARTS = {
    "kinds": ["base", "base"],
    "maps": [ONES, ONES],
    "masks": np.ones((2, 4), bool),
    "layer_weights": np.ones(2),
    "bias": np.zeros(4),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kinds": ["base"]}, "must be as many; got 2 layers"),
        ({"masks": np.ones((3, 4), bool)}, "must be as many"),
        ({"layer_weights": np.ones(1)}, "must be as many"),
        ({"maps": [ONES, np.ones((1, 5))]}, r"a map of kind 'base' must be \[S, 4\] .*; got \[1, 5\]"),
        ({"kinds": ["normalized_projection", "base"]}, r"got \[1, 4\]"),
        ({"kinds": ["linear", "base"]}, "kind 'linear'"),
        ({"bias": np.zeros(5)}, "bias"),
        ({"query_map": np.zeros((3, 4))}, "query_map"),
    ],
)
def test_parts_that_do_not_fit_are_named(changed, message):
    with pytest.raises(FusionError, match=message):
        Fusion([0, 3], **(PARTS | changed), n_layers=4)


def test_a_shape_that_is_none_is_named():
    with pytest.raises(ValueError, match="final must be as_is, gate or projection; got 'linear'"):
        FusionConfig(final="linear")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": "random"}, "start must be identity or whitened; got 'random'"),
        ({"shrinkage": 0.0}, "shrinkage must be above 0 and at most 1; got 0.0"),
    ],
)
def test_a_start_that_is_none_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        FusionConfig(**wrong)


def test_a_higher_score_keeps_more_neurons():
    probes = make_probes(selected=(0, 1, 2, 3, 4))
    fusion = build_fusion(probes, probes.selected, FusionConfig(), MaskOptions(), np.random.default_rng(0))
    chosen = [probes.scores[0 if kind == "base" else 1, layer] for layer, kind in enumerate(probes.kinds)]
    kept = fusion.masks.sum(dim=1).tolist()
    order = np.argsort(chosen[:-1])
    assert all(kept[low] <= kept[high] for low, high in pairwise(order))
    assert kept[-1] == 16
