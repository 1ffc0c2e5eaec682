"""Queries that are pages too: the page of a query's own id is not ranked for that query, in every way of scoring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.cka.distinct import DistinctItems
from miner_diag.cka.gold_pairs import GoldPairs
from miner_diag.retrieval import Relevance, chance_ndcg, ndcg_at_k, ndcg_of_run
from miner_diag.retrieval.__main__ import main
from miner_diag.retrieval.ranking import ndcg_of_vectors

PAGES = [f"i{n}" for n in range(6)]
QUERIES = PAGES[:3]
QRELS = {f"i{n}": {f"i{n + 3}": 1} for n in range(3)}


def without_own(scores):
    """Score each query by hand, over the other pages only."""
    values = []
    for row in range(len(QUERIES)):
        others = [page for page in range(len(PAGES)) if page != row]
        gold = np.array([others.index(row + 3)])
        values.append(ndcg_at_k(scores[[row]][:, others], gold, 5)[0])
    return values


@given(st.lists(st.integers(0, 3), min_size=18, max_size=18))
def test_it_is_scoring_over_the_other_pages(numbers):
    scores = np.array(numbers, dtype=np.float32).reshape(3, 6)
    before = scores.copy()
    relevance = Relevance.from_qrels(QRELS, QUERIES, PAGES, ignore_self=True)
    np.testing.assert_allclose(ndcg_at_k(scores, relevance, 5), without_own(scores))
    run = {q: dict(zip(PAGES, row, strict=True)) for q, row in zip(QUERIES, scores.tolist(), strict=True)}
    np.testing.assert_allclose(ndcg_of_run(QRELS, run, 5, ignore_self=True).values, without_own(scores))
    np.testing.assert_array_equal(scores, before)


def test_a_query_that_finds_itself_loses_a_rank_only_where_it_counts(rng, monkeypatch):
    monkeypatch.setattr("miner_diag.retrieval.ranking._BLOCK", 6)  # a query at a time
    pages = rng.normal(size=(6, 8))
    pages[3:] = pages[:3] + 0.1 * rng.normal(size=(3, 8))
    found = {
        ignore: ndcg_of_vectors(
            pages[:3], pages, Relevance.from_qrels(QRELS, QUERIES, PAGES, ignore_self=ignore)
        ).values
        for ignore in (False, True)
    }
    np.testing.assert_allclose(found[False], 1 / np.log2(3))
    np.testing.assert_allclose(found[True], 1)


def test_an_own_page_that_is_an_answer_is_refused():
    qrels = {**QRELS, "i1": {"i1": 1}}
    for score in (
        lambda: Relevance.from_qrels(qrels, QUERIES, PAGES, ignore_self=True),
        lambda: ndcg_of_run(qrels, {"i1": {"i1": 1.0}}, ignore_self=True),
    ):
        with pytest.raises(ValueError, match="1 queries are answered by the page of their own id, the first is 'i1'"):
            score()


def test_ids_that_are_shared_by_none_change_nothing(rng):
    scores = rng.normal(size=(3, 6)).astype(np.float32)
    names = [f"q{n}" for n in range(3)]
    qrels = dict(zip(names, QRELS.values(), strict=True))
    plain, ignoring = (Relevance.from_qrels(qrels, names, PAGES, ignore_self=ignore) for ignore in (False, True))
    np.testing.assert_array_equal(ndcg_at_k(scores, plain), ndcg_at_k(scores, ignoring))


def test_a_diagnosis_ranks_the_other_pages_and_says_their_chance():
    gold = [{(row + 1) % 6: 1} for row in range(6)]
    items = DistinctItems.of(PAGES)
    pairs = GoldPairs.of(gold, query_ids=PAGES, queries=items, pages=items, page_ids=PAGES)
    assert pairs.relevance.own_page.tolist() == list(range(6))
    assert pairs.chance == pytest.approx(chance_ndcg(5))
    assert GoldPairs.of(gold, query_ids=PAGES, queries=items, pages=items).chance == pytest.approx(chance_ndcg(6))


def test_the_command_tells_own_pages_and_leaves_them_out(tmp_path, capsys):
    (tmp_path / "qrels.tsv").write_text("".join(f"i{n}\ti{n + 3}\t1\n" for n in range(3)))
    (tmp_path / "run.tsv").write_text("".join(f"i{n}\ti{n}\t1\ni{n}\ti{n + 3}\t0.5\n" for n in range(3)))
    files = ["--run", str(tmp_path / "run.tsv"), "--qrels", str(tmp_path / "qrels.tsv")]
    main(files)
    shown = capsys.readouterr().out
    assert "nDCG@5      0.6309" in shown
    assert "own pages        3   queries rank the page of their own id, which counts; --ignore-self" in shown
    main([*files, "--ignore-self"])
    shown = capsys.readouterr().out
    assert "nDCG@5      1.0000" in shown
    assert "own pages        3   queries rank the page of their own id, left out" in shown
