"""MINER's form: its equation by a slow loop, its merged form, what is trained, and its files."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from miner_diag.fusion import Fusion, FusionError, FusionTrainOptions, apply, encode, train
from miner_diag.fusion import training as training_module
from miner_diag.fusion.miner import MergedMiner, MinerFusion
from tests.damage import seal_again
from tests.fusion.helpers import KEY, L, content_of

NORM = "normalized_projection"
K_KINDS = [("base", "base", "base"), (NORM, NORM, "base"), ("base", NORM, "base"), (NORM, "base", NORM)]
QUICK = FusionTrainOptions(epochs=4, batch_size=5, negatives=0, hard_negatives=5, weight_learning_rate=3e-2, patience=4)
LAYERS = (1, 3, 4)


def make_fusion(
    kinds=("base", NORM, "base"), *, sides=1, width=16, scalar=False, gates=True, seed=0, layers=LAYERS, **how
):
    """Any fusion: half of the neurons masked, other numbers drawn."""
    rng = np.random.default_rng(seed)
    n = len(layers)
    maps = rng.normal(size=(n, sides, width, width))
    maps /= np.linalg.norm(maps, axis=-1, keepdims=True)
    return MinerFusion(
        layers,
        kinds,
        rng.normal(size=(n, sides, width)) if gates else np.ones((n, sides, width)),
        [None if kind == "base" else matrix for kind, matrix in zip(kinds, maps, strict=True)],
        rng.permuted(np.arange(width) < width // 2 * np.ones((n, 1)), axis=1),
        rng.normal(size=(n, 1 if scalar else width)),
        0.2 * rng.normal(size=width),
        n_layers=L,
        **how,
    )


def arrays(fusion):
    return {name: tensor.double().numpy() for name, tensor in fusion.state_dict().items()}


def slow(fusion, vectors, side):
    """``e = normalize(sum_l u_l * h_l + b)``, one item and layer at a time, in float64."""
    held, number = arrays(fusion), 0 if fusion.gates.shape[1] == 1 or side == "query" else 1
    fused = []
    for item in vectors.astype(np.float64):
        if fusion.pages_only and side == "query":
            fused.append(item[-1] / np.linalg.norm(item[-1]))
            continue
        total, maps = held["bias"].copy(), iter(held["maps"])
        for place, layer in enumerate(fusion.layers):
            x = item[layer] / np.linalg.norm(item[layer]) if fusion.unit_input else item[layer]
            h = held["masks"][place] * held["gates"][place, number] * x
            if fusion.kinds[place] != "base":
                h = next(maps)[number] @ h
            total += held["layer_vectors"][place] * h
        fused.append(total / np.linalg.norm(total))
    return np.array(fused)


COMBINATIONS = list(product(K_KINDS, (1, 2), (True, False), (True, False), (True, False)))


@pytest.mark.parametrize(("kinds", "sides", "unit_input", "scalar", "pages_only"), COMBINATIONS)
def test_the_equation_and_its_merged_form(small, kinds, sides, unit_input, scalar, pages_only):
    fusion = make_fusion(kinds, sides=sides, scalar=scalar, unit_input=unit_input, pages_only=pages_only)
    merged = MergedMiner(fusion)
    for side, vectors in (("query", small.queries), ("page", small.pages)):
        whole, served = apply(fusion, vectors, side), apply(merged, vectors, side)
        np.testing.assert_allclose(whole, slow(fusion, vectors, side), atol=1e-6)
        np.testing.assert_allclose(served, whole, atol=1e-6)
        for width in (8, 4, 2):  # the first coordinates, made unit again
            one, other = (z[:, :width] / np.linalg.norm(z[:, :width], axis=1, keepdims=True) for z in (served, whole))
            np.testing.assert_allclose(one, other, atol=2e-5)


def test_sides_of_their_own_differ_and_shared_ones_do_not(small):
    for sides in (1, 2):
        fusion = make_fusion(sides=sides)
        query, page = (apply(fusion, small.pages, side) for side in ("query", "page"))
        assert (np.abs(query - page).max() > 0.1) == (sides == 2)


@pytest.mark.parametrize("kind", ["base", NORM])
def test_the_mask_is_over_what_goes_in(small, kind):
    """A masked neuron of a layer's state does not matter, to either kind; a kept one does."""
    fusion = make_fusion((kind, NORM, "base"), unit_input=False)
    mask, before = fusion.masks[0].numpy() > 0, apply(fusion, small.pages)
    for chosen, is_kept in ((~mask, False), (mask, True)):
        pages = small.pages.copy()
        pages[:, 1, chosen] += 5.0
        assert (np.abs(apply(fusion, pages) - before).max() > 0.01) == is_kept
        assert (np.abs(apply(MergedMiner(fusion), pages) - before).max() > 0.01) == is_kept
    if kind == NORM:  # and yet every coordinate of what comes out is there
        moved = pages - small.pages
        h = moved[0, 1] * (mask * fusion.gates[0, 0].numpy()) @ fusion.maps[0, 0].numpy().T
        assert (h != 0).all()


