"""One store for all commands: each item passes through the backbone once, whichever part is asked for first."""

import itertools
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from miner_diag.backbones.base import Encoded
from miner_diag.corpus import Page, Query
from miner_diag.corpus.splits import resplit
from miner_diag.embeddings import (
    DamagedStoreError,
    EmbeddedCorpus,
    ForeignStoreError,
    NonFiniteError,
    OutOfMemoryError,
    StoreError,
    StoreOptions,
    shards,
)
from miner_diag.embeddings.forward import embed_halving, input_hash
from tests.embeddings.helpers import PretendBackbone, damage, kept_bytes, make_corpus, shard_bytes, small_shards


def opened(corpus, backbone, options, **given):
    return EmbeddedCorpus(corpus, backbone, options, progress=False, **given)


def ids(corpus):
    return [query.query_id for query in corpus.queries] + [page.page_id for page in corpus.pages]


def alone(backbone, items, side):
    return np.concatenate([backbone.embed([item]) for item in backbone.prepare(items, side)])


def test_rows_are_the_items_in_their_order(backbone, corpus, options):
    for part in (corpus.split("validation"), corpus, resplit(corpus, 1).split("train")):
        embedded = opened(corpus, backbone, options).take(part)
        assert embedded.corpus is part and embedded.backbone is backbone
        queries, pages = embedded.stores
        assert queries.ids + pages.ids == tuple(ids(part))
        np.testing.assert_array_equal(queries.layer_embeddings, alone(backbone, part.queries, "query"))
        np.testing.assert_array_equal(pages.layer_embeddings, alone(backbone, part.pages, "page"))


# --- one forward an item, whoever asks first


def commands(corpus, verbatim):
    """What commands ask for, by name: the parts that they take of which corpus."""
    return {
        "cka": (corpus, [corpus.split("validation")]),
        "probes": (corpus, [corpus.split("train"), corpus.split("validation")]),
        "evaluation": (corpus, [corpus.split("test")]),
        "embeddings": (corpus, [corpus]),
        "another fold": (corpus, [resplit(corpus, 1).split(name) for name in ("train", "validation")]),
        "the other form": (verbatim, [verbatim.split("test"), verbatim.split("train"), verbatim]),
    }


ORDERS = [
    *itertools.permutations(["cka", "probes", "evaluation", "the other form"]),
    ("another fold", "cka", "probes", "embeddings", "the other form"),
    ("the other form", "embeddings", "cka"),
    ("embeddings", "evaluation", "another fold", "the other form", "probes"),
]


@pytest.fixture(scope="module")
def all_at_once(tmp_path_factory, corpus, verbatim):
    """The shards that one run over each form gives."""
    backbone, root = PretendBackbone(), tmp_path_factory.mktemp("all")
    backbone.noise = 1e-6
    with small_shards():
        for form in (corpus, verbatim):
            opened(form, backbone, StoreOptions(root, token_budget=60)).take(form)
    return shard_bytes(root)


@pytest.mark.parametrize("order", ORDERS, ids=" > ".join)
def test_each_item_is_embedded_once_and_bytes_do_not_depend_on_the_order(
    backbone, corpus, verbatim, options, all_at_once, order
):
    backbone.noise = 1e-6  # so that bytes tell who was embedded with whom
    for name in order:
        whole, parts = commands(corpus, verbatim)[name]
        embedded_corpus = opened(whole, backbone, options)
        for part in parts:
            embedded_corpus.take(part)
    both_forms = ids(corpus) + [page.page_id for page in verbatim.pages if page.words_hidden]
    complete = "the other form" in order and ({"cka", "probes", "evaluation"} <= set(order) or "embeddings" in order)
    assert complete, "the orders above cover everything"
    assert sorted(backbone.embedded()) == sorted(both_forms)
    assert shard_bytes(options.store) == all_at_once


