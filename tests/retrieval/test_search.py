"""Exact search: against a plain loop, under blocks, with ties, and on bad vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.retrieval import (
    Hits,
    PreparedPages,
    ndcg_at_k,
    ndcg_of_run,
    ndcg_with_ties,
    score_all,
    search,
    top_k,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def naive_cosine(queries, pages):
    queries, pages = (side.astype(np.float64) for side in (queries, pages))
    return np.array([[q @ p / np.sqrt(q @ q) / np.sqrt(p @ p) for p in pages] for q in queries])


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("miner_diag.retrieval.search._BLOCK_BYTES", 8 * 7 * 5)


def test_cosine_and_dot_are_what_they_say(rng):
    queries, pages = rng.normal(size=(6, 5)).astype(np.float32), 3 * rng.normal(size=(9, 5)).astype(np.float32)
    scores = score_all(queries, pages)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, naive_cosine(queries, pages), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        score_all(queries, pages, "dot"), queries.astype(np.float64) @ pages.T.astype(np.float64), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_does_not_know_the_scale(rng, scale):
    queries, pages = rng.normal(size=(4, 8)), rng.normal(size=(5, 8))
    scaled = (queries * scale).astype(np.float32)
    np.testing.assert_allclose(score_all(scaled, pages), naive_cosine(queries, pages), rtol=1e-5, atol=1e-6)


def test_search_is_the_sorted_matrix(rng):
    queries, pages = rng.normal(size=(20, 4)), rng.normal(size=(33, 4))
    scores = score_all(queries, pages)
    hits = top_k(queries, pages, k=10)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(hits.pages, expected)
    np.testing.assert_array_equal(hits.scores, np.take_along_axis(scores, expected, axis=1))
    assert hits.scores.dtype == np.float32


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_blocks_do_not_matter_to_the_last_bit(rng, similarity, request):
    queries = rng.normal(size=(23, 7)).astype(np.float32)
    pages = rng.integers(-1, 2, size=(41, 7)).astype(np.float32) + np.float32(0.1)  # few values: equal pages occur
    whole, hits = score_all(queries, pages, similarity), top_k(queries, pages, 6, similarity)
    request.getfixturevalue("small_blocks")
    np.testing.assert_array_equal(score_all(queries, pages, similarity), whole)
    again = top_k(queries, pages, 6, similarity)
    np.testing.assert_array_equal(again.pages, hits.pages)
    np.testing.assert_array_equal(again.scores, hits.scores)


def test_equal_pages_tie_and_come_in_their_order(rng, small_blocks):
    page = rng.normal(size=384).astype(np.float32)
    pages = np.repeat(page[None], 50, axis=0) * np.linspace(0.5, 2, 50, dtype=np.float32)[:, None].round()  # 0, 1 or 2
    pages[pages.max(axis=1) == 0] = page
    queries = rng.normal(size=(9, 384)).astype(np.float32)
    scores = score_all(queries, pages)
    assert (scores == scores[:, :1]).all()
    assert (top_k(queries, pages, 4).pages == np.arange(4)).all()
    assert ndcg_with_ties(scores, np.arange(9)).tie_rate == 1.0


def test_zero_and_minus_zero_tie():
    hits = top_k(np.array([[1.0, 0.0]]), np.array([[-0.0, 1.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]]), 4)
    assert hits.pages.tolist() == [[3, 0, 1, 2]]
    assert hits.scores.tolist() == [[1.0, 0.0, 0.0, -1.0]]


# --- the first pass in float32


def close_vectors(kind, n_pages, width=24):
    """Queries and pages whose cosines differ little, or not at all."""
    rng = np.random.default_rng(width)
    queries, pages = rng.normal(size=(13, width)), rng.normal(size=(n_pages, width))
    if kind == "one direction":
        pages = 1e-4 * pages + np.ones(width)
        queries += 3 * np.ones(width)
    elif kind == "copies":
        pages = pages[rng.integers(0, n_pages // 40, n_pages)]
    elif kind == "one page":
        pages = np.repeat(pages[:1], n_pages, axis=0)
    elif kind == "rising":
        pages = pages[np.argsort(pages @ queries[0] / np.linalg.norm(pages, axis=1))]
    elif kind == "of all sizes":
        pages *= 10.0 ** rng.integers(-30, 30, (n_pages, 1))
    return queries, pages


KINDS = ["spread", "one direction", "copies", "one page", "rising", "of all sizes"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("blocks", [1 << 24, 8 * 24 * 150, 8 * 24 * 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_is_screened_is_the_sorted_matrix(kind, blocks, dtype, monkeypatch):
    queries, pages = (side.astype(dtype) for side in close_vectors(kind, 900))
    scores = score_all(queries, pages)
    expected = np.argsort(-scores, axis=1, kind="stable")
    monkeypatch.setattr("miner_diag.retrieval.search._BLOCK_BYTES", blocks)
    for k in (1, 10, 45):
        hits = top_k(queries, pages, k)
        np.testing.assert_array_equal(hits.pages, expected[:, :k])
        np.testing.assert_array_equal(hits.scores, np.take_along_axis(scores, expected[:, :k], axis=1))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("blocks", [1 << 24, 8 * 24 * 7])
@pytest.mark.parametrize("kind", KINDS)
def test_prepared_pages_are_found_as_others_are_bit_for_bit(kind, blocks, dtype, monkeypatch):
    queries, pages = (side.astype(dtype) for side in close_vectors(kind, 900))
    monkeypatch.setattr("miner_diag.retrieval.search._BLOCK_BYTES", blocks)
    prepared = PreparedPages(pages)
    for asked in (queries[:1], queries):  # one query takes all pages at once, several take them in blocks
        for k in (1, 45, 60):  # the last is not screened
            hits, expected = prepared.top_k(asked, k), top_k(asked, pages, k)
            np.testing.assert_array_equal(hits.pages, expected.pages)
            np.testing.assert_array_equal(hits.scores, expected.scores)


def test_prepared_pages_are_prepared_once(rng, monkeypatch):
    prepared = PreparedPages(rng.normal(size=(500, 6)))
    shapes = []
    unit_rows = search._unit_float32
    monkeypatch.setattr(search, "_unit_float32", lambda block: shapes.append(len(block)) or unit_rows(block))
    prepared.top_k(rng.normal(size=(3, 6)), 5)
    assert len(prepared) == 500 and shapes == [3]


def test_bad_pages_and_queries_are_named_when_they_are_given(rng):
    bad = rng.normal(size=(5, 4))
    bad[3] = 0
    with pytest.raises(ValueError, match=r"page 'doc#4' \(row 3\) is the zero vector"):
        PreparedPages(bad, page_ids=[f"doc#{number + 1}" for number in range(5)])
    prepared = PreparedPages(rng.normal(size=(5, 4)))
    with pytest.raises(ValueError, match="query 3 is the zero vector"):
        prepared.top_k(bad, 1)
    with pytest.raises(ValueError, match=r"one width D; got \[5, 3\] and \[0, 4\]"):
        prepared.top_k(bad[:, :3], 1)
    with pytest.raises(ValueError, match="k must be between 1 and the number of pages, 5; got 6"):
        prepared.top_k(bad[:3], 6)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_float32_cosines_are_within_the_stated_error(width, seed):
    rng = np.random.default_rng(seed)
    queries, pages = rng.normal(size=(4, width)), rng.normal(size=(50, width)) ** 3
    exact = search.prepared_rows(queries, "cosine") @ search.prepared_rows(pages, "cosine").T
    screened = search._unit_float32(queries) @ search._unit_float32(pages).T
    assert 2 * np.abs(screened - exact).max() < search._screening_gap(width)


def test_without_the_stated_error_pages_are_lost(monkeypatch):
    queries, pages = close_vectors("one direction", 900)
    expected = np.argsort(-score_all(queries, pages), axis=1, kind="stable")[:, :10]
    monkeypatch.setattr("miner_diag.retrieval.search._screening_gap", lambda width: 0.0)
    assert (top_k(queries, pages, 10).pages != expected).any()


def test_only_queries_that_screening_leaves_in_question_are_searched_in_float64(monkeypatch):
    searched = []
    exact = search._exact_top_k
    monkeypatch.setattr(
        search, "_exact_top_k", lambda queries, *rest: searched.append(len(queries)) or exact(queries, *rest)
    )
    top_k(*close_vectors("spread", 900), 10)
    assert searched == []
    top_k(*close_vectors("one page", 900), 10)
    assert searched == [13]
    top_k(*close_vectors("spread", 900), 10, "dot")  # a dot product has no bound that is known beforehand
    top_k(*close_vectors("spread", 900), 50)  # so many hits that a first pass would not pay
    assert searched == [13, 13, 13]


def test_no_query_is_no_hit():
    assert top_k(np.empty((0, 4)), np.ones((50, 4)), 2).pages.shape == (0, 2)


def test_hits_of_a_matrix_are_its_sorted_rows(rng, small_blocks):
    scores = rng.integers(-2, 3, (9, 30)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 7, 30):
        hits = Hits.of_scores(scores, k)
        np.testing.assert_array_equal(hits.pages, order[:, :k])
        np.testing.assert_array_equal(hits.scores, np.take_along_axis(scores, order[:, :k], axis=1))
    assert Hits.of_scores(scores, 99).pages.shape == (9, 30)  # no more than there are


def test_half_precision_vectors_are_scored_as_float32(rng):
    vectors = rng.normal(size=(5, 6)).astype(np.float16)
    assert score_all(vectors, vectors).diagonal() == pytest.approx(np.ones(5))
    many = rng.normal(size=(200, 6)).astype(np.float16)
    np.testing.assert_array_equal(top_k(vectors, many, 3).pages, np.argsort(-score_all(vectors, many), axis=1)[:, :3])


def test_run_of_the_hits_scores_like_the_matrix(rng):
    queries, pages, gold = rng.normal(size=(12, 6)), rng.normal(size=(30, 6)), rng.integers(0, 30, 12)
    names = [f"p{i}" for i in range(30)]
    run = top_k(queries, pages, 8).to_run([f"q{i}" for i in range(12)], names)
    qrels = {f"q{i}": {f"p{g}": 1} for i, g in enumerate(gold)}
    np.testing.assert_array_equal(ndcg_of_run(qrels, run).values, ndcg_at_k(score_all(queries, pages), gold))
    with pytest.raises(ValueError, match="query_ids must name 12 queries; got 1"):
        top_k(queries, pages, 8).to_run(["q0"], names)


def test_arguments_are_not_changed(rng):
    vectors = rng.normal(size=(5, 6))
    kept = vectors.copy()
    vectors.flags.writeable = False
    score_all(vectors, vectors)
    np.testing.assert_array_equal(vectors, kept)


def test_bad_vectors_are_named(rng):
    good, bad = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    bad[3] = 0
    with pytest.raises(ValueError, match=r"page 'doc#4' \(row 3\) is the zero vector"):
        score_all(good, bad, page_ids=[f"doc#{i + 1}" for i in range(5)])
    with pytest.raises(ValueError, match="query 3 is the zero vector"):
        top_k(bad, good, 1)
    assert score_all(good, bad, "dot")[0, 3] == 0  # a dot product with zero exists
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="page 3 holds NaN or Inf"):
        score_all(good, bad, "dot")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.ones((2, 4)), 1), r"one width D; got \[2, 3\] and \[2, 4\]"),
        ((np.ones(3), np.ones((2, 3)), 1), "one width D"),
        ((np.ones((2, 3)), np.ones((2, 3)), 3), "k must be between 1 and the number of pages, 2; got 3"),
        ((np.ones((2, 3)), np.ones((2, 3)), 0), "k must be between 1"),
        ((np.ones((2, 3)), np.ones((2, 3)), 1, "euclid"), "similarity must be 'cosine' or 'dot'; got 'euclid'"),
        ((np.full((2, 3), 1e30), np.full((2, 3), 1e30), 1, "dot"), "beyond float32"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        top_k(*arguments)
