"""Rows of a store: the same vectors as the store gives, in the order asked for, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.embeddings import StoreRows
from miner_diag.embeddings.store import StoreWriter


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    vectors = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)
    ids = [f"p{number}" for number in range(7)]
    writer = StoreWriter(tmp_path_factory.mktemp("store"), {"model": "m"}, ids, vectors.shape)
    for number, places in enumerate(([5, 0, 2], [1, 6], [3, 4])):
        writer.write(number, places, vectors[places])
    return writer.finish(3)


@given(order=st.permutations(range(7)), n=st.integers(1, 7))
def test_gives_the_vectors_of_its_items_in_its_order(store, order, n):
    chosen = order[:n]
    rows = StoreRows(store, [f"p{number}" for number in chosen])
    whole = store.layer_embeddings[chosen]
    assert rows.shape == whole.shape and len(rows) == n
    np.testing.assert_array_equal(rows.layer_embeddings, whole)
    np.testing.assert_array_equal(rows.layer(1), whole[:, 1])
    np.testing.assert_array_equal(rows.rows(np.arange(n)[::-1]), whole[::-1])


def test_names_the_item_that_is_not_there(store):
    with pytest.raises(ValueError, match=r"no item 'p9' \(1 of 2 are not there\)"):
        StoreRows(store, ["p1", "p9"])


def test_refuses_rows_and_layers_beyond_its_end(store):
    rows = StoreRows(store, ["p1", "p2"])
    with pytest.raises(ValueError, match="rows must be 0 … 1; got 2 … 2"):
        rows.rows(np.array([2]))
    with pytest.raises(ValueError, match="layer must be 0 … 2"):
        rows.layer(3)