def test_batch_mates_show_in_the_bytes(backbone, corpus, options, all_at_once):
    """The negative control of the test above: another token budget gives other batches, and other bytes."""
    backbone.noise = 1e-6
    opened(corpus, backbone, replace(options, token_budget=61)).take(corpus)
    assert not set(shard_bytes(options.store).values()) & set(all_at_once.values())
    names = [{path.split("/")[-1] for path in content} for content in (shard_bytes(options.store), all_at_once)]
    assert names[0] < names[1]


def test_a_split_embeds_nothing_of_another_split(backbone, corpus, options):
    embedded_corpus = opened(corpus, backbone, options)
    validation = corpus.split("validation")
    embedded_corpus.take(validation)
    assert sorted(backbone.embedded()) == sorted(ids(validation))
    backbone.batches.clear()
    embedded_corpus.take(corpus)
    assert sorted(backbone.embedded()) == sorted(set(ids(corpus)) - set(ids(validation)))


def test_what_is_there_is_opened_without_a_forward(backbone, corpus, options):
    first = opened(corpus, backbone, options).take(corpus)
    backbone.prepare = lambda items, side: pytest.fail("nothing needs preparing")
    again = opened(corpus, backbone, options).take(corpus)
    for side in (0, 1):
        np.testing.assert_array_equal(first.stores[side].layer_embeddings, again.stores[side].layer_embeddings)


def test_no_more_than_a_shard_is_prepared_at_once_and_batches_keep_the_budget(backbone, corpus, options):
    opened(corpus, backbone, options).take(corpus)
    assert max(backbone.prepared) == 8 and sum(backbone.prepared) == len(ids(corpus))
    words = {page.page_id: len(page.text.split()) for page in corpus.pages}
    words |= {query.query_id: len(query.text.split()) for query in corpus.queries}
    assert all(len(batch) == 1 or len(batch) * max(words[n] for n in batch) <= 60 for batch in backbone.batches)


def test_a_part_of_another_fold_embeds_whole_shards_and_takes_its_rows(backbone, corpus, options):
    part = resplit(corpus, 3).split("validation")
    embedded = opened(corpus, backbone, options).take(part)
    assert set(ids(part)) < set(backbone.embedded())
    assert len(embedded.stores.pages) == len(part.pages)
    backbone.batches.clear()
    opened(corpus, backbone, options).take(corpus)
    np.testing.assert_array_equal(
        embedded.stores.pages.layer_embeddings,
        opened(corpus, backbone, options).take(part).stores.pages.layer_embeddings,
    )


def test_a_corpus_loaded_in_another_fold_shares_the_shards(backbone, corpus, options):
    opened(corpus, backbone, options).take(corpus)
    backbone.batches.clear()
    dealt = resplit(corpus, 1)
    opened(dealt, backbone, options).take(dealt.split("train"))
    assert backbone.batches == []


def test_a_limited_corpus_has_shards_of_its_own(backbone, corpus, options):
    limited = corpus.sample_pages(60)
    embedded = opened(limited, backbone, options).take(limited)
    assert sorted(backbone.embedded()) == sorted(ids(limited)) and len(embedded.stores.pages) == 60
    before = shard_bytes(options.store)
    opened(corpus, backbone, options).take(corpus)
    after = shard_bytes(options.store)
    assert all(after[name] == content for name, content in before.items())
    backbone.batches.clear()
    opened(limited, backbone, options).take(limited)
    assert backbone.batches == []


def test_another_retriever_budget_or_side_has_a_store_of_its_own(backbone, corpus, options):
    part = corpus.split("validation")
    opened(corpus, backbone, options).take(part)
    opened(corpus, backbone, replace(options, token_budget=61)).take(part)
    backbone.revision = "sha256:1"
    opened(corpus, backbone, options).take(part)
    assert len(list(options.store.iterdir())) == 6
    assert len(backbone.embedded()) == 3 * len(ids(part))


# --- stopped, damaged, foreign


