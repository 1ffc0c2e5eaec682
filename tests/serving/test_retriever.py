"""A served retriever gives the vectors that its stages give, and runs no more than it needs for them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from miner_diag.backbones import LoadOptions, load_backbone
from miner_diag.backbones.base import SIDES
from miner_diag.corpus import load_corpus
from miner_diag.corpus.core import Page, Query
from miner_diag.embeddings.forward import embed_layers
from miner_diag.fusion import FusionError, load_fusion, load_systems
from miner_diag.fusion.baselines import OneLayer, ShuffledLayers
from miner_diag.fusion.system import apply
from miner_diag.serving import FusedRetriever, ServingError
from tests.backbones.tiny import save_dual_encoder
from tests.serving.made import QUERIES, SYSTEMS, TEXTS, D, L, fusion, served


def by_stages(load, system, texts, side):
    """The vectors that the unmerged system makes of all layers, pooled in one full forward."""
    backbone = load_backbone(load)
    items = [
        Query(str(n), t, "given", "") if side == "query" else Page(str(n), "", 1, t, "") for n, t in enumerate(texts)
    ]
    layers = embed_layers(backbone, items, side, 4096, lambda _: None)["layer_embeddings"]
    return apply(system, layers[:, list(backbone.kept(side).layers)], side)


@pytest.mark.parametrize("name", SYSTEMS)
def test_vectors_are_those_of_the_stages(name, load):
    retriever = served(load(), SYSTEMS[name]())
    queries, pages = retriever.encode_queries(QUERIES), retriever.encode_pages(TEXTS).vectors
    assert queries.dtype == pages.dtype == np.float32
    assert queries.shape == (len(QUERIES), retriever.width) and pages.shape == (len(TEXTS), D)
    np.testing.assert_allclose(queries, by_stages(load(), SYSTEMS[name](), QUERIES, "query"), atol=1e-6)
    np.testing.assert_allclose(pages, by_stages(load(), SYSTEMS[name](), TEXTS, "page"), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(pages, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"pooling": "cls"}, {"pooling": "cls", "layer_pooling": "mean"}, {"pooling": "last"}]
)
def test_inner_layers_are_pooled_as_the_options_say(changes, load):
    retriever = served(load(**changes), fusion())
    np.testing.assert_allclose(
        retriever.encode_pages(TEXTS).vectors, by_stages(load(**changes), fusion(), TEXTS, "page"), atol=1e-6
    )


def blocks_run(backbone, call):
    """Return what `call` gives, and how often each block of the backbone ran for it."""
    counts = [0] * backbone.n_layers
    handles = [
        block.register_forward_hook(lambda *_, number=number: counts.__setitem__(number, counts[number] + 1))
        for number, block in enumerate(backbone._blocks)
    ]
    try:
        return call(), counts
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("layer", "expected"), [(0, [0, 0, 0]), (1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])])
def test_blocks_above_the_highest_layer_are_not_run_and_the_vectors_are_those_of_a_full_run(layer, expected, load):
    retriever = FusedRetriever.from_model(load(), layer)
    vectors, counts = blocks_run(retriever.backbone, lambda: retriever.encode_queries(QUERIES[:1]))
    assert counts == expected
    items = retriever.backbone.prepare([Query("q", QUERIES[0], "given", "")], "query")
    whole, counts = blocks_run(retriever.backbone, lambda: retriever.backbone.embed(items)[:, layer])
    assert counts == [1, 1, 1]
    chosen = retriever.backbone.embed_chosen(items, (layer,))[:, 0]
    np.testing.assert_array_equal(chosen, whole)
    np.testing.assert_allclose(vectors, whole / np.linalg.norm(whole), rtol=1e-6)


def test_a_fusion_without_the_final_layer_does_not_run_it(load):
    retriever = served(load(), fusion((0, 1, 3), weights=[0.2, 0.5, 0.0]))
    assert retriever.layers == (0, 1)
    assert blocks_run(retriever.backbone, lambda: retriever.encode_queries(QUERIES[:1]))[1] == [1, 0, 0]


def test_only_layers_that_are_read_are_pooled(load, monkeypatch):
    pooled = []
    pool = "miner_diag.backbones.layer_pooling.Pooler.__call__"
    from miner_diag.backbones.pooling import Pooler

    whole = Pooler.__call__
    monkeypatch.setattr(pool, lambda self, states: pooled.append(1) or whole(self, states))
    retriever = served(load(), fusion((1, 3)))
    pooled.clear()
    retriever.encode_queries(QUERIES[:1])
    assert len(pooled) == 2


def test_a_run_serves_the_fusion_it_hands_out_a_named_system_or_the_backbone(fitted, retriever):
    assert retriever.name == f"small-bert-{load_fusion(fitted.fusion).form}"
    corpus = load_corpus(str(fitted.documents), queries="verbatim").split("test")
    given = retriever.encode_pages(corpus.pages, render=corpus.render)
    assert given.ids == [page.page_id for page in corpus.pages] and set(given.notes) <= {"", "truncated"}
    load = retriever.backbone.options
    expected = by_stages(load, load_fusion(fitted.fusion), [page.text for page in corpus.pages], "page")
    np.testing.assert_allclose(given.vectors, expected, atol=1e-6)
    (head,) = load_systems(fitted.fusion, names=["final_layer_head"])
    best = head.modules[int(np.argmax(head.validation_ndcg_at_5))]
    named = FusedRetriever.from_run(fitted.fusion, "final_layer_head")
    np.testing.assert_allclose(named.encode_queries(QUERIES), by_stages(load, best, QUERIES, "query"), atol=1e-6)
    backbone = FusedRetriever.from_run(fitted.fusion, "backbone")
    assert backbone.name == "small-bert" and backbone.fingerprint == FusedRetriever.from_model(load).fingerprint
    with pytest.raises(FusionError, match="holds no system nothing; it holds backbone"):
        FusedRetriever.from_run(fitted.fusion, "nothing")


def test_a_run_of_another_backbone_is_refused(fitted, monkeypatch):
    key = "miner_diag.serving.retriever.read_backbone_key"
    monkeypatch.setattr(key, lambda folder: {"backbone": "small-bert", "backbone_revision": "sha256:other"})
    with pytest.raises(FusionError, match="holds systems of another backbone. Fields that differ: .*sha256:other"):
        FusedRetriever.from_run(fitted.fusion)


def test_where_a_backbone_runs_makes_no_other_model(fitted, retriever, monkeypatch):
    from miner_diag.fusion.saved_systems import read_backbone_key

    key = read_backbone_key(fitted.fusion) | {"device": "cuda", "torch": "2.99", "attention": "flash"}
    monkeypatch.setattr("miner_diag.serving.retriever.read_backbone_key", lambda folder: key)
    assert FusedRetriever.from_run(fitted.fusion).fingerprint == retriever.fingerprint


def test_a_fingerprint_tells_models_apart(load):
    of = {
        "fusion": served(load(), fusion()),
        "other numbers": served(load(), fusion(seed=9)),
        "other layers": served(load(), fusion((2, 3))),
        "other form": served(load(), SYSTEMS["miner"]()),
        "backbone": FusedRetriever.from_model(load()),
        "other pooling": FusedRetriever.from_model(load(pooling="cls")),
        "prompt": FusedRetriever.from_model(load(query_prompt="wave ")),
        "prompt of pages": FusedRetriever.from_model(load(page_prompt="wave ")),
        "limit": FusedRetriever.from_model(load(max_tokens=12)),
    }
    prints = {name: retriever.fingerprint for name, retriever in of.items()}
    assert len(set(prints.values())) == len(of)
    assert served(load(), fusion(), "another name").fingerprint == prints["fusion"]


def test_prompts_stand_before_texts(load):
    prompted = FusedRetriever.from_model(load(query_prompt="salt "))
    plain = FusedRetriever.from_model(load())
    np.testing.assert_array_equal(prompted.encode_queries(["wave"]), plain.encode_queries(["salt wave"]))
    assert not np.allclose(prompted.encode_queries(["wave"]), plain.encode_queries(["wave"]))


def test_what_is_cut_and_what_is_empty_is_noted(load, caplog):
    retriever = FusedRetriever.from_model(load(max_tokens=8))
    pages = retriever.encode_pages(["wave reef", "wave " * 30, ""])
    assert pages.notes == ("", "truncated", "empty") and pages.ids == ["text 0", "text 1", "text 2"]
    with caplog.at_level(logging.WARNING):
        retriever.encode_queries(["tide", "tide " * 30])
    assert "1 of 2 queries are longer than small-bert reads, the first is texts[1]" in caplog.text
    windows = FusedRetriever.from_model(load(max_tokens=8, long_pages="windows"))
    assert windows.encode_pages(["wave reef", "wave " * 30]).notes == ("", "")


def test_nothing_gives_nothing(load):
    retriever = FusedRetriever.from_model(load())
    assert retriever.encode_queries([]).shape == (0, D) and retriever.encode_pages([]).vectors.shape == (0, D)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("wave", "texts must be a list"),
        (["wave", " "], r"texts\[1\] must be a text that is not empty; got ' '"),
        ([3], "got 3"),
    ],
)
def test_bad_queries_are_refused(texts, message, load):
    with pytest.raises(ServingError, match=message):
        FusedRetriever.from_model(load()).encode_queries(texts)


def test_a_control_is_not_served(load):
    with pytest.raises(ServingError, match="made is a control that mixes the layers of different items"):
        served(load(), ShuffledLayers(fusion(), 0))


def test_a_system_of_another_shape_is_refused(load):
    with pytest.raises(FusionError, match=r"must be \[N, 9, D\]; got \[0, 4, 32\]"):
        served(load(), OneLayer(2, 9, D))
    with pytest.raises(FusionError, match="layer must be one of the 4 hidden states, 0 to 3; got 4"):
        FusedRetriever.from_model(load(), L)


def test_a_dual_encoder_serves_its_final_layer_alone(tmp_path, rng):
    folder = save_dual_encoder(tmp_path / "clip", "clip")
    retriever = FusedRetriever.from_model(LoadOptions(str(folder), device="cpu"))
    from PIL import Image

    picture = Image.fromarray(rng.integers(0, 255, (40, 30, 3)).astype(np.uint8))
    assert (
        retriever.encode_pages([picture]).vectors.shape == retriever.encode_queries(["a"]).shape == (1, retriever.width)
    )
    for side in SIDES:  # a layer of one side is none of the other
        assert retriever._layers[side] == (retriever.backbone.layer_shape(side)[0] - 1,)
    with pytest.raises(ServingError, match="is a dual encoder, whose sides share the final layer alone"):
        FusedRetriever.from_model(LoadOptions(str(folder), device="cpu"), 1)
