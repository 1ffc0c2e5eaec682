"""Run and qrels files: what is written is read back exactly, here and by other tools."""

from __future__ import annotations

from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from miner_diag.retrieval import Hits, metrics_of_run, metrics_of_scores, read_qrels, read_run
from miner_diag.retrieval.trec import encoded_id, qrels_text, run_text

IDS = st.text(st.characters(exclude_categories=()), min_size=1, max_size=8)


@given(IDS)
@example("a b")
@example("a%20b")
@example("{")
@example("\ufeffa")
@example("\u2028\x85\xa0\u3000")
@example("\ud800")
def test_an_encoded_id_is_one_word_and_is_had_back(name):
    word = encoded_id(name)
    assert word.split() == [word] and not word.startswith(("{", "\ufeff"))
    word.encode("utf-8")
    assert unquote(word, errors="surrogatepass") == name


def test_what_a_line_can_carry_stays_as_it_is():
    for name in ("debian-handbook/17", "página-1", "日本語#3", "a{b}", "q:1,2;3"):
        assert encoded_id(name) == name
    with pytest.raises(ValueError, match="an id must not be empty"):
        encoded_id("")


@settings(deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=12, unique=True),
    st.lists(IDS, min_size=12, max_size=12, unique=True),
)
@example([0.1, 1 / 3, 1e-45, 3.4e38, -7.25e-20], [f"p {n}" for n in range(12)])
def test_scores_are_read_back_to_the_last_bit(tmp_path_factory, scores, names):
    falling = np.sort(np.array(scores, dtype=np.float32))[::-1][None]
    hits = Hits(np.arange(len(scores))[None], falling)
    path = tmp_path_factory.mktemp("runs") / "run.trec"
    path.write_text(run_text(hits, ["a query"], names, "mine"), encoding="utf-8")
    (query_id, found), *rest = read_run(path).items()
    assert (query_id, rest) == ("a%20query", [])
    assert list(found) == [encoded_id(name) for name in names[: len(scores)]]
    np.testing.assert_array_equal(np.array([*found.values()]).astype(np.float32), falling[0])


def test_pages_that_were_not_retrieved_are_no_lines():
    hits = Hits(np.array([[2, 0, 1], [1, 0, 0]]), np.array([[3.0, 1.0, -np.inf], [-np.inf] * 3], dtype=np.float32))
    assert run_text(hits, ["a", "b"], ["x", "y", "z"], "t").splitlines() == ["a Q0 z 1 3 t", "a Q0 x 2 1 t"]


def test_another_tool_finds_the_same_in_the_files(rng, tmp_path):
    """The first 100 pages are enough for every metric that is cut at 10."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    scores = rng.normal(size=(30, 400)).astype(np.float32)
    query_ids, page_ids = [f"query {n}" for n in range(30)], [f"my report.pdf/{n}" for n in range(400)]
    qrels = {q: {page_ids[p]: int(rng.integers(1, 3)) for p in rng.choice(400, 4, replace=False)} for q in query_ids}
    for row, query_id in enumerate(query_ids):  # some of them are found
        scores[row, page_ids.index(next(iter(qrels[query_id])))] += 2.5
    run, judged = tmp_path / "run.trec", tmp_path / "qrels.trec"
    run.write_text(run_text(Hits.of_scores(scores, 100), query_ids, page_ids, "mine"))
    judged.write_text(qrels_text(qrels))
    with run.open() as run_lines, judged.open() as qrels_lines:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels_lines), {"ndcg_cut.5,10", "recall.10"})
        theirs = evaluator.evaluate(pytrec_eval.parse_run(run_lines))
    grades = np.array([[qrels[q].get(p, 0) for p in page_ids] for q in query_ids])
    ours = metrics_of_scores(scores, grades)
    again = metrics_of_run(read_qrels(judged), read_run(run))
    for name, called in (("ndcg_at_5", "ndcg_cut_5"), ("ndcg_at_10", "ndcg_cut_10"), ("recall_at_10", "recall_10")):
        np.testing.assert_allclose([theirs[encoded_id(q)][called] for q in query_ids], ours[name].values, atol=1e-6)
        np.testing.assert_allclose(again[name].values, ours[name].values, atol=1e-12)
        assert 0.1 < ours[name].mean < 0.9
