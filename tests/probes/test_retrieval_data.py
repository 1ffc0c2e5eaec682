import numpy as np
import pytest

from miner_diag.probes import RetrievalData
from miner_diag.probes.retrieval_data import layer_of, rows_of
from miner_diag.retrieval import Relevance
from tests.probes.helpers import stored

N = 200
"""Pages; a shard of a store holds fewer."""


@pytest.fixture
def store(tmp_path, rng):
    vectors = rng.normal(size=(N, 3, 4)).astype(np.float32)
    pages = stored(tmp_path / "store", lambda item_id: vectors[int(item_id[1:])], N, (3, 4)).pages
    assert len(pages.items.shards) > 1
    return pages, vectors


def test_rows_and_layers_are_the_same_from_memory_and_from_disk(store, rng):
    on_disk, vectors = store
    for rows in (rng.integers(0, N, 250), np.array([3]), np.array([], dtype=int)):
        np.testing.assert_array_equal(rows_of(on_disk, rows), rows_of(vectors, rows))
    for layer in range(3):
        np.testing.assert_array_equal(layer_of(on_disk, layer), layer_of(vectors, layer))
    assert "layer_embeddings" not in vars(on_disk)  # nothing was read whole


def test_a_row_that_is_not_there_is_refused(store):
    with pytest.raises(ValueError, match=r"rows must be 0 … 199; got 2 … 200"):
        store[0].rows(np.array([2, 200]))


def test_known_matches_by_hand(rng):
    vectors = rng.normal(size=(3, 2, 4)).astype(np.float32)
    # query 0 asks for pages 0 and 1; query 1 for 1; query 2 for 2, which looks like page 0
    relevance = Relevance.of([{0: 1, 1: 1}, {1: 1}, {2: 1}], n_pages=3)
    data = RetrievalData.of(vectors, vectors, relevance, ["same", "other", "same"])
    known = data.known_matches(np.array([0, 1, 2]), np.array([0, 1, 2]))
    assert known.tolist() == [[True, True, True], [False, True, False], [True, False, True]]
    queries, pages = data.pairs
    assert list(zip(queries.tolist(), pages.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1), (2, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_known_matches_are_those_of_two_loops(seed):
    rng = np.random.default_rng(seed)
    n_queries, n_pages = 9, 14
    answers = [
        dict.fromkeys(rng.choice(n_pages, rng.integers(1, 4), replace=False).tolist(), 1) for _ in range(n_queries)
    ]
    looks = [f"look {number}" for number in rng.integers(0, 8, n_pages)]
    queries, pages = (np.zeros((n, 1, 2), dtype=np.float32) for n in (n_queries, n_pages))
    data = RetrievalData.of(queries, pages, Relevance.of(answers, n_pages=n_pages), looks)
    rows, columns = rng.integers(0, n_queries, 12), rng.integers(0, n_pages, 20)  # some twice, in any order
    slow = [[any(looks[page] == looks[answer] for answer in answers[row]) for page in columns] for row in rows]
    fast = data.known_matches(rows, columns)
    assert fast.tolist() == slow and 0 < fast.mean() < 1
    assert data.known_matches(rows[:0], columns).shape == (0, 20)


def test_a_grade_of_zero_is_no_pair(rng):
    vectors = rng.normal(size=(2, 1, 4)).astype(np.float32)
    data = RetrievalData.of(vectors, vectors, Relevance.of([{0: 1, 1: 0}, {1: 2}], n_pages=2), ["a", "b"])
    assert data.pairs[1].tolist() == [0, 1]


def test_shuffling_keeps_vectors_and_breaks_pairs(small, rng):
    broken = small.shuffled(rng)
    assert broken.queries is small.queries
    assert sorted(broken.pairs[1]) == sorted(small.pairs[1])
    assert (broken.pairs[1] == small.pairs[1]).mean() < 0.3


def test_relevances_must_fit(rng):
    vectors = rng.normal(size=(3, 2, 4)).astype(np.float32)
    with pytest.raises(ValueError, match="relevance is of 2 queries and 3 pages; the vectors are of 3 and 3"):
        RetrievalData.of(vectors, vectors, Relevance.of(np.arange(2), n_pages=3), list("abc"))
