import numpy as np
import pytest

from miner_diag.embeddings import extract, noise_floor, noise_floor_of


def test_a_backbone_without_noise_has_none(backbone, pages):
    floor = noise_floor(backbone, pages, "page", n_items=10, token_budget=60)
    assert floor.n_items == 10
    assert floor.max_relative_difference == floor.mean_relative_difference == (0.0,) * 4


def test_noise_is_measured_relative_per_layer(backbone, pages):
    plain = backbone.embed

    def noisy(batch):
        layers = plain(batch)
        if len(batch) > 1:
            layers[:, 2] *= 1.25  # exact in binary
        return layers

    backbone.embed = noisy
    floor = noise_floor(backbone, pages, "page", n_items=8, token_budget=10_000)
    np.testing.assert_allclose(floor.max_relative_difference, [0, 0, 0.25, 0], rtol=1e-6)
    np.testing.assert_allclose(floor.mean_relative_difference, [0, 0, 0.25, 0], rtol=1e-6)
    assert floor.as_dict()["token_budget"] == 10_000


def test_a_vector_of_zeros_is_no_division(backbone, pages):
    backbone.spoil = lambda item_id, layers: layers * 0
    assert noise_floor(backbone, pages, "page").max_relative_difference == (0.0,) * 4


def test_no_items(backbone):
    with pytest.raises(ValueError, match="items must hold at least one query; got none"):
        noise_floor(backbone, [], "query")


def test_of_a_store_it_is_measured_once(backbone, pages, tmp_path):
    store = extract(backbone, pages, "page", tmp_path / "s", corpus_key={"corpus": "t"}, progress=False)
    first = noise_floor_of(store, backbone, pages)
    backbone.batches.clear()
    assert noise_floor_of(store, backbone, pages) == first
    assert backbone.batches == []
    path = store.folder / "noise_floor.json"
    path.write_text(path.read_text().replace('"key":"', '"key":"another'))
    assert noise_floor_of(store, backbone, pages) == first
    assert backbone.batches != []
