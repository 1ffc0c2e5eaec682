"""Ranking by vectors, a block of queries at a time, is ranking by the whole score matrix."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.retrieval import Relevance, ndcg_with_ties, score_all
from miner_diag.retrieval.ranking import ndcg_of_vectors


@pytest.fixture
def task(rng):
    """Fifty queries, some with several graded pages, over thirty pages of which ten are the same."""
    queries, pages = rng.normal(size=(50, 6)), rng.normal(size=(30, 6))
    pages[5:14] = pages[3]
    qrels = {
        f"q{row}": {f"p{page}": int(rng.integers(1, 3)) for page in rng.permutation(30)[: 1 + row % 3]}
        for row in range(50)
    }
    return queries, pages, Relevance.from_qrels(qrels, list(qrels), [f"p{page}" for page in range(30)])


@pytest.mark.parametrize("block", [1, 30, 100, 31 * 30, 1 << 26])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_blocks_of_queries_give_the_values_of_the_whole(task, monkeypatch, block, similarity):
    queries, pages, relevance = task
    monkeypatch.setattr("miner_diag.retrieval.ranking._BLOCK", block)
    expected = ndcg_with_ties(score_all(queries, pages, similarity), relevance, 5)
    result = ndcg_of_vectors(queries, pages, relevance, 5, similarity)
    for name in ("values", "worst", "best"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert (result.query_ids, result.k) == (expected.query_ids, 5)
    assert expected.tie_rate > 0


def test_the_score_matrix_is_never_whole(task, monkeypatch):
    shapes = []
    monkeypatch.setattr("miner_diag.retrieval.ranking._BLOCK", 120)

    def counted(queries, pages, *rest, **options):
        shapes.append((len(queries), len(pages)))
        return score_all(queries, pages, *rest, **options)

    monkeypatch.setattr("miner_diag.retrieval.ranking.score_all", counted)
    ndcg_of_vectors(*task)
    assert set(shapes) == {(4, 30), (2, 30)} and len(shapes) == 13


def test_a_bad_vector_is_named_and_rows_must_match(task):
    queries, pages, relevance = task
    queries[41] = 0
    with pytest.raises(ValueError, match="query 'q41' .*is the zero vector"):
        ndcg_of_vectors(queries, pages, relevance)
    pages[5, 2] = np.nan
    with pytest.raises(ValueError, match="page 'five' .*holds NaN"):
        ndcg_of_vectors(queries[:41], pages, cut(relevance, 41), page_ids=["", "", "", "", "", "five", *[""] * 24])
    with pytest.raises(ValueError, match="it has 50, queries has 49"):
        ndcg_of_vectors(queries[:49], pages, relevance)


def cut(relevance, n):
    kept = relevance.query < n
    return Relevance(
        relevance.query[kept], relevance.page[kept], relevance.grade[kept], relevance.query_ids[:n], relevance.n_pages
    )
