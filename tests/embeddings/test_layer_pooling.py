"""Of a retriever that reads one token both poolings of the inner layers lie in one store, from one forward."""

import numpy as np
import pytest

from miner_diag.embeddings import EmbeddedCorpus, NonFiniteError
from tests.embeddings.helpers import D, L, PretendReadout, shard_bytes


def take(corpus, backbone, options, *, progress=False):
    return EmbeddedCorpus(corpus, backbone, options, progress=progress).take(corpus.split("validation"))


@pytest.mark.parametrize("order", [("readout", "mean"), ("mean", "readout")])
def test_neither_pooling_needs_a_second_pass(order, corpus, options):
    part = corpus.split("validation")
    backbones = {layer_pooling: PretendReadout(layer_pooling) for layer_pooling in order}
    taken = {name: take(corpus, backbone, options) for name, backbone in backbones.items()}
    first, second = order
    assert sorted(backbones[first].embedded()) == sorted(
        [query.query_id for query in part.queries] + [page.page_id for page in part.pages]
    )
    assert backbones[second].batches == []
    kept = shard_bytes(options.store)
    for name, embedded in taken.items():
        store = embedded.stores.pages
        assert store.folder == taken[first].stores.pages.folder and store.shape == (len(part.pages), L, D)
        alone = backbones[name].embed(backbones[name].prepare(part.pages, "page"))
        np.testing.assert_array_equal(store.layer_embeddings, alone)
        rows = np.array([3, 0, 5])
        np.testing.assert_array_equal(store.rows(rows), alone[rows])
        some = store.take([store.ids[2], store.ids[1]])
        for layer in range(L):
            np.testing.assert_array_equal(store.layer(layer), alone[:, layer])
            np.testing.assert_array_equal(some.layer(layer), alone[[2, 1], layer])
        assert embedded.facts()["backbone"]["layer_pooling"] == name
    readout, mean = (taken[name].stores.pages.layer_embeddings for name in ("readout", "mean"))
    np.testing.assert_array_equal(mean[:, -1], readout[:, -1])
    np.testing.assert_array_equal(mean[:, :-1], 2 + readout[:, :-1])
    assert shard_bytes(options.store) == kept


def test_each_pooling_has_a_noise_floor_of_its_own(corpus, options):
    floors = {}
    for layer_pooling in ("readout", "mean"):
        backbone = PretendReadout(layer_pooling)
        backbone.noise = 1e-3
        floors[layer_pooling] = take(corpus, backbone, options).noise
    assert len(list(options.store.glob("*/noise/*.json"))) == 2
    assert floors["readout"] != floors["mean"]
    again = PretendReadout("readout")
    assert take(corpus, again, options).noise == floors["readout"] and again.batches == []


def test_the_sizes_that_are_told_are_of_both(corpus, options, capsys):
    take(corpus, PretendReadout(), options, progress=True)
    said = capsys.readouterr().err
    assert f"{L} layers x {D}, inner ones under both poolings (--layer-pooling), " in said
    part = corpus.split("validation")
    n_bytes = 4 * (2 * L - 1) * D * (len(part.queries) + len(part.pages))
    assert f"{n_bytes / 1e3:.0f} kB" in said


def test_a_layer_that_is_not_finite_is_named_in_either_pooling(corpus, options):
    backbone = PretendReadout()
    plain = backbone.embed_kept

    def spoilt(batch):
        kept = plain(batch)
        kept[0, L + 1] = np.nan
        return kept

    backbone.embed_kept = spoilt
    with pytest.raises(NonFiniteError, match="layer 1 of pretend-readout is not finite"):
        take(corpus, backbone, options)
