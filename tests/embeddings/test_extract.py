import logging

import numpy as np
import pytest

from miner_diag.embeddings import (
    ForeignStoreError,
    NonFiniteError,
    OutOfMemoryError,
    corpus_key,
    extract,
    extract_corpus,
)
from miner_diag.embeddings.extract import embed_halving

CORPUS = {"corpus": "tiny", "corpus_revision": "sha256:1"}
SMALL = {"corpus_key": CORPUS, "token_budget": 60, "shard_items": 6, "progress": False}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_are_the_items_in_their_order(backbone, pages, tmp_path):
    store = extract(backbone, pages, "page", tmp_path / "s", **SMALL)
    assert store.ids == tuple(page.page_id for page in pages)
    alone = np.concatenate([backbone.embed([item]) for item in backbone.prepare(pages, "page")])
    np.testing.assert_array_equal(store.layer_embeddings, alone)


def test_one_forward_an_item(backbone, pages, tmp_path):
    extract(backbone, pages, "page", tmp_path / "s", **SMALL)
    embedded = [item for batch in backbone.batches for item in batch]
    assert sorted(embedded) == sorted(page.page_id for page in pages)


def test_a_finished_store_is_opened_without_a_forward(backbone, pages, tmp_path):
    first = extract(backbone, pages, "page", tmp_path / "s", **SMALL)
    backbone.batches.clear()
    backbone.prepare = lambda items, side: pytest.fail("nothing needs preparing")
    again = extract(backbone, pages, "page", tmp_path / "s", **SMALL)
    assert backbone.batches == []
    np.testing.assert_array_equal(first.layer_embeddings, again.layer_embeddings)


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_stopped_run_is_taken_up_and_gives_the_same_bytes(backbone, pages, tmp_path, done):
    extract(backbone, pages, "page", tmp_path / "whole", **SMALL)

    def stop(item_id, layers):
        if len(list((tmp_path / "stopped").glob("shard-*"))) >= done:
            raise KeyboardInterrupt
        return layers

    backbone.spoil = stop
    with pytest.raises(KeyboardInterrupt):
        extract(backbone, pages, "page", tmp_path / "stopped", **SMALL)
    backbone.spoil = lambda item_id, layers: layers
    backbone.batches.clear()
    extract(backbone, pages, "page", tmp_path / "stopped", **SMALL)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
    assert sum(map(len, backbone.batches)) <= len(pages) - 6 * done


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"corpus_key": {**CORPUS, "corpus_revision": "sha256:2"}}, "corpus_revision"),
        ({"token_budget": 61}, "token_budget"),
        ({"shard_items": 7}, "shard_items"),
    ],
)
def test_another_key_is_refused_by_its_fields(backbone, pages, tmp_path, change, field):
    extract(backbone, pages, "page", tmp_path / "s", **SMALL)
    with pytest.raises(ForeignStoreError) as caught:
        extract(backbone, pages, "page", tmp_path / "s", **{**SMALL, **change})
    assert caught.value.fields == (field,)


def test_another_text_or_side_is_refused_even_under_the_same_corpus_key(backbone, pages, queries, tmp_path):
    extract(backbone, pages, "page", tmp_path / "s", **SMALL)
    with pytest.raises(ForeignStoreError) as caught:
        extract(backbone, pages[:-1], "page", tmp_path / "s", **SMALL)
    assert caught.value.fields == ("items",)
    with pytest.raises(ForeignStoreError) as caught:
        extract(backbone, queries, "query", tmp_path / "s", **SMALL)
    assert caught.value.fields == ("items", "side")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_names_layer_and_item(backbone, pages, tmp_path, value):
    def spoil(item_id, layers):
        if item_id == "p7":
            layers[2, 5] = value
        return layers

    backbone.spoil = spoil
    with pytest.raises(NonFiniteError, match="layer 2 of pretend is not finite for page 'p7'"):
        extract(backbone, pages, "page", tmp_path / "s", **SMALL)
    assert not (tmp_path / "s" / "shards.json").exists()


def test_out_of_memory_halves_the_batch_and_logs_it(backbone, pages, tmp_path, caplog):
    whole = extract(backbone, pages, "page", tmp_path / "whole", **SMALL)
    backbone.room = 2
    with caplog.at_level(logging.WARNING):
        tight = extract(backbone, pages, "page", tmp_path / "tight", **SMALL)
    assert "out of memory with" in caplog.text and "the batch is halved" in caplog.text
    np.testing.assert_array_equal(tight.layer_embeddings, whole.layer_embeddings)


def test_one_item_that_does_not_fit_is_named(backbone, pages):
    backbone.room = 0
    with pytest.raises(OutOfMemoryError, match=r"page 'p0' alone \(\d+ tokens\) does not fit .* lower --max-tokens"):
        embed_halving(backbone, backbone.prepare(pages[:1], "page"))


def test_other_errors_are_not_taken_for_memory(backbone, pages):
    def broken(batch):
        raise RuntimeError("shapes cannot be multiplied")

    backbone.embed = broken
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed_halving(backbone, backbone.prepare(pages[:2], "page"))


def test_both_sides_of_a_corpus(backbone, corpus, tmp_path):
    stores = extract_corpus(backbone, corpus, tmp_path, progress=False)
    assert stores.queries.shape == (12, 4, 6)
    assert stores.pages.shape == (40, 4, 6)
    assert stores.pages.folder == tmp_path / "pages"
    assert stores.pages.key["side"] == "page" and stores.queries.key["side"] == "query"
    for name, value in corpus_key(corpus).items():
        assert stores.pages.key[name] == value
    assert corpus_key(corpus)["corpus_form"] == "hidden"


def test_no_items_wrong_items_and_double_ids_are_told(backbone, pages, queries, tmp_path):
    with pytest.raises(ValueError, match="items must hold at least one page; got none"):
        extract(backbone, [], "page", tmp_path / "s", **SMALL)
    with pytest.raises(ValueError, match="side is 'page', so items must have a page_id; got a Query"):
        extract(backbone, queries, "page", tmp_path / "s", **SMALL)
    with pytest.raises(ValueError, match="page 'p0' stands twice among the items"):
        extract(backbone, [*pages, pages[0]], "page", tmp_path / "s", **SMALL)
