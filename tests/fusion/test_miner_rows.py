"""MINER's form with one thing switched at a time: each row differs from it in that thing alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from miner_diag.fusion import FusionTrainOptions, apply, chosen_rows, encode, ndcg_of, train
from miner_diag.fusion import training as training_module
from miner_diag.fusion.masks import adaptive_shares, neuron_mask
from miner_diag.fusion.miner_rows import DIFFERENCES, output_salience
from miner_diag.fusion.rows import MINER_TRAINING, ROWS
from tests.fusion.helpers import make_miner, materials_of

QUICK = FusionTrainOptions(epochs=2, batch_size=10, learning_rate=1e-2, weight_learning_rate=3e-2, patience=2)
BUILT = {row.name: row for row in ROWS if row.name.startswith("miner") or row.name == "final_layer_vector"}
CHANGED = {
    "miner_our_probes": {"maps"},
    "miner_our_mask": {"maps", "masks"},
    "miner_scalar_weights": {"layer_vectors"},
    "miner_trained_maps": set(),
    "miner_random_negatives": set(),
}
"""Tensors that differ from those of miner before training."""


@pytest.fixture
def materials(small):
    return replace(materials_of(small), miner=make_miner((1, 2, 3, 4)))


def build(name, materials):
    return BUILT[name].build(materials, np.random.default_rng(0))


def test_every_difference_is_a_row_with_the_negatives_of_miner():
    assert {difference.name for difference in DIFFERENCES} | {"miner", "final_layer_vector"} == set(BUILT)
    for name, row in BUILT.items():
        assert dict(row.training) == ({} if name == "miner_random_negatives" else dict(MINER_TRAINING)), name
    assert MINER_TRAINING == {"negatives": 0, "hard_negatives": 16}
    assert {row.name for row in chosen_rows()} & set(BUILT) == {"miner", "final_layer_vector"}


@pytest.mark.parametrize("name", CHANGED)
def test_it_differs_from_miner_in_one_thing(materials, name):
    miner, switched = build("miner", materials), build(name, materials)
    before, after = miner.state_dict(), switched.state_dict()
    assert {part for part in before if not torch.equal(before[part], after[part])} == CHANGED[name]
    assert (switched.layers, switched.kinds, switched.facts()) == (miner.layers, miner.kinds, miner.facts())


@pytest.mark.parametrize("name", sorted(set(BUILT) - {"miner_whitened"}))
def test_it_starts_as_the_backbone(materials, small, name):
    raw = small.pages[:, -1] / np.linalg.norm(small.pages[:, -1], axis=1, keepdims=True)
    np.testing.assert_allclose(apply(build(name, materials), small.pages), raw, atol=1e-6)


def test_what_each_trains(materials):
    n, width = 4, 16
    counts = {name: build(name, materials).n_trained for name in BUILT}
    whole = (n + 1) * width
    assert counts == {
        "miner": whole,
        "final_layer_vector": 2 * width,
        "miner_our_layers": whole,  # four layers, too
        "miner_our_probes": whole,
        "miner_our_mask": whole,
        "miner_scalar_weights": n + width,
        "miner_trained_maps": whole + 2 * width * width,
        "miner_whitened": whole,
        "miner_random_negatives": whole,
    }
    groups = build("miner_trained_maps", materials).groups()
    assert [part.shape for part in groups["maps"]] == [(2, 1, width, width)] and len(groups["weights"]) == 2
    assert not build("miner", materials).groups()["maps"]


def test_maps_are_trained_only_where_they_are_switched_on(materials, small, monkeypatch):
    rising = iter(range(1000))
    monkeypatch.setattr(training_module, "ndcg_of", lambda *args: np.array([float(next(rising))]))  # the last is kept
    for name in ("miner", "miner_trained_maps", "miner_whitened"):
        start = build(name, materials)
        fitted = train(start, small, small, QUICK).system
        assert torch.equal(fitted.maps, start.maps) == (name != "miner_trained_maps"), name
        assert not torch.equal(fitted.bias, start.bias)


def test_our_layers_are_those_of_the_probes_and_our_selection(materials):
    assert build("miner_our_layers", materials).layers == materials.layers == (0, 1, 3, 4)
    assert build("final_layer_vector", materials).layers == (4,)


def test_our_probes_are_in_place_of_the_maps(materials, small):
    """Without mask and gate, what a norm layer gives is in the direction of our projection."""
    fusion = build("miner_our_probes", materials)
    with torch.no_grad():
        fusion.masks.fill_(1)
        fusion.layer_vectors.zero_()
        fusion.layer_vectors[0] = 1.0  # layer 1 alone
    probe = materials.probes.stack.probe(1, "normalized_projection")
    np.testing.assert_allclose(apply(fusion, small.pages), probe.apply(small.pages[:, 1]), atol=1e-5)
    lengths = fusion.maps.detach().square().sum(dim=-1)
    assert lengths.std() > 0.01  # rows need not be at unit length
    np.testing.assert_allclose(lengths.mean(dim=-1), 1, atol=1e-5)  # but are on average


def test_our_mask_is_over_outputs(materials, small):
    """A share of a layer's coordinates, linear in the score, comes out as 0 or is not read (base)."""
    fusion, parts = build("miner_our_mask", materials), materials.miner
    scores = parts.probes.scores[[1, 2, 3]]
    shares = adaptive_shares(np.append(scores, scores.max()), 0.5, 1.0)[:3]
    np.testing.assert_allclose(shares, [0.5, 0.75, 1.0])
    for place, share in enumerate(shares):
        salience = output_salience(parts, place + 1, small)
        expected = neuron_mask(salience, share)
        if fusion.kinds[place] == "base":
            kept = fusion.masks[place].numpy() > 0
        else:
            assert (fusion.masks[place] == 1).all()
            row = fusion.norm_layers.index(place)
            kept = (fusion.maps[row, 0] != 0).any(dim=-1).numpy()
            untouched = parts.probes.maps[place + 1][0][kept]
            np.testing.assert_array_equal(fusion.maps[row, 0].detach().numpy()[kept], untouched)
        np.testing.assert_array_equal(kept, expected)
        assert kept.sum() == round(16 * share)


