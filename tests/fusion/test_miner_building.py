"""From layers to MINER's fusion: it starts as the backbone, its masks are Top-P's, and errors have names."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from miner_diag.fusion import FusionError, FusionTrainOptions, apply, encode, train
from miner_diag.fusion.miner import MergedMiner
from miner_diag.fusion.miner_building import MinerOptions, build_miner, fit_miner_parts
from miner_diag.fusion.top_p import TopPOptions, adaptive_etas, top_p_mask
from miner_diag.probes import ProbeError
from miner_diag.probes.gate_probes import GateProbeOptions
from miner_diag.probes.layer_choice import LayerChoiceOptions, choose_layers
from tests.fusion.helpers import MINER_KINDS, make_miner

NORM = "normalized_projection"
SIDES = ("shared", "pages", "per_side")
OPTIONS = MinerOptions(
    LayerChoiceOptions(select="closest", n_closest=2), GateProbeOptions(epochs=2, hard_negatives=4, batch_size=20)
)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- the start


@pytest.mark.parametrize(
    ("kinds", "sides", "gate_inside", "unit_input"),
    list(product([("base",) * 5, (NORM,) * 4 + ("base",), MINER_KINDS], SIDES, (True, False), (True, False))),
)
def test_it_starts_as_the_backbone(small, kinds, sides, gate_inside, unit_input):
    parts = make_miner((0, 1, 3, 4), kinds=kinds, sides=sides, gate_inside=gate_inside, unit_input=unit_input)
    fusion = build_miner(parts)
    for system in (fusion, MergedMiner(fusion)):
        for side, vectors in (("query", small.queries), ("page", small.pages)):
            np.testing.assert_allclose(apply(system, vectors, side), unit(vectors[:, -1]), atol=1e-6)


def test_the_start_does_not_hang_on_what_inner_layers_hold_and_training_does(small):
    pages = small.pages.copy()
    pages[:, [0, 1, 3]] *= -3.0
    fusion = build_miner(make_miner((0, 1, 3, 4)))
    np.testing.assert_allclose(apply(fusion, pages), apply(fusion, small.pages), atol=1e-6)
    trained = train(fusion, small, small, FusionTrainOptions(epochs=3, batch_size=5, patience=3)).system
    assert trained.layer_vectors[:-1].abs().max() > 0.01
    assert np.abs(apply(trained, pages) - apply(trained, small.pages)).max() > 1e-3  # the negative control


# --- masks


@pytest.mark.parametrize("sides", ["shared", "per_side"])
def test_masks_are_top_p_of_the_gates_and_the_final_layer_is_whole(sides):
    parts = make_miner((0, 1, 3, 4), sides=sides, scores=[0.2, 0.5, 0.1, 0.35], mask=TopPOptions(0.4, 0.8, floor=2))
    fusion, probes = build_miner(parts), parts.probes
    etas = [0.4 + 0.4 * part for part in (0.0, 1.0, 0.5)]  # scores 0.2, 0.5, 0.35 of layers 0, 1, 3
    for place, (layer, eta) in enumerate(zip((0, 1, 3), etas, strict=True)):
        saliency = np.abs(probes.gates[layer]).max(axis=0)
        np.testing.assert_array_equal(fusion.masks[place].numpy() > 0, top_p_mask(saliency, eta, 2))
    assert (fusion.masks[-1] == 1).all()
    table = parts.masks(parts.layers)
    assert list(table.columns) == ["layer", "kind", "score", "eta", "kept", "share"]
    assert table["layer"].tolist() == [0, 1, 3, 4]
    assert table["kind"].tolist() == ["base", NORM, NORM, "base"]
    np.testing.assert_allclose(table["eta"][:3], etas)
    np.testing.assert_allclose(table["score"][:3], [0.2, 0.5, 0.35])
    assert table["kept"].tolist() == fusion.masks.sum(dim=1).tolist() and table["kept"].iloc[-1] == 16
    np.testing.assert_allclose(table["share"], table["kept"] / 16)
    assert table[["score", "eta"]].iloc[-1].isna().all()


def test_a_larger_share_or_floor_keeps_more():
    def kept(**mask):
        return build_miner(make_miner((0, 1, 3, 4), mask=TopPOptions(**mask))).masks.sum(dim=1).numpy()

    few, more, most = (
        kept(least_eta=least, most_eta=most, floor=1) for least, most in ((0.1, 0.2), (0.4, 0.6), (1.0, 1.0))
    )
    assert (few <= more).all() and few.sum() < more.sum() < most.sum() == 4 * 16
    floor = kept(least_eta=0.1, most_eta=0.2, floor=9)
    assert (floor == [9, 9, 9, 16]).all()
    assert (kept(least_eta=0.1, most_eta=0.2, floor=99) == 16).all()


def test_the_gate_stays_inside_where_it_is_asked_for():
    for gate_inside in (False, True):
        parts = make_miner((1, 3, 4), gate_inside=gate_inside)
        fusion = build_miner(parts)
        for place, layer in enumerate((1, 3)):
            expected = parts.probes.gates[layer] if gate_inside else np.ones((1, 16))
            np.testing.assert_array_equal(fusion.gates[place].numpy(), expected)
        assert (fusion.gates[-1] == 1).all()


def test_maps_and_masks_are_those_of_the_probes_and_stay_so_in_training(small):
    parts = make_miner((0, 1, 3, 4))
    fusion = build_miner(parts)
    fitted = train(fusion, small, small, FusionTrainOptions(epochs=2, batch_size=5, weight_learning_rate=0.1)).system
    for system in (fusion, fitted):
        for row, layer in enumerate((1, 3)):
            np.testing.assert_array_equal(system.maps[row].detach().numpy(), parts.probes.maps[layer])
        np.testing.assert_array_equal(system.masks.numpy(), fusion.masks.numpy())
    assert fusion.n_trained == (4 + 1) * 16


def test_a_layer_whose_gate_is_all_zero_is_named():
    parts = make_miner((0, 1, 3, 4))
    parts.probes.gates[3] = 0.0
    for build in (build_miner, lambda parts: parts.masks(parts.layers)):
        with pytest.raises(
            FusionError, match="layer 3: all neurons have saliency 0, so Top-P cannot say which to keep"
        ):
            build(parts)


def test_other_layers_may_be_fused_and_need_their_probes():
    parts = make_miner((1, 4), probed=(1, 2))
    assert build_miner(parts, (2, 4)).layers == (2, 4)
    alone = build_miner(parts, (4,))
    assert alone.layers == (4,) and alone.n_trained == 2 * 16
    with pytest.raises(ProbeError, match="no base probe of layer 0 was fitted"):
        build_miner(parts, (0, 1, 4))


# --- fitting the parts


@pytest.mark.parametrize("sides", SIDES)
def test_parts_are_selected_typed_and_fitted(small, sides):
    parts = fit_miner_parts(small, small, replace(OPTIONS, probes=replace(OPTIONS.probes, sides=sides)))
    choice = choose_layers(small, OPTIONS.choice)
    assert parts.layers == choice.layers and len(parts.layers) == 3
    assert parts.probes.layers == parts.layers[:-1]
    assert parts.probes.kinds == tuple(choice.kinds[layer] for layer in parts.layers[:-1])
    fusion = build_miner(parts)
    assert fusion.kinds == (*parts.probes.kinds, "base") and fusion.pages_only == (sides == "pages")
    assert fusion.gates.shape[1] == (2 if sides == "per_side" else 1)
    etas = adaptive_etas(parts.probes.scores, OPTIONS.mask)
    np.testing.assert_allclose(parts.masks(parts.layers)["eta"][:2], etas)
    for vectors, raw in zip(encode(fusion, small), (small.queries, small.pages), strict=True):
        np.testing.assert_allclose(vectors, unit(raw[:, -1]), atol=1e-6)


def test_named_layers_are_taken_and_more_are_only_probed(small):
    parts = fit_miner_parts(small, small, OPTIONS, layers=(1, 4), more_layers=(0, 3, 4))
    assert parts.layers == (1, 4) and parts.probes.layers == (0, 1, 3)
    alone = fit_miner_parts(small, small, OPTIONS, layers=(1, 4))
    one, other = build_miner(parts), build_miner(alone)
    np.testing.assert_allclose(one.maps.detach(), other.maps.detach(), atol=1e-6)  # whatever is fitted beside it
    np.testing.assert_array_equal(one.masks, other.masks)


def test_selection_reads_the_training_split_alone(small):
    """Validation decides the epochs of the probes; its vectors and answers have no say in layers and kinds."""
    poisoned = replace(small, queries=np.full_like(small.queries, np.nan), pages=np.full_like(small.pages, np.nan))
    with pytest.raises(ValueError, match="nan"):
        fit_miner_parts(small, poisoned, OPTIONS)  # it is read, by the probes
    other = small.shuffled(np.random.default_rng(3))
    assert fit_miner_parts(small, other, OPTIONS).choice == fit_miner_parts(small, small, OPTIONS).choice
    with pytest.raises(ValueError):
        fit_miner_parts(poisoned, small, OPTIONS)


def test_an_empty_selection_is_a_sentence(small):
    with pytest.raises(ProbeError, match=r"no inner layer has a normalized CKA \(plain\) of at least 0.99 \(run; the"):
        fit_miner_parts(small, small, replace(OPTIONS, choice=LayerChoiceOptions(least_cka=0.99)))


def test_fewer_pages_than_negatives_is_a_sentence(small):
    options = replace(OPTIONS, probes=replace(OPTIONS.probes, hard_negatives=50))
    with pytest.raises(ProbeError, match="50 hard negatives a query need more than 50 training pages; there are 50"):
        fit_miner_parts(small, small, options)