def test_x_at_unit_length_does_not_know_the_length_of_a_state(small):
    longer = small.pages * np.array([1, 7, 1, 0.1, 3], dtype=np.float32)[:, None]
    for unit_input in (True, False):
        fusion = make_fusion(unit_input=unit_input)
        differs = np.abs(apply(fusion, longer) - apply(fusion, small.pages)).max()
        assert differs < 1e-5 if unit_input else differs > 0.1


def test_layers_that_are_not_selected_are_not_read(small):
    pages = small.pages.copy()
    pages[:, [0, 2]] = np.nan
    np.testing.assert_array_equal(apply(make_fusion(), pages), apply(make_fusion(), small.pages))


# --- what serving costs


def by_hand(masks, kinds, sides=1, u=1.0):
    masks = np.array(masks, dtype=bool)
    n, width = masks.shape
    maps = [None if kind == "base" else np.tile(np.eye(width), (sides, 1, 1)) for kind in kinds]
    gates, vectors = np.ones((n, sides, width)), np.full((n, width), u)
    return MergedMiner(MinerFusion(tuple(range(n)), kinds, gates, maps, masks, vectors, np.zeros(width), n_layers=n))


@pytest.mark.parametrize("u", [1.0, 0.0])
def test_cost_by_hand(u):
    masks = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]]
    kinds = (NORM, "base", NORM, "base")
    merged = by_hand(masks, kinds, u=u)
    # the matrix has 4 rows and 2 + 1 kept neurons; base layers have 3 and 4; the bias is added, not multiplied
    assert merged.multiply_adds == 4 * (2 + 1) + 3 + 4 == 19
    assert merged.n_bytes == 4 * (4 * 3 + 7 + 4) == 92
    assert tuple(merged.matrix.shape) == (1, 4, 3)
    own = by_hand(masks, kinds, sides=2, u=u)
    assert own.multiply_adds == 19 and own.n_bytes == 4 * (2 * (4 * 3 + 7) + 4) == 168
    none = by_hand(masks[1:2] + masks[3:], ("base", "base"), u=u)
    assert none.multiply_adds == 7 and none.n_bytes == 4 * (7 + 4)


def test_the_merged_form_is_smaller_the_fewer_neurons_are_kept():
    kinds, rows = (NORM, "base"), [1, 1, 1, 1]
    costs = [by_hand([[1] * kept + [0] * (4 - kept), rows], kinds).multiply_adds for kept in (4, 3, 2, 1)]
    assert costs == [20, 16, 12, 8]


# --- what is trained


@pytest.fixture
def last_kept(monkeypatch):
    """Each epoch seems better than the one before, so the last one is kept."""
    rising = iter(range(10_000))
    monkeypatch.setattr(training_module, "ndcg_of", lambda *args: np.array([float(next(rising))]))


