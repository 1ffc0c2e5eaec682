"""Token vectors: embedded and kept as pooled layers are, and what they cost."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from miner_diag.corpus.splits import resplit
from miner_diag.embeddings import (
    DamagedStoreError,
    EmbeddedCorpus,
    NonFiniteError,
    StoreError,
    TokenCorpus,
    score_stores,
)
from miner_diag.retrieval import maxsim_scores
from tests.embeddings.helpers import PretendBackbone, damage, kept_bytes, shard_bytes


def opened(corpus, late, options, **given):
    return TokenCorpus(corpus, late, options, progress=False, **given)


def alone(late, items, side):
    return [late.embed_tokens([item])[0] for item in late.prepare(items, side)]


@pytest.mark.parametrize("part_of", [lambda c: c, lambda c: c.split("test"), lambda c: resplit(c, 1).split("train")])
def test_items_come_back_in_their_order_and_length(late, corpus, options, part_of):
    blank, cut = corpus.pages[9].page_id, (corpus.pages[3].page_id, corpus.pages[30].page_id)
    corpus = replace(corpus, pages=tuple(replace(p, text="") if p.page_id == blank else p for p in corpus.pages))
    prepare = late.prepare
    late.prepare = lambda items, side: [replace(e, truncated=e.item_id in cut) for e in prepare(items, side)]
    part = part_of(corpus)
    store = opened(corpus, late, options).take(part).stores.pages
    expected = alone(late, part.pages, "page")
    assert store.ids == tuple(page.page_id for page in part.pages)
    assert store.lengths.tolist() == [len(tokens) for tokens in expected]
    for number, tokens in enumerate(expected):
        np.testing.assert_array_equal(store.token_vectors.item(number), tokens)
    listed = set(store.ids)
    counts = {"empty": int(blank in listed), "truncated": len(listed.intersection(cut))}
    assert store.counts == counts | {"characters": 0, "characters_read": 0}
    with pytest.raises(ValueError, match="read-only"):
        store.token_vectors.vectors[0] = 0


def test_whole_shards_are_mapped_and_a_few_items_of_one_are_copied(late, corpus, options):
    store = opened(corpus, late, options).take(corpus).stores.pages
    assert all(isinstance(tokens.vectors, np.memmap) for _, tokens in store.parts())
    some = store.take([store.ids[number] for number in (20, 3, 4)])
    assert sorted(position for positions, _ in some.parts() for position in positions) == [0, 1, 2]
    for number, item in enumerate((20, 3, 4)):
        np.testing.assert_array_equal(some.token_vectors.item(number), store.token_vectors.item(item))
    with pytest.raises(ValueError, match="was opened without item 'p'"):
        store.take(["p"])


def test_cost_is_counted(late, corpus, options):
    store = opened(corpus, late, options).take(corpus).stores.pages
    lengths = [max(1, len(page.text.split())) for page in corpus.pages]
    cost = store.cost
    assert (cost.items, cost.tokens_total, cost.tokens_max) == (180, sum(lengths), max(lengths))
    assert cost.tokens_mean == pytest.approx(sum(lengths) / 180)
    assert (cost.bytes_total, cost.bytes_max) == (sum(lengths) * 6 * 4, max(lengths) * 6 * 4)
    half = opened(corpus, late, options, stored_dtype="float16").take(corpus).stores.pages
    assert half.dtype == np.float16 and half.folder != store.folder
    assert half.cost.bytes_total * 2 == cost.bytes_total and half.cost.bytes_mean * 2 == cost.bytes_mean
    on_disk = [sum(path.stat().st_size for path in s.folder.glob("shards/*")) for s in (half, store)]
    assert abs(on_disk[1] - on_disk[0] - half.cost.bytes_total) <= 16 * len(store.items.shards)  # headers are padded


def test_scores_are_those_of_all_tokens_at_once_whatever_the_shards(late, corpus, options, monkeypatch):
    stores = opened(corpus, late, options).take(corpus).stores
    scores = score_stores(*stores, progress=False)
    np.testing.assert_array_equal(scores, maxsim_scores(stores.queries.token_vectors, stores.pages.token_vectors))
    half = opened(corpus, late, options, stored_dtype="float16").take(corpus).stores
    moved = np.abs(score_stores(stores.queries, half.pages, progress=False) - scores) / stores.queries.lengths[:, None]
    assert 0 < moved.max() < 1e-3
    part = resplit(corpus, 1).split("test")
    pages = [corpus.pages.index(page) for page in part.pages]
    queries = [corpus.queries.index(query) for query in part.queries]
    of_part = opened(corpus, late, options).take(part).stores
    np.testing.assert_array_equal(score_stores(*of_part, progress=False), scores[np.ix_(queries, pages)])
    from miner_diag.embeddings.tokens import TOKENS

    monkeypatch.setitem(TOKENS.shard_items, "page", 50)
    larger = opened(corpus, late, options).take(corpus).stores
    np.testing.assert_array_equal(score_stores(*larger, progress=False), scores)


def test_a_faulty_token_is_named_by_its_page(late, corpus, options):
    page_id = corpus.pages[9].page_id
    late.spoil = lambda item_id, tokens: tokens * (0 if item_id == page_id else 1)
    stores = opened(corpus, late, options).take(corpus).stores
    with pytest.raises(ValueError, match=rf"token 0 of page '{page_id}' \(row \d+\) is the zero vector"):
        score_stores(*stores, progress=False)


def test_each_item_runs_once_and_few_are_prepared_at_once(late, corpus, verbatim, options):
    for whole, split in ((corpus, "validation"), (verbatim, "all"), (corpus, "all"), (corpus, "test")):
        opened(whole, late, options).take(whole.split(split))
    expected = [query.query_id for query in corpus.queries] + [page.page_id for page in corpus.pages]
    expected += [page.page_id for page in verbatim.pages if page.words_hidden]
    assert sorted(late.embedded()) == sorted(expected)
    assert max(late.prepared) == 8
    late.prepare = lambda items, side: pytest.fail("nothing needs preparing")
    opened(corpus, late, options).take(corpus)


def test_a_stopped_run_is_taken_up_where_it_stopped(late, corpus, options, tmp_path):
    opened(corpus, late, replace(options, store=tmp_path / "whole")).take(corpus)
    late.batches.clear()

    def stop(item_id, tokens):
        if len(late.embedded()) > 70:
            raise KeyboardInterrupt
        return tokens

    late.spoil = stop
    with pytest.raises(KeyboardInterrupt):
        opened(corpus, late, options).take(corpus)
    n_kept = len(shard_bytes(options.store))
    assert n_kept > 5
    late.spoil = lambda item_id, tokens: tokens
    late.batches.clear()
    opened(corpus, late, options).take(corpus.split("train"))
    opened(corpus, late, options).take(corpus)
    assert kept_bytes(options.store) == kept_bytes(tmp_path / "whole")
    assert len(late.embedded()) < len(corpus.queries) + len(corpus.pages) - 60


def test_layers_and_tokens_lie_side_by_side(late, corpus, options):
    pages = opened(corpus, late, options).take(corpus).stores.pages
    layers = EmbeddedCorpus(corpus, PretendBackbone(), options, progress=False).take(corpus).stores.pages
    assert pages.folder.parent == layers.folder.parent == options.store
    assert "-tokens-" in pages.folder.name and "-layers-" in layers.folder.name
    assert pages.key["kind"] == "token vectors" and layers.key["kind"] == "pooled layers"
    late.name = "pretend"  # even of one name and key
    assert opened(corpus, late, options).take(corpus).stores.pages.folder != layers.folder


def test_out_of_memory_halves_the_batch_and_changes_nothing(late, corpus, options, tmp_path, caplog):
    whole = opened(corpus, late, replace(options, store=tmp_path / "whole")).take(corpus).stores.pages
    late.room = 1
    with caplog.at_level(logging.WARNING):
        small = opened(corpus, late, options).take(corpus).stores.pages
    assert "the batch is halved" in caplog.text
    np.testing.assert_array_equal(small.token_vectors.vectors, whole.token_vectors.vectors)


def test_not_finite_is_named(late, corpus, options):
    page_id = corpus.pages[7].page_id

    def spoil(item_id, tokens):
        return np.where(np.arange(len(tokens))[:, None] == 1, np.nan, tokens) if item_id == page_id else tokens

    late.spoil = lambda item_id, tokens: spoil(item_id, tokens).astype(np.float32)
    with pytest.raises(NonFiniteError, match=f"token 1 of page '{page_id}' is not finite in pretend-late"):
        opened(corpus, late, options).take(corpus)


@pytest.mark.parametrize(
    "wrong", [lambda t: t[:, :4], lambda t: t[:0], lambda t: t.astype(np.float64), lambda t: t[0]], ids=range(4)
)
def test_tokens_of_another_shape_or_precision_are_refused(late, corpus, options, wrong):
    late.spoil = lambda item_id, tokens: wrong(tokens)
    with pytest.raises(ValueError, match=r"float32 \[tokens, 6\], at least one token; pretend-late gave float.* for"):
        opened(corpus, late, options).take(corpus)


def test_a_damaged_shard_is_refused_by_name(late, corpus, options):
    path = opened(corpus, late, options).take(corpus).stores.pages.items.shards[2].path
    damage(path, 300)
    with pytest.raises(DamagedStoreError, match=rf"{path.name} is damaged"):
        opened(corpus, late, options).take(corpus)


def test_bad_arguments_are_named(late, corpus, options):
    with pytest.raises(ValueError, match="stored_dtype must be one of float32, float16; got 'bfloat16'"):
        opened(corpus, late, options, stored_dtype="bfloat16")
    blank = replace(corpus, pages=tuple(replace(page, text="") for page in corpus.pages))
    with pytest.raises(StoreError, match="pretend-late finds nothing to read on any of the 180 pages"):
        opened(blank, late, options).take(blank)


def test_facts_and_sizes_are_told(late, corpus, options, capsys):
    facts = TokenCorpus(corpus, late, options, stored_dtype="float16").take(corpus).facts()
    expected = "embedding 180 pages and 21 queries with pretend-late: every token kept, 12 bytes a token\n"
    assert capsys.readouterr().err == expected
    assert facts["stored_dtype"] == "float16" and facts["page_tokens"]["items"] == 180
    assert facts["stores"]["queries"].startswith(str(options.store)) and facts["n_pages"] == 180