@pytest.mark.parametrize("stop_at", [0, 20, 77])
def test_a_stopped_run_is_taken_up_by_another_command_and_gives_the_same_bytes(
    backbone, corpus, options, tmp_path, stop_at
):
    backbone.noise = 1e-6
    opened(corpus, backbone, replace(options, store=tmp_path / "whole")).take(corpus)
    backbone.batches.clear()

    def stop(item_id, layers):
        if len(backbone.embedded()) > stop_at:
            raise KeyboardInterrupt
        return layers

    backbone.spoil = stop
    with pytest.raises(KeyboardInterrupt):
        opened(corpus, backbone, options).take(corpus)
    kept = shard_bytes(options.store)
    backbone.spoil = lambda item_id, layers: layers
    backbone.batches.clear()
    for split in ("test", "validation", "train"):
        opened(corpus, backbone, options).take(corpus.split(split))
    assert kept_bytes(options.store) == kept_bytes(tmp_path / "whole")
    n_kept = sum(shards.described_items(options.store / name) for name in kept)
    assert len(backbone.embedded()) == len(ids(corpus)) - n_kept


def test_a_damaged_shard_is_an_error_that_names_it_and_the_rest_is_usable(backbone, corpus, options, monkeypatch):
    embedded = opened(corpus, backbone, options).take(corpus.split("validation"))
    path = embedded.stores.pages.items.shards[0].path
    damage(path)
    with pytest.raises(DamagedStoreError, match=rf"{path.name} is damaged: its sha256 .* Delete this file"):
        opened(corpus, backbone, options).take(corpus)
    opened(corpus, backbone, options).take(corpus.split("train"))
    path.unlink()
    backbone.batches.clear()
    opened(corpus, backbone, options).take(corpus.split("validation"))
    assert len(backbone.embedded()) == shards.described_items(path), "only what was deleted is embedded again"


def test_a_shard_of_another_store_is_refused(backbone, corpus, options, tmp_path):
    part = corpus.split("validation")
    pages = opened(corpus, backbone, options).take(part).stores.pages
    backbone.revision = "sha256:1"
    other = opened(corpus, backbone, options).take(part).stores.pages
    shutil.copy(pages.items.shards[0].path, other.items.shards[0].path)
    with pytest.raises(DamagedStoreError, match="or those of another store"):
        opened(corpus, backbone, options).take(part)


def test_a_foreign_store_is_refused_by_its_fields(backbone, corpus, options):
    folder = opened(corpus, backbone, options).take(corpus).stores.pages.folder
    backbone.revision = "sha256:1"
    opened(corpus, backbone, options).take(corpus)
    new = next(path for path in options.store.glob("*-page-*") if path != folder)
    shutil.rmtree(new)
    folder.rename(new)
    with pytest.raises(ForeignStoreError) as caught:
        opened(corpus, backbone, options).take(corpus)
    assert caught.value.fields == ("backbone_revision",)


def test_a_part_of_something_else_is_refused_and_named(backbone, corpus, verbatim, options):
    embedded_corpus = opened(corpus, backbone, options)
    with pytest.raises(ValueError, match=r"part must hold queries and pages of the corpus that was opened; query '.*"):
        embedded_corpus.take(verbatim)
    changed = replace(corpus, pages=(*corpus.pages[:-1], replace(corpus.pages[-1], text="other")))
    with pytest.raises(ValueError, match=rf"page '{corpus.pages[-1].page_id}' \(tiny, hidden, all\) is not among them"):
        embedded_corpus.take(changed)
    with pytest.raises(ValueError, match="is not among them. Open the corpus that it is a part of"):
        embedded_corpus.take(make_corpus({"elsewhere": 3}))
    assert not options.store.exists()


# --- what a retriever may do


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_names_layer_and_item(backbone, corpus, options, value):
    page_id = corpus.pages[7].page_id

    def spoil(item_id, layers):
        if item_id == page_id:
            layers[2, 5] = value
        return layers

    backbone.spoil = spoil
    with pytest.raises(NonFiniteError, match=f"layer 2 of pretend is not finite for page '{page_id}'"):
        opened(corpus, backbone, options).take(corpus)


