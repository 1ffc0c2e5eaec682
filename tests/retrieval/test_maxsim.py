"""Late interaction: against a plain loop, under blocks of any size, with ties, long pages and bad vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.retrieval import TokenVectors, maxsim_scores, ndcg_with_ties, score_all


def ragged(rng, lengths, width=5, dtype=np.float32):
    return TokenVectors.from_items([rng.normal(size=(n, width)).astype(dtype) for n in lengths])


def loop(queries, pages, similarity="cosine"):
    """The definition, one pair of tokens after the other, in float64."""

    def rows(side, i):
        vectors = side.item(i).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if similarity == "cosine" else vectors

    return np.array(
        [
            [sum(max(float(t @ u) for u in rows(pages, p)) for t in rows(queries, q)) for p in range(len(pages))]
            for q in range(len(queries))
        ]
    )


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.tuples(*[st.lists(st.integers(1, 9), min_size=1, max_size=6)] * 2),
    similarity=st.sampled_from(["cosine", "dot"]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    workspace=st.sampled_from([1, 8 * 512 * 2, 8 * 512 * 7, 1 << 25]),
)
def test_equals_the_loop_whatever_the_blocks(lengths, similarity, dtype, workspace):
    rng = np.random.default_rng(sum(map(sum, lengths)))
    queries, pages = (ragged(rng, some, dtype=dtype) for some in lengths)
    scores = maxsim_scores(queries, pages, similarity, workspace=workspace)
    assert scores.dtype == np.float32 and scores.shape == (len(queries), len(pages))
    np.testing.assert_allclose(scores, loop(queries, pages, similarity), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(scores, maxsim_scores(queries, pages, similarity))


def test_long_queries_and_a_page_longer_than_any_block(rng):
    queries, pages = ragged(rng, [3, 1300, 700, 2], width=3), ragged(rng, [2, 900, 1, 4], width=3)
    scores = maxsim_scores(queries, pages)
    np.testing.assert_allclose(scores, loop(queries, pages), rtol=1e-6)
    for workspace in (8 * 512, 8 * 512 * 100):
        np.testing.assert_array_equal(maxsim_scores(queries, pages, workspace=workspace), scores)


def test_one_token_each_is_single_vector_search(rng):
    queries, pages = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    tokens = [TokenVectors(side, np.arange(len(side) + 1)) for side in (queries, pages)]
    np.testing.assert_array_equal(maxsim_scores(*tokens), score_all(queries, pages))


def test_the_order_of_a_pages_tokens_does_not_count_and_more_tokens_never_lower_a_score(rng):
    queries, pages = ragged(rng, [4, 7]), ragged(rng, [6, 8, 3])
    turned = TokenVectors.from_items([pages.item(p)[::-1] for p in range(3)])
    np.testing.assert_array_equal(maxsim_scores(queries, turned), maxsim_scores(queries, pages))
    fewer = TokenVectors.from_items([pages.item(p)[:2] for p in range(3)])
    assert (maxsim_scores(queries, fewer) <= maxsim_scores(queries, pages)).all()
    assert (maxsim_scores(queries, fewer) < maxsim_scores(queries, pages)).any()


def test_nothing_is_padded_negative_similarities_stay_negative():
    queries = TokenVectors.from_items([np.array([[1.0, 0.0]])])
    pages = TokenVectors.from_items([np.array([[-1.0, 0.0]]), np.array([[-1.0, 0.0], [-3.0, 4.0], [-4.0, 3.0]])])
    np.testing.assert_allclose(maxsim_scores(queries, pages), [[-1.0, -0.6]], rtol=1e-7)


def test_pages_with_equal_tokens_tie_wherever_they_stand(rng):
    """The expected nDCG of n tied pages is that of chance."""
    page = rng.normal(size=(37, 96)).astype(np.float32)
    pages = TokenVectors.from_items([page] * 40)
    queries = ragged(rng, [11] * 20, width=96)
    for workspace in (8 * 512 * 53, 1 << 25):
        scores = maxsim_scores(queries, pages, workspace=workspace)
        assert (scores == scores[:, :1]).all()
    ndcg = ndcg_with_ties(scores, np.zeros(20, dtype=int))
    assert ndcg.tie_rate == 1
    np.testing.assert_allclose(ndcg.values, sum(1 / np.log2(rank + 1) for rank in range(1, 6)) / 40)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_does_not_know_the_scale_of_a_token(rng, scale):
    queries, pages = ragged(rng, [3, 2], dtype=np.float64), ragged(rng, [5, 4], dtype=np.float64)
    scaled = TokenVectors(pages.vectors * scale, pages.offsets)
    np.testing.assert_allclose(maxsim_scores(queries, scaled), maxsim_scores(queries, pages), rtol=1e-6)


def test_inputs_are_not_changed_and_may_be_read_only_and_mapped(rng, tmp_path):
    queries, pages = ragged(rng, [3, 2]), ragged(rng, [5, 4])
    pages.vectors.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", dtype=np.float32, mode="r", shape=pages.vectors.shape)
    np.testing.assert_array_equal(
        maxsim_scores(queries, TokenVectors(mapped, pages.offsets)), maxsim_scores(queries, pages)
    )


def test_bad_tokens_are_named(rng):
    good, bad = ragged(rng, [3, 2]), ragged(rng, [2, 4, 3])
    bad.vectors[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"token 2 of page 'b' \(row 1\) holds NaN or Inf"):
        maxsim_scores(good, bad, page_ids=["a", "b", "c"])
    bad.vectors[4] = 0
    with pytest.raises(ValueError, match="token 2 of page 1 is the zero vector, which has no cosine"):
        maxsim_scores(good, bad, workspace=1)
    assert np.isfinite(maxsim_scores(good, bad, "dot")).all()
    with pytest.raises(ValueError, match="token 2 of query 1 is the zero vector"):
        maxsim_scores(bad, good)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"similarity": "euclid"}, "similarity must be 'cosine' or 'dot'; got 'euclid'"),
        ({"workspace": 0}, "workspace must be at least 1 byte; got 0"),
        ({"query_ids": ["a"]}, "query_ids must name 2 items; got 1"),
        ({"queries": TokenVectors(np.ones((2, 3)), np.array([0, 2]))}, "one width; got 3 and 5"),
        ({"queries": TokenVectors(np.full((2, 5), 1e30), np.array([0, 2])), "similarity": "dot"}, "beyond float32"),
    ],
)
def test_bad_arguments_are_named(rng, change, message):
    arguments = {"queries": ragged(rng, [3, 2]), "pages": TokenVectors(np.full((2, 5), 1e30), np.array([0, 2]))}
    with pytest.raises(ValueError, match=message):
        maxsim_scores(**{**arguments, **change})


@pytest.mark.parametrize(
    ("vectors", "offsets", "message"),
    [
        (np.ones(3), [0, 3], r"vectors must be \[tokens, width\] in float16, float32 or float64; got \[3\] float64"),
        (np.ones((3, 2), dtype=int), [0, 3], "int64"),
        (np.ones((3, 2)), [0.0, 3.0], r"offsets must be whole numbers \[N \+ 1\]; got \[2\] float64"),
        (np.ones((3, 2)), [0, 2], "from 0 to the number of tokens, 3; got 0 … 2"),
        (np.ones((3, 2)), [1, 3], "got 1 … 3"),
        (np.ones((3, 2)), [0, 2, 2, 3], "at least one token; item 1 has the offsets 2 and 2"),
    ],
)
def test_token_vectors_are_checked(vectors, offsets, message):
    with pytest.raises(ValueError, match=message):
        TokenVectors(vectors, np.array(offsets))


def test_items_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="one width and dtype"):
        TokenVectors.from_items([np.ones((1, 2)), np.ones((1, 3))])
    with pytest.raises(ValueError, match="at least one array"):
        TokenVectors.from_items([])
    with pytest.raises(ValueError, match="item must be 0 … 0; got 1"):
        TokenVectors.from_items([np.ones((1, 2))]).item(1)