@pytest.mark.parametrize("sides", ["shared", "per_side"])
@pytest.mark.parametrize("unit_input", [True, False])
def test_salience_of_outputs_by_its_formula(small, sides, unit_input):
    parts, small = make_miner(sides=sides, unit_input=unit_input), small.shuffled(np.random.default_rng(1))
    np.testing.assert_allclose(output_salience(parts, 0, small), (parts.probes.gates[0] ** 2).mean(axis=0), rtol=1e-6)
    gates, maps = parts.probes.gates[1].astype(np.float64), parts.probes.maps[1].astype(np.float64)
    outputs = []
    for side, (vectors, rows) in enumerate(zip((small.queries, small.pages), small.pairs, strict=True)):
        own = side if sides == "per_side" else 0
        x = vectors[rows, 1].astype(np.float64)
        x = x / np.linalg.norm(x, axis=1, keepdims=True) if unit_input else x
        z = (x * gates[own]) @ maps[own].T
        outputs.append(z / np.linalg.norm(z, axis=1, keepdims=True))
    query, page = outputs
    covariance = [np.cov(query[:, j], page[:, j], bias=True)[0, 1] for j in range(16)]
    assert min(covariance) < 0 < max(covariance)  # or the max with 0 would do nothing
    np.testing.assert_allclose(output_salience(parts, 1, small), np.maximum(covariance, 0), atol=1e-7)


def test_a_whitened_start_has_the_final_layer_pass_the_map(materials, small):
    fusion = build("miner_whitened", materials)
    assert fusion.kinds[-1] == "normalized_projection" and fusion.kinds[:-1] == build("miner", materials).kinds[:-1]
    np.testing.assert_array_equal(fusion.maps[-1, 0].detach().numpy(), materials.whitening.astype(np.float32))
    final = small.pages[:, -1] @ materials.whitening.T
    expected = final / np.linalg.norm(final, axis=1, keepdims=True)
    np.testing.assert_allclose(apply(fusion, small.pages), expected, atol=1e-5)


def test_scalar_weights_weigh_all_coordinates_alike(materials, small):
    scalar, whole = build("miner_scalar_weights", materials), build("miner", materials)
    with torch.no_grad():
        scalar.layer_vectors[:, 0] = torch.tensor([0.3, -0.2, 0.5, 1.0])
        whole.layer_vectors[:] = scalar.layer_vectors
    np.testing.assert_allclose(apply(scalar, small.pages), apply(whole, small.pages), atol=1e-6)
    np.testing.assert_allclose(scalar.weights(), [0.3, 0.2, 0.5, 1.0], rtol=1e-6)


def test_the_head_of_miners_form_cannot_read_inner_layers(materials, small):
    pages = small.pages.copy()
    pages[:, :-1] = np.nan
    fitted = train(build("final_layer_vector", materials), small, small, QUICK).system
    assert ndcg_of(fitted, replace(small, pages=pages, queries=small.queries)).mean() == ndcg_of(fitted, small).mean()
    np.testing.assert_array_equal(encode(fitted, replace(small, pages=pages))[1], encode(fitted, small)[1])
