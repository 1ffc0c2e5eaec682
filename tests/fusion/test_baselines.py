"""What the fusion is compared with, checked against those who had the idea."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from miner_diag.fusion import FusionError, encode
from miner_diag.fusion.baselines import (
    ConcatPca,
    FinalLayerHead,
    LayerMix,
    MeanOfLast,
    ResidualHead,
    SingleProbe,
)
from tests.fusion.helpers import ArrayStore, D, L, make_probes, materials_of


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def states(rng, one_thread):
    return (2.0 * rng.normal(size=(30, 5, 8))).astype(np.float32)


def with_weights(form, weights):
    mix = LayerMix(len(weights), form)
    with torch.no_grad():
        mix.mix.copy_(torch.tensor(weights))
    return mix


def test_ratio_is_sentence_transformers_weighted_layer_pooling(states, rng):
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

    weights = rng.uniform(0.2, 2.0, size=5).astype(np.float32)
    theirs = WeightedLayerPooling(
        8, num_hidden_layers=4, layer_start=0, layer_weights=torch.nn.Parameter(torch.from_numpy(weights))
    )
    given = tuple(torch.from_numpy(states[:, layer, None]) for layer in range(5))  # [N, 1 token, D]
    expected = theirs({"all_layer_embeddings": given})["token_embeddings"].detach().numpy()[:, 0]
    mix = with_weights("ratio", weights)
    np.testing.assert_allclose(mix(torch.from_numpy(states)).detach().numpy(), unit(expected), atol=1e-6)
    started = WeightedLayerPooling(8, num_hidden_layers=4, layer_start=0).layer_weights
    np.testing.assert_array_equal(LayerMix(5, "ratio").mix.detach(), started.detach())


def test_softmax_is_allennlps_scalar_mix_by_hand(states):
    weights = np.array([0.5, -1.0, 0.0, 2.0, 1.0])
    shares = np.exp(weights) / np.exp(weights).sum()
    expected = sum(share * states[:, layer].astype(np.float64) for layer, share in enumerate(shares))
    mixed = with_weights("softmax", weights.tolist())(torch.from_numpy(states)).detach().numpy()
    np.testing.assert_allclose(mixed, unit(expected), atol=1e-6)
    even = LayerMix(5, "softmax")(torch.from_numpy(states)).detach().numpy()
    np.testing.assert_allclose(even, unit(states.mean(axis=1)), atol=1e-6)


@pytest.mark.parametrize("form", ["softmax", "ratio"])
def test_mixes_learn_one_number_a_layer(form):
    groups = LayerMix(7, form).groups()
    assert not groups["maps"] and [tuple(p.shape) for p in groups["weights"]] == [(7,)]
    assert LayerMix(7, form).layers == tuple(range(7))


def test_concat_pca_is_sklearns(states, rng):
    queries, pages = states[:12], states[12:]
    reduction = ConcatPca.fit((0, 2, 4), (queries, pages))
    flat = lambda vectors: unit(vectors[:, (0, 2, 4)].astype(np.float64)).reshape(len(vectors), -1)  # noqa: E731
    theirs = PCA(n_components=8, svd_solver="full").fit(flat(states))
    new = rng.normal(size=(20, 5, 8)).astype(np.float32)
    reduced = reduction(torch.from_numpy(new[:, (0, 2, 4)])).numpy()
    expected = unit(theirs.transform(flat(new)))
    signs = np.sign((reduced * expected).sum(axis=0))
    np.testing.assert_allclose(signs * reduced, expected, atol=2e-5)
    assert reduction.n_trained == 0


def test_concat_pca_reads_stores_block_by_block(states, monkeypatch):
    monkeypatch.setattr("miner_diag.fusion.baselines._BLOCK", 7)
    from_disk = ConcatPca.fit((0, 1, 4), (ArrayStore(states),))
    np.testing.assert_allclose(from_disk.axes.abs(), ConcatPca.fit((0, 1, 4), (states,)).axes.abs(), atol=1e-5)


def test_mean_of_the_last_layers_by_hand(states):
    mean = MeanOfLast(5, 2)
    assert mean.layers == (3, 4)
    expected = unit(unit(states[:, 3]) + unit(states[:, 4]))
    np.testing.assert_allclose(mean(torch.from_numpy(states[:, 3:])).numpy(), expected, atol=1e-6)
    assert MeanOfLast(2, 3).layers == (0, 1)  # no more layers than there are


def test_the_residual_head_by_hand_and_at_its_start(states, rng):
    head = ResidualHead(5, 8, 6, np.random.default_rng(0))
    last = torch.from_numpy(states[:, 4:])
    np.testing.assert_allclose(head(last).detach().numpy(), unit(states[:, 4]), atol=1e-6)
    with torch.no_grad():
        head.outer.copy_(torch.from_numpy(rng.normal(size=(8, 6))))
        head.bias.fill_(0.2)
    u = unit(states[:, 4].astype(np.float64))
    inner = torch.from_numpy(u @ head.inner.detach().numpy().T)
    bent = (0.5 * inner * (1 + torch.erf(inner / np.sqrt(2)))).numpy()
    expected = unit(u + bent @ head.outer.detach().numpy().T + 0.2)
    np.testing.assert_allclose(head(last).detach().numpy(), expected, atol=1e-5)
    assert head.n_trained == 64 + 48 + 48 + 8


def test_a_head_of_the_fusions_form_reads_the_final_layer_in_each_part(small):
    materials = materials_of(small, sides=2)
    fusion = materials.fusion(np.random.default_rng(0), train_probes=False)
    head = FinalLayerHead.of(fusion)
    assert head.layers == (L - 1,) * len(fusion.layers) and head.n_trained == fusion.n_trained
    for name, tensor in fusion.state_dict().items():
        assert (head.state_dict()[name] == tensor).all(), name
    started = FinalLayerHead.of(fusion, materials.start)
    for matrix, other in zip(started.maps, fusion.maps, strict=True):
        expected = np.repeat(materials.start[None], 2, axis=0) if matrix.ndim == 3 else other.detach().numpy()
        np.testing.assert_array_equal(matrix.detach().numpy(), expected)
    with pytest.raises(FusionError, match=r"layers of a head must all be the final layer, 4; got \[0, 4\]"):
        FinalLayerHead.check_layers([0, 4], 5)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("kind", ["base", "normalized_projection"])
def test_a_single_probe_is_the_probe(small, kind, sides):
    probe = make_probes(sides=sides).stack.probe(2, kind)
    vectors = encode(SingleProbe(probe, L), small)
    for of_side, states, side in zip(vectors, (small.queries, small.pages), ("query", "page"), strict=True):
        assert of_side.tobytes() == probe.apply(states[:, 2], side).tobytes()
    assert vectors[1].shape == (50, D)
