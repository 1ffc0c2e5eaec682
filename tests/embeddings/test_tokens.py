"""Token vectors: extraction and store, as for pooled layers, and what they cost."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from miner_diag.corpus.core import Page
from miner_diag.embeddings import (
    DamagedStoreError,
    ForeignStoreError,
    NonFiniteError,
    StoreError,
    UnfinishedStoreError,
    extract,
    extract_corpus_tokens,
    extract_tokens,
    open_store,
    open_token_store,
    score_stores,
)
from miner_diag.embeddings.tokens import TokenWriter
from miner_diag.retrieval import maxsim_scores

CORPUS = {"corpus": "tiny", "corpus_revision": "sha256:1"}
SMALL = {"corpus_key": CORPUS, "token_budget": 60, "shard_items": 6, "progress": False}
KEY = {"backbone": "pretend"}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def alone(late, items, side):
    return [late.embed_tokens([item])[0] for item in late.prepare(items, side)]


def test_items_come_back_in_their_order_and_length(late, pages, tmp_path):
    pages = [*pages, Page("blank", "d", 41, "", "h")]
    prepare = late.prepare
    late.prepare = lambda items, side: [replace(e, truncated=e.item_id in ("p3", "p30")) for e in prepare(items, side)]
    store = extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)
    expected = alone(late, pages, "page")
    assert store.ids == tuple(page.page_id for page in pages)
    assert store.lengths.tolist() == [len(tokens) for tokens in expected]
    for number, tokens in enumerate(expected):
        np.testing.assert_array_equal(store.token_vectors.item(number), tokens)
    assert store.counts == {"empty": 1, "truncated": 2}
    assert all(isinstance(tokens.vectors, np.memmap) for _, tokens in store.parts())
    with pytest.raises(ValueError, match="read-only"):
        store.token_vectors.vectors[0] = 0


def test_cost_is_counted(late, pages, tmp_path):
    store = extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)
    lengths = [max(1, len(page.text.split())) for page in pages]
    cost = store.cost
    assert (cost.items, cost.tokens_total, cost.tokens_max) == (40, sum(lengths), max(lengths))
    assert cost.tokens_mean == pytest.approx(sum(lengths) / 40)
    assert (cost.bytes_total, cost.bytes_max) == (sum(lengths) * 6 * 4, max(lengths) * 6 * 4)
    half = extract_tokens(late, pages, "page", tmp_path / "half", stored_dtype="float16", **SMALL)
    assert half.cost.bytes_total * 2 == cost.bytes_total and half.cost.bytes_mean * 2 == cost.bytes_mean
    on_disk = [sum(path.stat().st_size for path in s.folder.glob("shard-*")) for s in (half, store)]
    assert on_disk[1] - on_disk[0] == half.cost.bytes_total


def test_scores_are_those_of_all_tokens_at_once_whatever_the_shards(late, pages, queries, tmp_path):
    sides = [
        extract_tokens(late, items, side, tmp_path / side, **SMALL)
        for items, side in ((queries, "query"), (pages, "page"))
    ]
    scores = score_stores(*sides, progress=False)
    np.testing.assert_array_equal(scores, maxsim_scores(sides[0].token_vectors, sides[1].token_vectors))
    larger = extract_tokens(late, pages, "page", tmp_path / "larger", **{**SMALL, "shard_items": 50})
    np.testing.assert_array_equal(scores, score_stores(sides[0], larger, progress=False))
    half = extract_tokens(late, pages, "page", tmp_path / "half", stored_dtype="float16", **SMALL)
    moved = np.abs(score_stores(sides[0], half, progress=False) - scores) / sides[0].lengths[:, None]
    assert 0 < moved.max() < 1e-3


def test_a_faulty_token_is_named_by_its_page(late, pages, queries, tmp_path):
    late.spoil = lambda item_id, tokens: tokens * (0 if item_id == "p9" else 1)
    sides = [
        extract_tokens(late, items, side, tmp_path / side, **SMALL)
        for items, side in ((queries, "query"), (pages, "page"))
    ]
    with pytest.raises(ValueError, match=r"token 0 of page 'p9' \(row 3\) is the zero vector"):
        score_stores(*sides, progress=False)


def test_a_finished_store_is_opened_without_a_forward(late, pages, tmp_path):
    extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)
    late.prepare = lambda items, side: pytest.fail("nothing needs preparing")
    extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)


def test_no_more_than_a_shard_is_prepared_at_once_and_each_item_runs_once(late, pages, tmp_path):
    prepare, sizes = late.prepare, []
    late.prepare = lambda items, side: sizes.append(len(items)) or prepare(items, side)
    extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)
    assert sizes == [6] * 6 + [4]
    assert sorted(name for batch in late.batches for name in batch) == sorted(page.page_id for page in pages)
    words = {page.page_id: max(1, len(page.text.split())) for page in pages}
    assert all(len(batch) == 1 or len(batch) * max(words[n] for n in batch) <= 60 for batch in late.batches)


def test_a_stopped_run_is_taken_up_where_it_stopped(late, pages, tmp_path):
    whole = content(extract_tokens(late, pages, "page", tmp_path / "whole", **SMALL).folder)

    def stop(item_id, tokens):
        if item_id == "p20":
            raise KeyboardInterrupt
        return tokens

    late.spoil = stop
    with pytest.raises(KeyboardInterrupt):
        extract_tokens(late, pages, "page", tmp_path / "stopped", **SMALL)
    with pytest.raises(UnfinishedStoreError, match="has not finished; start it again"):
        open_token_store(tmp_path / "stopped")
    late.spoil = lambda item_id, tokens: tokens
    late.batches.clear()
    extract_tokens(late, pages, "page", tmp_path / "stopped", **SMALL)
    assert content(tmp_path / "stopped") == whole
    assert sorted({name for batch in late.batches for name in batch}) == sorted(f"p{n}" for n in range(18, 40))


def test_another_key_or_dtype_is_refused_by_field(late, pages, tmp_path):
    extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)
    with pytest.raises(ForeignStoreError, match="stored_dtype: 'float32' there, 'float16' asked for"):
        extract_tokens(late, pages, "page", tmp_path / "s", stored_dtype="float16", **SMALL)
    late.revision = "sha256:1"
    with pytest.raises(ForeignStoreError) as caught:
        extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)
    assert caught.value.fields == ("backbone_revision",)


def test_the_two_kinds_of_store_are_not_taken_for_each_other(late, backbone, pages, tmp_path):
    extract_tokens(late, pages, "page", tmp_path / "tokens", **SMALL)
    extract(backbone, pages, "page", tmp_path / "layers", **SMALL)
    with pytest.raises(StoreError, match="is a store of token vectors, not of pooled layers"):
        open_store(tmp_path / "tokens")
    with pytest.raises(StoreError, match="is a store of pooled layers, not of token vectors"):
        extract_tokens(late, pages, "page", tmp_path / "layers", **SMALL)


def test_out_of_memory_halves_the_batch_and_changes_nothing(late, pages, tmp_path, caplog):
    whole = extract_tokens(late, pages, "page", tmp_path / "whole", **SMALL)
    late.room = 1
    with caplog.at_level(logging.WARNING):
        small = extract_tokens(late, pages, "page", tmp_path / "small", **SMALL)
    assert "the batch is halved" in caplog.text
    np.testing.assert_array_equal(small.token_vectors.vectors, whole.token_vectors.vectors)


def test_not_finite_is_named(late, pages, tmp_path):
    def spoil(item_id, tokens):
        return np.where(np.arange(len(tokens))[:, None] == 2, np.nan, tokens) if item_id == "p7" else tokens

    late.spoil = lambda item_id, tokens: spoil(item_id, tokens).astype(np.float32)
    with pytest.raises(NonFiniteError, match="token 2 of page 'p7' is not finite in pretend"):
        extract_tokens(late, pages, "page", tmp_path / "s", **SMALL)


def test_both_sides_of_a_corpus(late, corpus, tmp_path):
    stores = extract_corpus_tokens(late, corpus, tmp_path, stored_dtype="float16", progress=False)
    assert (len(stores.queries), len(stores.pages)) == (12, 40)
    assert stores.pages.key["corpus_part"] == "validation" and stores.pages.dtype == np.float16


@pytest.mark.parametrize("at", [0, 9, 60, 200, 300, -30, -1])
def test_a_damaged_shard_is_refused_by_name(late, pages, tmp_path, at):
    folder = extract_tokens(late, pages, "page", tmp_path / "s", **SMALL).folder
    path = folder / "shard-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedStoreError, match=r"shard-00002\.safetensors is damaged: its sha256 is"):
        open_token_store(folder)
    (folder / "shards.json").unlink()
    with pytest.raises(DamagedStoreError, match=r"shard-00002\.safetensors is damaged"):
        extract_tokens(late, pages, "page", folder, **SMALL)


def test_bad_arguments_are_named(late, pages, tmp_path):
    with pytest.raises(ValueError, match="shard_items must be at least 1; got 0"):
        extract_tokens(late, pages, "page", tmp_path / "s", **{**SMALL, "shard_items": 0})
    with pytest.raises(ValueError, match="items must hold at least one page; got none"):
        extract_tokens(late, [], "page", tmp_path / "s", **SMALL)
    with pytest.raises(ValueError, match="dtype must be one of float32, float16; got 'bfloat16'"):
        TokenWriter(tmp_path / "s", KEY, ["a"], 3, "bfloat16")
    writer = TokenWriter(tmp_path / "s", KEY, ["a", "b"], 3)
    for wrong in (np.ones((2, 4), np.float32), np.ones((0, 3), np.float32), np.ones((2, 3))):
        with pytest.raises(ValueError, match=r"float32 \[tokens, 3\], at least one token; item 1 has"):
            writer.write(0, [0, 1], [np.ones((1, 3), np.float32), wrong], [0, 0])
    header = json.loads((tmp_path / "s" / "key.json").read_text())
    assert header["kind"] == "token vectors" and header["width"] == 3
