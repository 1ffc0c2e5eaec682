"""Rows of the store: the vectors that were written, in the order asked for, and nothing else is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.embeddings import DamagedStoreError, EmbeddingStore
from tests.embeddings.helpers import written_store

PARTS = ([5, 0, 2], [1, 6], [3, 4])
VECTORS = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)
IDS = [f"p{number}" for number in range(7)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return written_store(tmp_path_factory.mktemp("stores"), VECTORS, IDS, PARTS)


def test_gives_back_what_was_written_in_the_items_order(store):
    assert (store.ids, store.shape, len(store)) == (tuple(IDS), (7, 3, 4), 7)
    assert store.key["backbone"] == "planted" and store.key["side"] == "page" and store.folder.is_dir()
    np.testing.assert_array_equal(store.layer_embeddings, VECTORS)
    for layer in range(3):
        np.testing.assert_array_equal(store.layer(layer), VECTORS[:, layer])
    assert store.layer_embeddings.dtype == store.layer(0).dtype == store.rows(np.array([1])).dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        store.layer_embeddings[0] = 0
    assert store.counts == {"empty": 0, "truncated": 0, "characters": 0, "characters_read": 0}


@given(order=st.permutations(range(7)), n=st.integers(1, 7))
def test_some_items_are_a_store_of_their_own(store, order, n):
    chosen = order[:n]
    rows = store.take([IDS[number] for number in chosen])
    assert rows.shape == (n, 3, 4) and len(rows) == n and rows.ids == tuple(IDS[number] for number in chosen)
    np.testing.assert_array_equal(rows.layer_embeddings, VECTORS[chosen])
    np.testing.assert_array_equal(rows.layer(1), VECTORS[chosen, 1])
    np.testing.assert_array_equal(rows.rows(np.arange(n)[::-1]), VECTORS[chosen][::-1])
    np.testing.assert_array_equal(rows.take(rows.ids[::-1]).layer_embeddings, VECTORS[chosen][::-1])


@given(st.lists(st.integers(0, 6), max_size=20))
def test_rows_are_given_as_often_as_they_are_asked_for(store, numbers):
    np.testing.assert_array_equal(store.rows(np.array(numbers, dtype=int)), VECTORS[numbers])


def test_nothing_is_read_whole_for_rows_and_layers(tmp_path):
    store = written_store(tmp_path, VECTORS, IDS, PARTS)
    store.take(["p1"]).layer(0), store.rows(np.array([2])), store.layer(1)
    assert "layer_embeddings" not in vars(store)
    assert all(isinstance(shard.tensors["layer_embeddings"], np.memmap) for shard in store.items.shards)


def test_what_is_not_there_is_named(store):
    with pytest.raises(ValueError, match=r"was opened without item 'p9' \(1 of 2 are not among the items"):
        store.take(["p1", "p9"])
    rows = store.take(["p1", "p2"])
    with pytest.raises(ValueError, match="rows must be 0 … 1; got 2 … 2"):
        rows.rows(np.array([2]))
    for layer in (3, -1):
        with pytest.raises(ValueError, match=f"layer must be 0 … 2; got {layer}"):
            rows.layer(layer)


def test_vectors_of_another_shape_are_refused(store):
    with pytest.raises(DamagedStoreError, match=r"it holds float32 \[3, 3, 4\]"):
        EmbeddingStore(store.items, (3, 5))