@pytest.mark.parametrize("kinds", K_KINDS)
@pytest.mark.parametrize("sides", [1, 2])
def test_only_u_and_b_are_trained(small, last_kept, kinds, sides):
    start = make_fusion(kinds, sides=sides)
    assert start.n_trained == (3 + 1) * 16  # (K + 1) D
    before, fitted = content_of(start), train(start, small, small, QUICK)
    after = content_of(fitted.system)
    assert fitted.best_epoch == 4 and fitted.loss[-1] < fitted.loss[0]
    assert {name for name in before if before[name] != after[name]} == {"layer_vectors", "bias"}
    assert set(before) == {"layer_vectors", "bias", "gates", "masks", "maps"}
    assert content_of(start) == before  # a copy is trained


def test_a_training_that_was_stopped_ends_with_the_same_bytes(small, tmp_path, monkeypatch):
    start, calls, loss = make_fusion(), [], training_module.batch_loss
    finished = train(start, small, small, QUICK)

    def stopping(*args):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_module, "batch_loss", stopping)
        train(start, small, small, QUICK, state=tmp_path / "state.safetensors")
    resumed = train(start, small, small, QUICK, state=tmp_path / "state.safetensors")
    assert content_of(resumed.system) == content_of(finished.system) and resumed.loss == finished.loss


# --- files


@pytest.fixture
def saved(tmp_path):
    fusion = make_fusion(("base", NORM, NORM), sides=2, unit_input=False)
    fusion.save(tmp_path, KEY, corpus="planted")
    return fusion, tmp_path


@pytest.mark.parametrize("kinds", K_KINDS)
@pytest.mark.parametrize(("scalar", "unit_input", "pages_only"), [(False, True, False), (True, False, True)])
def test_comes_back_from_disk_bit_for_bit(small, tmp_path, kinds, scalar, unit_input, pages_only):
    fusion = make_fusion(kinds, scalar=scalar, unit_input=unit_input, pages_only=pages_only)
    fusion.save(tmp_path, KEY)
    loaded = MinerFusion.load(tmp_path, KEY)
    assert content_of(loaded) == content_of(fusion) and loaded.facts() == fusion.facts()
    for one, other in zip(encode(loaded, small), encode(fusion, small), strict=True):
        assert one.tobytes() == other.tobytes()
    assert loaded.n_trained == fusion.n_trained


def test_the_facts_say_what_it_is(saved):
    fusion, folder = saved
    facts = json.loads((folder / "fusion.json").read_text())
    assert facts["form"] == "miner" and facts["layers"] == [1, 3, 4] and facts["corpus"] == "planted"
    assert facts["kinds"] == ["base", NORM, NORM] and facts["kept_shares"] == [0.5] * 3
    np.testing.assert_allclose(facts["layer_weights"], np.sqrt((arrays(fusion)["layer_vectors"] ** 2).mean(axis=1)))


def test_another_backbone_and_the_other_form_are_refused(saved, tmp_path):
    _, folder = saved
    with pytest.raises(FusionError, match=r"of another backbone. Fields that differ: revision: '1' there, '2' "):
        MinerFusion.load(folder, {**KEY, "revision": "2"})
    with pytest.raises(FusionError, match="holds a fusion of the form miner, not trained_maps"):
        Fusion.load(folder, KEY)
    Fusion.identity(5, 16).save(tmp_path / "ours", KEY)
    with pytest.raises(FusionError, match="holds a fusion of the form trained_maps, not miner"):
        MinerFusion.load(tmp_path / "ours", KEY)


def test_damaged_files_are_refused(saved, tmp_path):
    _, folder = saved
    tensors, facts = folder / "fusion.safetensors", folder / "fusion.json"
    whole, text = tensors.read_bytes(), facts.read_text()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(FusionError, match="fusion.safetensors is not the file that fusion.json was written with; fit"):
        MinerFusion.load(folder)
    tensors.write_bytes(whole)
    facts.write_text(text.replace('"unit_input": false', '"unit_input": true'))
    with pytest.raises(FusionError, match="fusion.json was changed after it was written; fit again"):
        MinerFusion.load(folder)
    facts.write_text(text[:-20])
    with pytest.raises(FusionError, match="fusion.json is damaged"):
        MinerFusion.load(folder)
    tensors.unlink()
    with pytest.raises(FusionError, match=r"fusion.safetensors is not there; fit a fusion with python -m miner_diag"):
        MinerFusion.load(folder)