@pytest.mark.parametrize("wrong", [lambda layers: layers[:2], lambda layers: layers.astype(np.float64)])
def test_layers_of_another_shape_or_precision_are_refused(backbone, corpus, options, wrong):
    backbone.spoil = lambda item_id, layers: wrong(layers)
    with pytest.raises(ValueError, match=r"layer embeddings must be float32 \[\d+, 4, 6\]; pretend gave float"):
        opened(corpus, backbone, options).take(corpus)
    assert not shard_bytes(options.store)


def test_out_of_memory_halves_the_batch_and_logs_it(backbone, corpus, options, tmp_path, caplog):
    whole = opened(corpus, backbone, replace(options, store=tmp_path / "whole")).take(corpus)
    backbone.room = 2
    with caplog.at_level(logging.WARNING):
        tight = opened(corpus, backbone, options).take(corpus)
    assert "out of memory with" in caplog.text and "the batch is halved" in caplog.text
    np.testing.assert_array_equal(tight.stores.pages.layer_embeddings, whole.stores.pages.layer_embeddings)


def test_one_item_that_does_not_fit_is_named(backbone, corpus):
    backbone.room, page = 0, corpus.pages[0]
    with pytest.raises(OutOfMemoryError, match=rf"page '{page.page_id}' alone \(\d+ tokens\) does not fit .* lower"):
        embed_halving(backbone.embed, backbone.prepare([page], "page"))


def test_other_errors_are_not_taken_for_memory(backbone, corpus):
    def broken(batch):
        raise RuntimeError("shapes cannot be multiplied")

    backbone.embed = broken
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed_halving(backbone.embed, backbone.prepare(corpus.pages[:2], "page"))


def test_pages_on_which_nothing_can_be_read_are_refused(backbone, corpus, options):
    blank = replace(corpus, pages=tuple(replace(page, text=" ") for page in corpus.pages))
    with pytest.raises(StoreError, match=r"pretend finds nothing to read on any of the 180 pages of tiny \(all\)"):
        opened(blank, backbone, options).take(blank)
    few = replace(corpus, pages=(*blank.pages[:3], *corpus.pages[3:]))
    embedded = opened(few, backbone, options).take(few)
    assert embedded.stores.pages.counts == {
        "empty": 3,
        "truncated": 0,
        "characters": 0,
        "characters_read": 0,
    }
    assert embedded.notes() == ["3 of 180 pages have no text to read (see --reader)"]
    inputs = embedded.stores.pages.inputs
    assert inputs[:3] == [None] * 3 and None not in inputs[3:]


def test_inputs_tell_which_items_are_read_the_same(backbone, corpus, options):
    pages = list(corpus.pages)
    pages[5] = replace(pages[5], text=pages[90].text)
    same = replace(corpus, pages=tuple(pages))
    inputs = opened(same, backbone, options).take(same).stores.pages.inputs
    assert inputs[5] == inputs[90] and len(set(inputs)) == len(inputs) - 1
    untouched = opened(corpus, backbone, options).take(corpus).stores.pages.inputs
    assert inputs[:5] == untouched[:5] and inputs[5] == untouched[90]  # wherever the item stands


def test_a_picture_is_known_by_its_hash_unless_words_are_taken_out_of_it():
    first, second = (
        Page(page_id, "document", number, "", page_hash="picture") for number, page_id in enumerate(("a", "b"), 1)
    )
    prompt = {"input_ids": np.arange(4)}
    seen, read = (Encoded("a", "page", prompt, 4, pixels=pixels) for pixels in (lambda: {"pixels": np.zeros(3)}, None))
    assert input_hash(first, seen) == input_hash(second, seen) != input_hash(replace(first, page_hash="other"), seen)
    hidden = [replace(page, words_hidden=True) for page in (first, second)]
    assert input_hash(hidden[0], seen) != input_hash(hidden[1], seen)
    # what is read as text is known by its tokens alone
    assert input_hash(first, read) == input_hash(replace(first, page_hash="other"), read)
    assert input_hash(first, read) != input_hash(first, replace(read, inputs={"input_ids": np.arange(1, 5)}))
    assert input_hash(first, read) != input_hash(first, replace(read, windows=(2, 2)))


