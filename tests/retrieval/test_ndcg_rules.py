"""Rules of nDCG that only show where scores are equal as float32, or grades are 0."""

import numpy as np
import pytest

from miner_diag.retrieval import Relevance, ndcg_at_k, ndcg_of_run, ndcg_with_ties, top_k

CLOSE = {"x": 0.5, "y": 0.5 + 1e-10, "z": 0.1}
"""x and y are one number as float32."""


@pytest.mark.parametrize("right", ["x", "y"])
def test_scores_of_a_run_are_compared_as_float32(right):
    ndcg = ndcg_of_run({"a": {right: 1}}, {"a": CLOSE}, k=1)
    assert ndcg.values.tolist() == [0.5] and ndcg.tie_rate == 1
    assert (ndcg.worst.tolist(), ndcg.best.tolist()) == ([0.0], [1.0])


def test_a_run_and_its_matrix_tie_alike(rng):
    exact = np.round(2 * rng.normal(size=(20, 15))) + 1e-10 * rng.normal(size=(20, 15))
    gold = rng.integers(0, 15, 20)
    run = {f"q{i}": {f"p{j}": float(s) for j, s in enumerate(row)} for i, row in enumerate(exact)}
    of_run = ndcg_of_run({f"q{i}": {f"p{g}": 1} for i, g in enumerate(gold)}, run)
    of_matrix = ndcg_with_ties(exact, gold)
    for name in ("values", "worst", "best"):
        np.testing.assert_array_equal(getattr(of_run, name), getattr(of_matrix, name))
    assert of_run.tie_rate > 0


@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0)])
def test_zero_and_minus_zero_are_one_score(zeros):
    scores = np.array([[*zeros, -1.0]])
    assert ndcg_at_k(scores, np.array([0]), 1).tolist() == [0.5]
    assert ndcg_of_run({"a": {"x": 1}}, {"a": dict(zip("xyz", scores[0], strict=True))}, 1).values.tolist() == [0.5]


def test_minus_zero_comes_in_the_order_of_pages():
    """Of pages with equal scores the first one comes first, also where one score is -0.0 and the other 0.0."""
    query = np.array([[-1.0, 0.0]])
    hits = top_k(query, np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]]), 3, "dot")
    assert hits.pages.tolist() == [[0, 1, 2]]
    assert not np.signbit(hits.scores).any()
    hits = top_k(query, np.array([[-0.0, 1.0], [0.0, 1.0], [-0.0, -1.0]]), 2, "dot")
    assert hits.pages.tolist() == [[0, 1]]


def test_a_grade_of_0_for_a_page_that_is_not_there_is_no_error():
    """Qrels of a whole collection name pages that a part of it does not hold; those of grade 0 change nothing."""
    qrels = {"a": {"x": 1, "gone": 0}, "b": {"y": 2, "gone": 0, "x": 0}}
    relevance = Relevance.from_qrels(qrels, ["a", "b"], ["x", "y"])
    assert (relevance.query.tolist(), relevance.page.tolist()) == ([0, 1, 1], [0, 1, 0])
    assert relevance.grade.tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="'gone', which is not among the 2 page_ids"):
        Relevance.from_qrels({"a": {"x": 1, "gone": 1}}, ["a"], ["x", "y"])


def test_the_gain_after_rank_k_is_nothing_for_the_ideal_and_for_the_run():
    scores, grades = np.array([[5.0, 4.0, 3.0, 2.0]]), np.array([[0.0, 3.0, 1.0, 2.0]])
    discount = 1 / np.log2([2, 3, 4, 5])
    found = [0.0, 3.0, 1.0, 2.0]
    ideal = [3.0, 2.0, 1.0, 0.0]
    for k in (1, 2, 3, 4):
        wanted = discount[:k] @ found[:k] / (discount[:k] @ ideal[:k])
        assert ndcg_at_k(scores, grades, k) == pytest.approx([wanted])


def test_a_cosine_that_rounds_to_minus_zero_ties_with_zero():
    """-1e-60 is -0.0 as float32, and so a tie with 0.0: the page that stands first comes first."""
    hits = top_k(np.array([[1.0, 0.0]]), np.array([[-1e-60, 1.0], [0.0, 1.0], [1e-60, 1.0]]), 3)
    assert hits.pages.tolist() == [[0, 1, 2]]