@pytest.mark.parametrize("field", ["unit_input", "pages_only"])
def test_a_fact_that_is_missing_is_an_error_of_the_file(saved, field):
    _, folder = saved
    facts = json.loads((folder / "fusion.json").read_text())
    del facts[field]
    seal_again(folder / "fusion.json", facts)
    with pytest.raises(FusionError, match=rf"holds no fusion: '{field}'"):
        MinerFusion.load(folder)


# --- what is refused

GOOD = {
    "layers": (1, 4),
    "kinds": ("base", "base"),
    "gates": np.ones((2, 1, 3)),
    "maps": (None, None),
    "masks": np.ones((2, 3)),
    "layer_vectors": np.ones((2, 3)),
    "bias": np.zeros(3),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": (1, 3)}, r"up to the final layer 4; got \[1, 3\]"),
        ({"layers": ()}, "layers"),
        (
            {"masks": np.full((2, 3), 0.5)},
            r"masks must be \[K, D\], true and false or exactly 1 and 0: .*; got the number 0.5",
        ),
        ({"masks": np.ones((3, 3))}, r"masks must be \[2, 3\]; got \[3, 3\]"),
        ({"layer_vectors": np.ones((2, 2))}, r"layer_vectors must be \[2, 3\]; got \[2, 2\]"),
        ({"layer_vectors": np.ones(2)}, r"layer_vectors must be \[2, 3\]; got \[2\]"),
        ({"bias": np.zeros(4)}, r"bias must be \[3\]; got \[4\]"),
        ({"gates": np.ones((2, 3, 3))}, r"gates must be \[2, 1, 3\]; got \[2, 3, 3\]"),
        ({"gates": np.full((2, 1, 3), np.nan)}, "gates"),
        ({"kinds": ("base",)}, "kinds and maps must be as many as layers, 2; got 1 and 2"),
        ({"kinds": (NORM, "base")}, "layer 1 of kind 'normalized_projection' must have a map unless it is base"),
        ({"kinds": ("magic", "base")}, "layer 1 of kind 'magic' must have a map unless it is base"),
        ({"maps": (np.ones((1, 3, 3)), None)}, "layer 1 of kind 'base' must have a map unless it is base"),
        (
            {"kinds": (NORM, "base"), "maps": (np.ones((2, 3, 3)), None)},
            r"the map of layer 1 must be \[1, 3, 3\]; got \[2, 3, 3\]",
        ),
        ({"kinds": (NORM, "base"), "maps": (np.full((1, 3, 3), np.inf), None)}, r"maps\[0\]"),
    ],
)
def test_bad_parts_are_named(changed, message):
    MinerFusion(**GOOD, n_layers=5)
    with pytest.raises(FusionError, match=message):
        MinerFusion(**{**GOOD, **changed}, n_layers=5)


def test_states_without_a_direction_and_unknown_sides_are_refused(small):
    pages = small.pages.copy()
    pages[3, 1] = 0.0
    for system in (make_fusion(), MergedMiner(make_fusion())):
        with pytest.raises(FusionError, match="item 3 is zero at layer 1, so it has no direction"):
            apply(system, pages)
        with pytest.raises(FusionError, match="side must be 'query' or 'page'; got 'both'"):
            apply(system, small.pages, "both")
        with pytest.raises(FusionError, match=r"layer_embeddings must be \[N, 5, 16\]; got \[50, 4, 16\]"):
            apply(system, small.pages[:, 1:])


def test_gradients_reach_u_and_b_alone(small):
    fusion = make_fusion()
    states = torch.from_numpy(small.pages[:, list(LAYERS)])
    fusion(states, "page").square().sum(dim=0)[0].backward()
    assert (fusion.layer_vectors.grad.abs().max(dim=1).values > 0).all() and fusion.bias.grad.abs().min() > 0
    assert fusion.maps.grad is None


def test_hard_negatives_are_what_it_is_trained_against(small, last_kept):
    """The option is not idle: other negatives, another fusion."""
    hard = train(make_fusion(), small, small, QUICK).system
    easy = train(make_fusion(), small, small, replace(QUICK, hard_negatives=0)).system
    assert content_of(hard) != content_of(easy)