def test_a_dual_encoder_has_sides_of_different_shape(backbone, corpus, options, capsys):
    backbone.layer_shape = lambda side: (4, 6) if side == "page" else (4, 3)
    plain = backbone.embed
    backbone.embed = lambda batch: plain(batch)[:, :, : backbone.layer_shape(batch[0].side)[1]]
    embedded = EmbeddedCorpus(corpus, backbone, options).take(corpus)
    assert embedded.stores.queries.shape == (len(corpus.queries), 4, 3)
    assert embedded.stores.pages.shape == (len(corpus.pages), 4, 6)
    assert "4 layers x 6 and 4 layers x 3" in capsys.readouterr().err


# --- what is told


def test_sizes_are_told_before_it_starts_of_what_is_missing_only(backbone, corpus, options, capsys):
    part = corpus.split("validation")
    n_queries, n_pages = len(part.queries), len(part.pages)
    backbone.spoil = lambda item_id, layers: said.append(capsys.readouterr().err) or layers
    said = []
    embedded_corpus = EmbeddedCorpus(corpus, backbone, options)
    embedded_corpus.take(part)
    kilobytes = round((n_queries + n_pages) * 4 * 6 * 4 / 1000)
    assert said[0] == f"embedding {n_pages} pages and {n_queries} queries with pretend: 4 layers x 6, {kilobytes} kB\n"
    said.clear()
    embedded_corpus.take(part)
    assert not said and not capsys.readouterr().err
    shard = embedded_corpus.take(part).stores.pages.items.shards[0]
    shard.path.unlink()
    embedded_corpus.take(part)
    assert said[0].startswith(f"embedding {len(shard.ids)} pages with pretend: 4 layers x 6, ")
    assert capsys.readouterr().out == ""


def test_a_disk_without_room_is_told_before_anything_runs(backbone, corpus, options, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000))
    with pytest.raises(StoreError, match=r"embedding 180 pages and 21 queries .*: .* has no room for that, 5 kB are"):
        opened(corpus, backbone, options).take(corpus)
    assert backbone.batches == []


def test_facts_hold_what_was_run(backbone, corpus, options):
    part = corpus.split("validation")
    facts = opened(corpus, backbone, options).take(part).facts()
    assert (facts["corpus"], facts["corpus_part"], facts["n_queries"]) == ("tiny", "validation", len(part.queries))
    assert facts["backbone"] == backbone.key() and facts["noise_floor"]["n_items"] == 16
    assert facts["stores"]["pages"].startswith(str(options.store))


def test_a_command_gets_the_times_of_the_stages(backbone, corpus, options):
    names = []
    run = SimpleNamespace(stage=names.append)
    opened(corpus, backbone, options, run=run).take(corpus)
    assert names == ["embed"]


def test_queries_that_are_the_same_in_both_forms_share_their_store(backbone, corpus, verbatim, options):
    opened(corpus, backbone, options).take(corpus)
    backbone.batches.clear()
    queries = opened(verbatim, backbone, options).take(verbatim).stores.queries
    assert not {query.query_id for query in verbatim.queries} & set(backbone.embedded())
    assert len(queries) == len(corpus.queries) and isinstance(verbatim.queries[0], Query)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [({"token_budget": 0}, "token_budget must be at least 1 token; got 0"), ({"memory_gb": 0.0}, "memory_gb must be")],
)
def test_options_out_of_range_are_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        StoreOptions(**wrong)
