"""What the fusion is held against, checked against those who had the idea."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from miner_diag.embeddings.store import StoreWriter
from miner_diag.fusion.baselines import ConcatPca, LayerMix, MeanOfLast, ResidualHead


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
    mine = with_weights("ratio", weights)
    np.testing.assert_allclose(mine(torch.from_numpy(states)).detach().numpy(), unit(expected), atol=1e-6)
    started = WeightedLayerPooling(8, num_hidden_layers=4, layer_start=0).layer_weights
    np.testing.assert_array_equal(LayerMix(5, "ratio").mix.detach(), started.detach())


def test_softmax_is_allennlps_scalar_mix_by_hand(states):
    weights = np.array([0.5, -1.0, 0.0, 2.0, 1.0])
    shares = np.exp(weights) / np.exp(weights).sum()
    expected = sum(share * states[:, layer].astype(np.float64) for layer, share in enumerate(shares))
    mine = with_weights("softmax", weights.tolist())(torch.from_numpy(states)).detach().numpy()
    np.testing.assert_allclose(mine, unit(expected), atol=1e-6)
    even = LayerMix(5, "softmax")(torch.from_numpy(states)).detach().numpy()
    np.testing.assert_allclose(even, unit(states.mean(axis=1)), atol=1e-6)


@pytest.mark.parametrize("form", ["softmax", "ratio"])
def test_mixes_learn_one_number_a_layer(form):
    groups = LayerMix(7, form).groups()
    assert not groups["maps"] and [tuple(p.shape) for p in groups["weights"]] == [(7,)]
    assert LayerMix(7, form).layers == tuple(range(7))


def test_concat_pca_is_sklearns(states, rng):
    queries, pages = states[:12], states[12:]
    mine = ConcatPca((0, 2, 4), (queries, pages))
    flat = lambda vectors: unit(vectors[:, (0, 2, 4)].astype(np.float64)).reshape(len(vectors), -1)  # noqa: E731
    theirs = PCA(n_components=8, svd_solver="full").fit(flat(states))
    new = rng.normal(size=(20, 5, 8)).astype(np.float32)
    found = mine(torch.from_numpy(new[:, (0, 2, 4)])).numpy()
    expected = unit(theirs.transform(flat(new)))
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(signs * found, expected, atol=2e-5)
    assert not any(mine.groups().values())


def test_concat_pca_reads_stores(states, tmp_path, monkeypatch):
    monkeypatch.setattr("miner_diag.fusion.baselines._BLOCK", 7)
    writer = StoreWriter(tmp_path / "s", {"of": "test"}, [str(i) for i in range(30)], states.shape)
    writer.write(0, list(range(30)), states)
    from_disk = ConcatPca((0, 1, 4), (writer.finish(1),))
    np.testing.assert_allclose(from_disk.axes.abs(), ConcatPca((0, 1, 4), (states,)).axes.abs(), atol=1e-5)


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
    assert sum(p.numel() for some in head.groups().values() for p in some) == 64 + 48 + 48 + 8
