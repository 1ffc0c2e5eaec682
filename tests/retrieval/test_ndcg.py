"""nDCG@k: hand-derived numbers, a brute-force average, two independent implementations, bad input."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from miner_diag.retrieval import Relevance, chance_ndcg, ndcg_at_k, ndcg_of_run, ndcg_with_ties

D2 = 1 / np.log2(3)  # discount of rank 2; rank 1 has 1, rank 3 has 1 / log2(4) = 0.5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def untied(rng, n_queries, n_pages):
    """[Q, P] float32 scores without ties: a permutation per row, scaled."""
    return rng.permuted(np.tile(np.arange(n_pages), (n_queries, 1)), axis=1).astype(np.float32) / 7 - 3


# --- hand-derived


@pytest.mark.parametrize(
    ("scores", "gold", "k", "value"),
    [
        ([0.9, 0.8, 0.7], 0, 5, 1.0),
        ([0.9, 0.8, 0.7], 1, 5, D2),
        ([0.9, 0.8, 0.7], 2, 5, 0.5),
        ([0.9, 0.8, 0.7], 2, 2, 0.0),  # ranked third, only two ranks count
        ([-0.9, -0.8, -0.7], 0, 5, 0.5),  # negative scores are ordinary scores
    ],
)
def test_one_right_page_gains_the_discount_of_its_rank(scores, gold, k, value):
    assert ndcg_at_k(np.array([scores]), np.array([gold]), k) == pytest.approx([value])


def test_grades_gain_linearly():
    # ranking: grade 1, grade 0, grade 2; DCG = 1 + 0 + 2 * 0.5 = 2; ideal = 2 + 1 * D2
    assert ndcg_at_k(np.array([[3.0, 2.0, 1.0]]), np.array([[1, 0, 2]])) == pytest.approx([2 / (2 + D2)])


def test_ideal_is_cut_at_k_too():
    # three right pages, k = 2: the best possible is 1 + D2, and the ranking reaches it
    assert ndcg_at_k(np.array([[4.0, 3.0, 2.0, 1.0]]), np.array([[1, 1, 1, 0]]), k=2) == pytest.approx([1.0])


def test_three_way_tie_over_ranks_2_to_4():
    # page 0 is first; pages 1, 2, 3 share ranks 2, 3, 4 in any order; page 3 is right; k = 3, so rank 4 gains nothing:
    # (D2 + 0.5 + 0) / 3; broken for it: D2; broken against it: 0
    got = ndcg_with_ties(np.array([[0.9, 0.5, 0.5, 0.5, 0.1]]), np.array([3]), k=3)
    assert got.values == pytest.approx([(D2 + 0.5) / 3])
    assert (got.best, got.worst) == (pytest.approx([D2]), pytest.approx([0.0]))
    assert got.tie_rate == 1.0


def test_tie_between_grades():
    # grades 2 and 1 share ranks 1 and 2: each gains (1 + D2) / 2 of its grade on average; ideal 2 + D2
    got = ndcg_with_ties(np.array([[0.5, 0.5, 0.2]]), np.array([[2, 1, 0]]))
    assert got.values == pytest.approx([3 * (1 + D2) / 2 / (2 + D2)])
    assert got.worst == pytest.approx([(1 + 2 * D2) / (2 + D2)])
    assert got.best == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("scores", "grades"),
    [
        ([0.9, 0.9, 0.5], [0, 0, 1]),  # tied pages are both wrong
        ([0.9, 0.9, 0.5], [1, 1, 0]),  # tied pages are both right
        ([0.9, 0.8, 0.7, 0.1, 0.1], [1, 0, 0, 1, 0]),  # the tie is below rank k
    ],
)
def test_ties_that_change_nothing_are_not_counted(scores, grades):
    got = ndcg_with_ties(np.array([scores]), np.array([grades]), k=3)
    assert got.tie_rate == 0
    assert got.worst == pytest.approx(got.values)
    assert got.best == pytest.approx(got.values)


def test_tie_rate_is_a_share_of_queries():
    scores = np.array([[0.9, 0.5, 0.5], [0.9, 0.5, 0.4], [0.1, 0.1, 0.1], [0.3, 0.3, 0.9]])
    got = ndcg_with_ties(scores, np.array([1, 1, 1, 2]))
    assert got.order_matters.tolist() == [True, False, True, False]
    assert got.tie_rate == 0.5


def test_is_the_average_over_all_orders_of_tied_pages(rng):
    for _ in range(60):
        scores, grades = rng.integers(0, 3, 5), rng.integers(0, 3, 5)
        if not grades.any():
            continue
        k = int(rng.integers(1, 6))
        discounts = np.where(np.arange(5) < k, 1 / np.log2(np.arange(2, 7)), 0)
        ideal = np.sort(grades)[::-1] @ discounts
        orders = [order for order in map(list, permutations(range(5))) if (np.diff(scores[order]) <= 0).all()]
        each = [grades[order] @ discounts / ideal for order in orders]
        got = ndcg_with_ties(scores[None].astype(np.float32), grades[None], k)
        assert got.values[0] == pytest.approx(np.mean(each))
        assert (got.worst[0], got.best[0]) == (pytest.approx(min(each)), pytest.approx(max(each)))


# --- properties


def test_collapsed_layer_gets_chance_wherever_the_gold_page_stands():
    got = ndcg_with_ties(np.full((30, 30), 0.7, dtype=np.float32), np.arange(30))
    assert got.values == pytest.approx(np.full(30, chance_ndcg(30)))
    assert got.tie_rate == 1.0
    assert got.bounds == (0.0, 1.0)


def test_order_of_storage_does_not_matter(rng):
    scores, gold = rng.integers(0, 6, (40, 25)).astype(np.float32), rng.integers(0, 25, 40)
    order = rng.permutation(25)
    moved = ndcg_with_ties(scores[:, order], np.argsort(order)[gold])
    assert moved.values == pytest.approx(ndcg_at_k(scores, gold))


def test_random_scores_meet_chance_and_aligned_scores_do_not(rng):
    gold = rng.integers(0, 50, 4000)
    scores = rng.normal(size=(4000, 50)).astype(np.float32)
    values = ndcg_at_k(scores, gold)
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - chance_ndcg(50)) < 4 * error
    scores[np.arange(4000), gold] += 1
    assert ndcg_at_k(scores, gold).mean() > chance_ndcg(50) + 10 * error


@pytest.mark.parametrize(("n_relevant", "k"), [(1, 5), (3, 5), (7, 5), (2, 30)])
def test_chance_is_what_a_collapsed_layer_gets(n_relevant, k):
    grades = (np.arange(20) < n_relevant).astype(int)[None]
    assert ndcg_at_k(np.zeros((1, 20), np.float32), grades, k) == pytest.approx([chance_ndcg(20, n_relevant, k)])


def test_chance_by_hand():
    # one right page among 4, k = 2: rank 1 with probability 1/4 gains 1, rank 2 with 1/4 gains D2
    assert chance_ndcg(4, k=2) == pytest.approx((1 + D2) / 4)


def test_scores_are_compared_as_float32():
    # 1e-9 apart is a tie in float32, so the value is between the two orders
    got = ndcg_with_ties(np.array([[1.0, 1.0 + 1e-9]]), np.array([0]))
    assert got.values == pytest.approx([(1 + D2) / 2])


def test_half_precision_ties_are_seen(rng):
    scores, gold = rng.normal(size=(200, 500)).astype(np.float32), rng.integers(0, 500, 200)
    scores[np.arange(200), gold] += 2
    assert ndcg_with_ties(scores, gold).tie_rate == 0
    assert ndcg_with_ties((scores / 50 + 1).astype(np.float16), gold).tie_rate > 0.03


def test_blocks_do_not_matter(rng, monkeypatch):
    scores = rng.integers(0, 9, (31, 40)).astype(np.float32)
    grades = rng.integers(0, 3, (31, 40))
    whole, single = ndcg_with_ties(scores, grades), ndcg_at_k(scores, grades.argmax(axis=1))
    monkeypatch.setattr("miner_diag.retrieval.positions._BLOCK", 100)
    parts = ndcg_with_ties(scores, grades)
    for name in ("values", "worst", "best"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_array_equal(ndcg_at_k(scores, grades.argmax(axis=1)), single)


def test_all_forms_of_relevance_agree(rng):
    scores, gold = rng.normal(size=(9, 12)).astype(np.float32), rng.integers(0, 12, 9)
    dense = np.zeros((9, 12))
    dense[np.arange(9), gold] = 1
    queries, pages = [f"q{i}" for i in range(9)], [f"p{i}" for i in range(12)]
    qrels = {f"q{i}": {f"p{g}": 1} for i, g in enumerate(gold)}
    expected = ndcg_at_k(scores, gold)
    for relevance in (
        dense,
        dense.astype(bool),
        [{int(g): 1} for g in gold],
        Relevance.from_qrels(qrels, queries, pages),
    ):
        np.testing.assert_array_equal(ndcg_at_k(scores, relevance), expected)
    run = {q: dict(zip(pages, map(float, row), strict=True)) for q, row in zip(queries, scores, strict=True)}
    by_ids = ndcg_of_run(qrels, run)
    np.testing.assert_array_equal(by_ids.values, expected)
    assert by_ids.query_ids == tuple(queries)


def test_one_relevance_serves_many_layers(rng):
    gold = Relevance.of(rng.integers(0, 300, 500), n_pages=300)
    layers = rng.normal(size=(3, 500, 300)).astype(np.float32)
    assert np.stack([ndcg_at_k(layer, gold) for layer in layers]).shape == (3, 500)


def test_arguments_are_not_changed(rng):
    scores, grades = rng.normal(size=(5, 6)), np.eye(5, 6)
    kept = scores.copy(), grades.copy()
    scores.flags.writeable = grades.flags.writeable = False
    ndcg_at_k(scores, grades)
    np.testing.assert_array_equal((scores, grades), kept)


# --- other implementations


@pytest.mark.parametrize("k", [1, 5, 100])
def test_agrees_with_sklearn_with_and_without_ties(rng, k):
    grades = rng.integers(0, 4, (50, 20))
    grades[:, 0] = 1
    scores = untied(rng, 50, 20)
    expected = [ndcg_score(g[None], s[None], k=k, ignore_ties=True) for g, s in zip(grades, scores, strict=True)]
    assert ndcg_at_k(scores, grades, k) == pytest.approx(expected)
    tied = rng.integers(0, 5, (50, 20)).astype(np.float32)
    expected = [ndcg_score(g[None], s[None], k=k, ignore_ties=False) for g, s in zip(grades, tied, strict=True)]
    assert ndcg_at_k(tied, grades, k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_agrees_with_pytrec_eval_without_ties_and_bounds_it_with(rng, k):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels = {f"q{i}": {f"p{j}": int(rng.integers(0, 3)) for j in rng.choice(40, 6, replace=False)} for i in range(60)}
    qrels = {q: row | {"p-never-found": 1} for q, row in qrels.items()}  # relevant, not in the run: counts in the ideal
    run = {f"q{i}": {f"p{j}": float(s) for j, s in enumerate(row)} for i, row in enumerate(untied(rng, 60, 40))}
    run["q-without-qrels"] = {"p0": 1.0}

    def trec(run):
        got = pytrec_eval.RelevanceEvaluator(qrels, {f"ndcg_cut.{k}"}).evaluate(run)
        return np.array([got[q][f"ndcg_cut_{k}"] for q in qrels])

    assert ndcg_of_run(qrels, run, k).values == pytest.approx(trec(run))
    tied = {q: {p: float(round(s / 2)) for p, s in row.items()} for q, row in run.items()}
    ours = ndcg_of_run(qrels, tied, k)
    assert ours.tie_rate > 0.5
    assert (ours.worst - 1e-9 <= trec(tied)).all() and (trec(tied) <= ours.best + 1e-9).all()


# --- runs


def test_query_without_results_counts_0_and_stays_in_the_mean():
    qrels = {"a": {"p": 1}, "b": {"p": 1}, "c": {"p": 1}}
    got = ndcg_of_run(qrels, {"a": {"p": 0.5}, "c": {}})
    assert dict(zip(got.query_ids, got.values.tolist(), strict=True)) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert got.mean == pytest.approx(1 / 3)
    assert got.tie_rate == 0


def test_an_empty_run_counts_0_everywhere():
    assert ndcg_of_run({"a": {"p": 1}, "b": {"p": 2}}, {}).mean == 0.0


def test_page_that_was_not_retrieved_gains_nothing_but_divides():
    # found: p at rank 1; missing: r; DCG 1, ideal 1 + D2
    got = ndcg_of_run({"a": {"p": 1, "r": 1}}, {"a": {"p": 0.5, "x": 0.1}})
    assert got.values == pytest.approx([1 / (1 + D2)])


def test_minus_infinity_is_a_page_that_was_not_retrieved():
    scores = np.array([[0.5, -np.inf, -np.inf]])
    assert ndcg_at_k(scores, np.array([1])) == pytest.approx([0.0])
    assert ndcg_at_k(scores, np.array([0])) == pytest.approx([1.0])


# --- bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_scores_that_are_no_numbers_are_named(bad):
    scores = np.zeros((3, 4))
    scores[1, 2] = bad
    with pytest.raises(ValueError, match="query 1, page 2"):
        ndcg_at_k(scores, np.array([0, 1, 2]))


def test_nan_in_a_run_is_named():
    with pytest.raises(ValueError, match="nan for query 'a', page 'p'"):
        ndcg_of_run({"a": {"p": 1}}, {"a": {"x": 1.0, "p": float("nan")}})


@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        (np.array([[0, 0], [1, 0]]), "1 of 2 queries have no relevant page, the first is '0'"),
        ([{0: 1}, {}], "1 of 2 queries have no relevant page, the first is '1'"),
        ([{0: 1}, {1: -1}], "query '1' has the grade -1"),
        (np.array([[1.0, 0.0], [np.nan, 1.0]]), "query '1' has the grade nan"),
        (np.array([0, 2]), "query '1' names page 2; there are pages 0 to 1"),
        (np.array([0, -1]), "query '1' names page -1"),
        (np.array([0, 1, 1]), "scores must be .* = .3, 2. as in relevance; got .2, 2."),
        (np.array([[1, 0, 0], [1, 0, 0]]), "relevance must have 2 columns"),
        (np.array([0.5, 1.0]), "relevance must be an array"),
        ({"q": {"p": 1}}, "use Relevance.from_qrels"),
    ],
)
def test_relevance_that_fits_nothing_is_named(relevance, message):
    with pytest.raises(ValueError, match=message):
        ndcg_at_k(np.zeros((2, 2), np.float32), relevance)


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((1, 2, 3)), np.array([["a"]]), np.zeros((2, 2), complex)])
def test_scores_of_another_kind_are_refused(scores):
    with pytest.raises(ValueError, match=r"scores must be a \[queries, pages\] array of numbers"):
        ndcg_at_k(scores, np.array([0]))


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be at least 1; got {k}"):
        ndcg_at_k(np.zeros((1, 2)), np.array([0]), k)


def test_qrels_that_cannot_be_scored_are_refused():
    with pytest.raises(ValueError, match="qrels is empty"):
        ndcg_of_run({}, {})
    with pytest.raises(ValueError, match="have no relevant page, the first is 'b'"):
        ndcg_of_run({"a": {"p": 1}, "b": {"p": 0}}, {"a": {"p": 1.0}})
    with pytest.raises(ValueError, match="have no relevant page, the first is 'b'"):
        ndcg_of_run({"a": {"p": 1}, "b": {}}, {"a": {"p": 1.0}})
    with pytest.raises(ValueError, match="none of the 1 queries of run is in qrels"):
        ndcg_of_run({"a": {"p": 1}}, {"A": {"p": 1.0}})
    with pytest.raises(ValueError, match="'b' name the page 'y', which is not among"):
        Relevance.from_qrels({"a": {"x": 1}, "b": {"y": 1}}, ["a", "b"], ["x"])
    with pytest.raises(ValueError, match="page_ids holds 'x' more than once"):
        Relevance.from_qrels({"a": {"x": 1}}, ["a"], ["x", "x"])


@pytest.mark.parametrize("n_relevant", [0, 11])
def test_chance_of_the_impossible_is_refused(n_relevant):
    with pytest.raises(ValueError, match="n_relevant must be between 1 and n_pages = 10"):
        chance_ndcg(10, n_relevant)
