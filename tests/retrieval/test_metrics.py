"""Recall, MRR and MAP beside nDCG: by hand, against all orders of tied pages, against trec_eval and scikit-learn."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from miner_diag.retrieval import METRICS, Relevance, metrics_of_run, metrics_of_scores, ndcg_with_ties
from miner_diag.retrieval.metrics import metric_label, parse_metric
from miner_diag.retrieval.ranking import measure_by_blocks

NAMES = (*METRICS, "ndcg_at_3", "recall_at_2", "recall_at_3", "mrr_at_1", "mrr_at_2", "mrr_at_3")


def found(scores, grades, name):
    """Value, worst and best of one query."""
    got = metrics_of_scores(np.array([scores], dtype=np.float32), np.array([grades]), [name])[name]
    return got.values[0], got.worst[0], got.best[0]


# --- hand-derived


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recall_at_1", 0.0),
        ("recall_at_2", 1 / 3),
        ("recall_at_5", 2 / 3),
        ("mrr_at_10", 1 / 2),
        ("mrr_at_1", 0.0),
        ("map", (1 / 2 + 2 / 4) / 3),
    ],
)
def test_three_right_pages_on_ranks_2_and_4_and_nowhere(name, value):
    # grades count as right or wrong alone; a grade of 0 is wrong; the last page was not retrieved
    assert found([0.9, 0.8, 0.7, 0.6, -np.inf], [0, 2, 0, 1, 1], name) == pytest.approx((value,) * 3)


def test_a_tie_by_hand():
    # page 0 is first; pages 1, 2, 3 share ranks 2, 3, 4 in any order; pages 1 and 2 are right
    scores, grades = [0.9, 0.5, 0.5, 0.5], [0, 1, 1, 0]
    # two of three places up to rank 3: 2/3 of each page; the worst order has one of them, the best both
    assert found(scores, grades, "recall_at_3") == pytest.approx((2 / 3, 1 / 2, 1))
    # the first right page stands on rank 2 in two of three orders, else on rank 3
    assert found(scores, grades, "mrr_at_10") == pytest.approx((2 / 3 / 2 + 1 / 3 / 3, 1 / 3, 1 / 2))
    assert found(scores, grades, "mrr_at_2") == pytest.approx((1 / 3, 0, 1 / 2))
    # the wrong page stands on rank 2, 3 or 4
    each = [(1 / 3 + 2 / 4) / 2, (1 / 2 + 2 / 4) / 2, (1 / 2 + 2 / 3) / 2]
    assert found(scores, grades, "map") == pytest.approx((np.mean(each), min(each), max(each)))


# --- the slow version: every order of tied pages


def of_order(order, grades, name):
    """A metric of one order of the retrieved pages."""
    kind, k = parse_metric(name)
    right = grades[order] > 0
    total = (grades > 0).sum()
    if kind == "ndcg":
        discount = np.where(np.arange(len(grades)) < k, 1 / np.log2(np.arange(2, len(grades) + 2)), 0)
        return grades[order] @ discount[: len(order)] / (np.sort(grades)[::-1] @ discount)
    if kind == "recall":
        return right[:k].sum() / total
    ranks = np.flatnonzero(right) + 1
    if kind == "mrr":
        return 1 / ranks[0] if len(ranks) and ranks[0] <= k else 0.0
    return sum((place + 1) / rank for place, rank in enumerate(ranks)) / total


def all_orders(scores, grades):
    """Name -> the metric of every order that the scores allow."""
    retrieved = np.flatnonzero(scores > -np.inf)
    orders = [np.array(order, dtype=int) for order in permutations(retrieved)]
    allowed = [order for order in orders if (scores[order][:-1] >= scores[order][1:]).all()]
    return {name: [of_order(order, grades, name) for order in allowed] for name in NAMES}


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=1, max_size=6).flatmap(
        lambda scores: st.tuples(
            st.just(scores), st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores)).filter(any)
        )
    )
)
def test_every_metric_is_the_mean_over_all_orders_of_tied_pages(case):
    scores, grades = (np.array(part, dtype=np.float64) for part in case)
    expected = all_orders(scores, grades)
    got = metrics_of_scores(scores[None], grades[None], NAMES)
    run = {"q": {str(page): score for page, score in enumerate(scores) if score > -np.inf}}
    of_run = metrics_of_run({"q": {str(page): grade for page, grade in enumerate(grades)}}, run, NAMES)
    for name, each in expected.items():
        for metric in (got[name], of_run[name]):
            ends = metric.values[0], metric.worst[0], metric.best[0]
            assert ends == pytest.approx((np.mean(each), min(each), max(each)), abs=1e-12), name
            assert metric.tie_rate == (max(each) - min(each) > 1e-9), name


def test_a_large_tie_is_summed_as_exactly_as_term_by_term():
    # 700 of 5,000 tied pages are right, behind 3,000 pages of which 40 are: the formula against the plain sum
    scores = np.repeat([1.0, 0.5], [3000, 5000])
    grades = np.zeros(8000, dtype=int)
    grades[np.r_[0:3000:75, 3000:3700]] = 1
    ranks = np.arange(3001, 8001)
    inside = (700 / 5000) * (40 + 1 + np.arange(5000) * 699 / 4999) / ranks
    # the 40 pages above are tied, too
    above = (40 / 3000) * (1 + np.arange(3000) * 39 / 2999) / np.arange(1, 3001)
    assert found(scores, grades, "map")[0] == pytest.approx((inside.sum() + above.sum()) / 740, rel=1e-12)


# --- other implementations


def test_agrees_with_pytrec_eval_on_200_graded_cases_without_ties(rng):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    n_queries, n_pages = 200, 60
    scores = rng.permuted(np.tile(np.arange(n_pages), (n_queries, 1)), axis=1).astype(np.float32) / 7 - 3
    scores[rng.random(scores.shape) < rng.random((n_queries, 1)) * 0.9] = -np.inf  # lists of all lengths
    grades = rng.integers(0, 4, (n_queries, n_pages)) * (rng.random((n_queries, n_pages)) < 0.15)
    grades[np.arange(n_queries), rng.integers(0, n_pages, n_queries)] = 1
    qrels = {f"q{q}": {f"p{p}": int(grades[q, p]) for p in range(n_pages)} for q in range(n_queries)}
    run = {
        f"q{q}": {f"p{p}": float(scores[q, p]) for p in np.flatnonzero(scores[q] > -np.inf)} for q in range(n_queries)
    }
    asked = {"ndcg_cut.1,5,10", "recall.1,5,10", "recip_rank", "map"}
    trec = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(run)
    of_run, of_scores = metrics_of_run(qrels, run), metrics_of_scores(scores, grades)
    for name in METRICS:
        kind, k = parse_metric(name)
        called = {"ndcg": f"ndcg_cut_{k}", "recall": f"recall_{k}", "mrr": "recip_rank", "map": "map"}[kind]
        # pytrec_eval leaves queries without results out; here they count 0
        expected = np.array([trec.get(query_id, {called: 0.0})[called] for query_id in qrels])
        if kind == "mrr":  # trec_eval does not cut
            expected = np.where(expected >= 1 / k, expected, 0)
        np.testing.assert_allclose(of_run[name].values, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(of_scores[name].values, of_run[name].values)
        assert of_run[name].tie_rate == 0
        assert 0 < expected.mean() < 1


def test_average_precision_is_that_of_scikit_learn_where_nothing_ties(rng):
    grades, scores = rng.integers(0, 2, (40, 30)), rng.permuted(np.tile(np.arange(30.0), (40, 1)), axis=1)
    grades[:, 0] = 1
    expected = [average_precision_score(right, row) for right, row in zip(grades, scores, strict=True)]
    assert metrics_of_scores(scores, grades)["map"].values == pytest.approx(expected)


# --- properties


def test_a_collapsed_layer_gets_chance_wherever_the_right_page_stands():
    got = metrics_of_scores(np.full((30, 30), 0.7), np.arange(30))
    inverse = 1 / np.arange(1, 31)
    expected = {"recall_at_5": 5 / 30, "mrr_at_10": inverse[:10].sum() / 30, "map": inverse.sum() / 30}
    for name, value in expected.items():
        assert got[name].values == pytest.approx(np.full(30, value)), name
        assert got[name].tie_rate == 1.0


def test_the_order_of_storage_decides_nothing_and_an_order_of_its_own_would(rng):
    scores, grades = rng.integers(0, 4, (50, 20)), rng.integers(0, 2, (50, 20))
    grades[:, 3] = 1
    order = rng.permutation(20)
    got, moved = metrics_of_scores(scores, grades), metrics_of_scores(scores[:, order], grades[:, order])
    by_storage = [
        {name: of_order(np.argsort(-row, kind="stable"), right, name) for name in METRICS}
        for row, right in zip(scores, grades, strict=True)
    ]
    for name in METRICS:
        np.testing.assert_allclose(moved[name].values, got[name].values, atol=1e-12)
        assert (got[name].worst <= got[name].values + 1e-12).all() and (
            got[name].values <= got[name].best + 1e-12
        ).all()
        assert np.abs(np.array([each[name] for each in by_storage]) - got[name].values).max() > 0.01


def test_a_better_score_of_a_right_page_never_lowers_a_metric(rng):
    scores, gold = rng.integers(0, 5, (100, 12)).astype(np.float32), rng.integers(0, 12, 100)
    lifted = scores.copy()
    lifted[np.arange(100), gold] += rng.integers(0, 3, 100)
    before, after = metrics_of_scores(scores, gold), metrics_of_scores(lifted, gold)
    for name in METRICS:
        assert (after[name].values >= before[name].values - 1e-12).all()
        assert after[name].mean > before[name].mean


def test_queries_without_results_count_0_and_stay_in_the_mean():
    qrels = {"a": {"p": 1}, "b": {"p": 1}, "c": {"p": 2}}
    got = metrics_of_run(qrels, {"a": {"p": 0.5}, "c": {}})
    for name in METRICS:
        assert got[name].values.tolist() == [1.0, 0.0, 0.0] and got[name].mean == pytest.approx(1 / 3)
        assert got[name].query_ids == ("a", "b", "c")


def test_a_run_that_is_cut_off_loses_average_precision_alone():
    scores, grades = np.arange(50.0)[None], np.zeros((1, 50))
    grades[0, [0, 49]] = 1  # on the first and on the last rank
    whole = metrics_of_scores(scores, grades)
    cut = metrics_of_scores(np.where(scores < 20, -np.inf, scores), grades)
    assert [name for name in METRICS if whole[name].values != cut[name].values] == ["map"]
    assert cut["map"].values == pytest.approx([1 / 2])


def test_ndcg_is_that_of_its_own_module_and_blocks_do_not_matter(rng, monkeypatch):
    scores = rng.integers(0, 9, (31, 40)).astype(np.float32)
    relevance = Relevance.of(rng.integers(0, 3, (31, 40)), n_pages=40)
    whole = metrics_of_scores(scores, relevance)
    expected = ndcg_with_ties(scores, relevance, 5)
    for name in ("values", "worst", "best"):
        np.testing.assert_array_equal(getattr(whole["ndcg_at_5"], name), getattr(expected, name))
    monkeypatch.setattr("miner_diag.retrieval.ranking._BLOCK", 3 * 40)
    parts = measure_by_blocks(lambda rows: scores[rows], relevance)
    for metric in METRICS:
        for name in ("values", "worst", "best"):
            np.testing.assert_array_equal(getattr(parts.metrics[metric], name), getattr(whole[metric], name))
        assert parts.metrics[metric].query_ids == relevance.query_ids
    order = np.argsort(-scores, axis=1, kind="stable")
    np.testing.assert_array_equal(parts.hits.pages, order)
    np.testing.assert_array_equal(parts.hits.scores, np.take_along_axis(scores, order, axis=1))
    assert measure_by_blocks(lambda rows: scores[rows], relevance, hits=False).hits is None


def test_an_own_page_is_not_ranked(rng):
    names = [f"i{n}" for n in range(8)]
    qrels = {f"i{n}": {f"i{n + 4}": 1} for n in range(4)}
    scores = rng.normal(size=(4, 8)).astype(np.float32)
    scores[np.arange(4), np.arange(4)] = 9.0
    relevance = Relevance.from_qrels(qrels, names[:4], names, ignore_self=True)
    others = np.array([np.delete(row, own) for own, row in enumerate(scores)])
    ranking = measure_by_blocks(lambda rows: scores[rows], relevance)
    for name, metric in metrics_of_scores(others, np.arange(4) + 3).items():
        np.testing.assert_array_equal(ranking.metrics[name].values, metric.values)
    assert (ranking.hits.scores[:, -1] == -np.inf).all() and (ranking.hits.pages[:, :-1] != np.arange(4)[:, None]).all()


# --- names


@pytest.mark.parametrize(
    "name", ["ndcg", "ndcg@5", "ndcg_at_0", "ndcg_at_05", "mrr_at_", "map_at_5", "recall_at_5 ", ""]
)
def test_another_name_is_refused(name):
    with pytest.raises(ValueError, match=r"metrics must be ndcg_at_k, recall_at_k or mrr_at_k .*; got '"):
        metrics_of_scores(np.zeros((1, 2)), np.array([0]), [name])


def test_names_are_written_as_papers_write_them():
    assert [metric_label(name) for name in METRICS] == [
        *("nDCG@1", "nDCG@5", "nDCG@10"),
        *("recall@1", "recall@5", "recall@10"),
        *("MRR@10", "MAP"),
    ]


def test_qrels_that_name_unknown_pages_are_an_error():
    with pytest.raises(ValueError, match="'b' name the page 'y', which is not among"):
        Relevance.from_qrels({"a": {"x": 1}, "b": {"y": 1}}, ["a", "b"], ["x"])
