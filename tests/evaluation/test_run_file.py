"""Run files of other systems: what fits the data is scored like any other ranking, what does not is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from miner_diag.corpus import Page, Query
from miner_diag.corpus.core import Skipped
from miner_diag.evaluation import EvaluationError
from miner_diag.evaluation.run_file import read_run_file
from miner_diag.evaluation.scored_system import compare_scored
from miner_diag.evaluation.trec_files import file_names, write_trec_files
from miner_diag.retrieval import METRICS, Relevance, metrics_of_scores, read_run
from miner_diag.retrieval.trec import RUN_DEPTH, encoded_id
from miner_diag.stats import StatisticsOptions
from tests.evaluation.helpers import N_QUERIES, small_corpus


@pytest.fixture
def corpus():
    """Half of its documents are test documents, and one page was left out on loading."""
    whole = small_corpus(part="all")
    splits = {name: "test" if int(name[1]) % 2 else "train" for name in whole.splits}
    return replace(whole, splits=splits, skipped=(Skipped("p-copy", "a copy"), Skipped("query q-lost", "no page")))


@pytest.fixture
def part(corpus):
    return corpus.split("test")


@pytest.fixture
def read(tmp_path, corpus, part):
    def reader(content, name="mine.trec", corpus=corpus, part=part):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return read_run_file(name, path, corpus, part)

    return reader


def ranked(part, rng):
    """A score of every page for every query, and the same as a run."""
    scores = rng.permuted(np.tile(np.arange(len(part.pages)), (len(part.queries), 1)), axis=1).astype(np.float32) / 7
    pages = [page.page_id for page in part.pages]
    run = {q.query_id: dict(zip(pages, row.tolist(), strict=True)) for q, row in zip(part.queries, scores, strict=True)}
    return scores, run


def relevance_of(part):
    return Relevance.from_qrels(
        part.qrels, [query.query_id for query in part.queries], [page.page_id for page in part.pages]
    )


def test_a_run_of_all_pages_is_the_score_matrix(read, part, rng):
    scores, run = ranked(part, rng)
    expected = metrics_of_scores(scores, relevance_of(part))
    lines = "".join(f"{q} Q0 {p} 0 {s!r} me\n" for q, found in run.items() for p, s in found.items())
    lines = "".join(sorted(lines.splitlines(keepends=True)))  # the order of lines says nothing
    for content, name in ((run, "mine.json"), (lines.replace(" 0 ", " 1 "), "mine.trec")):
        file = read(content, name)
        system = file.system("mine")
        assert (system.role, system.name, system.width, system.bytes_per_page) == ("run", "run", None, None)
        assert system.model_revision == f"sha256:{file.sha256}" and file.notes == ()
        for metric in METRICS:
            np.testing.assert_allclose(system.measures.values[metric][0], expected[metric].values, atol=1e-12)
        order = np.argsort(-scores, axis=1)
        np.testing.assert_array_equal(system.measures.hits.pages[:, : len(part.pages)], order)
        assert system.measures.hits.pages.shape == (len(part.queries), RUN_DEPTH)


def test_what_is_written_is_read_back_as_the_same_system(read, part, corpus, rng, tmp_path):
    _, run = ranked(part, rng)
    system = read(run, "mine.json").system("mine.json")
    written = write_trec_files(tmp_path / "out", [system], part)
    assert written == {"mine.json: run": "runs/mine.json-run.trec"}
    path = tmp_path / "out" / "runs" / "mine.json-run.trec"
    again = read_run_file("again", path, corpus, part).system("again")
    for metric in METRICS:
        np.testing.assert_array_equal(again.measures.values[metric], system.measures.values[metric])
    assert (tmp_path / "out" / "qrels.trec").read_text().splitlines()[0] == "q1 0 p1 1"


def test_two_run_files_are_compared_query_by_query(read, part, rng):
    _, run = ranked(part, rng)
    better = {q: found | {next(iter(part.qrels[q])): 99.0} for q, found in run.items()}
    one = read(run, "one.json").system("one.json")
    other = read(better, "other.json").system("other.json", one.key)
    comparison = compare_scored([one, other], [query.doc_id for query in part.queries], StatisticsOptions())
    compared = comparison[other.key]
    assert compared.value == 1.0 and compared.to_backbone.other == one.key
    assert compared.to_backbone.family == "context" and compared.to_backbone.value == pytest.approx(1 - one.ndcg.mean())


def test_queries_without_results_count_0_and_are_told(read, part):
    first = part.queries[0].query_id
    file = read({first: {next(iter(part.qrels[first])): 1.0}})
    assert file.notes == (
        f"mine.trec has no results for {len(part.queries) - 1} of {len(part.queries)} queries, as "
        f"{part.queries[1].query_id}; they count 0.",
    )
    assert file.system("mine").ndcg.tolist() == [[1.0] + [0.0] * (len(part.queries) - 1)]


def test_other_splits_are_left_out_of_the_ranking(read, part, corpus):
    here, there = part.queries[0].query_id, "q0"
    right = next(iter(part.qrels[here]))
    file = read({here: {"p0": 9.0, "p-copy": 8.0, right: 1.0}, there: {"p0": 1.0}, "q-lost": {"p0": 1.0}})
    assert file.run == {here: {right: 1.0}}
    assert file.system("mine").ndcg[0, 0] == 1.0  # p0 is a page of another split
    assert "mine.trec: 2 queries and 2 pages of its lists are not evaluated here and left out." in file.notes
    whole = read({here: {"p0": 9.0, right: 1.0}}, part=corpus)
    assert whole.system("mine").ndcg[0, 1] == pytest.approx(1 / np.log2(3))
    with pytest.raises(
        EvaluationError, match="holds none of the 20 queries of the test split of planted; its 1 queries"
    ):
        read({there: {"p0": 1.0}})


def test_an_own_page_is_not_ranked(read, corpus):
    pages = (Page("q1", "d1", 1, "", "h"), Page("p", "d1", 2, "", "i"))
    own = replace(
        corpus,
        pages=pages,
        queries=(Query("q1", "words", "given", "d1"),),
        qrels={"q1": {"p": 1}},
        ignore_self=True,
        splits={"d1": "test"},
    )
    system = read({"q1": {"q1": 2.0, "p": 1.0}}, corpus=own, part=own).system("mine")
    assert system.ndcg.tolist() == [[1.0]] and system.measures.hits.pages[0, 0] == 1
    assert np.count_nonzero(system.measures.hits.scores > -np.inf) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"q1": {"p1": 1.0}, "Q3": {"p1": 1.0}},
            r"mine.trec names the query 'Q3', which planted does not have \(1 of 2",
        ),
        ({"q1": {"p1": 1.0, "p999": 2.0}}, r"mine.trec names the page 'p999', which planted does not have \(1 of 2"),
        (
            {"q1": {"p1": 1e39}},
            "mine.trec: run holds the score 1e.39 for query 'q1', page 'p1'; scores are compared as",
        ),
        ({"q1": {"p1": float("nan")}}, "mine.trec, query 'q1': the score of query 'q1', page 'p1' is nan"),
        ("q1 Q0 p1 1 0.5 me\nq1 Q0 p1 2 0.4 me\n", "mine.trec, line 2: query 'q1', page 'p1' stands already at"),
        ("q1 Q0 p1 1 0.5\n", "mine.trec, line 1: a run has 3 columns .* or 6 .*, not 5"),
        ("q1 Q0 p1 1 0.5 me\nq1 Q0 p3 2 0.6 me\n", "line 2: page 'p3' of query 'q1' has the rank 2"),
        ("q1 Q0 p1 x 0.5 me\n", "line 1: the rank of query 'q1', page 'p1' is 'x'"),
        ("", "mine.trec holds no line with a score"),
    ],
)
def test_what_does_not_fit_is_named(read, content, message):
    with pytest.raises(ValueError, match=message):
        read(content).system("mine")


# --- ids that a run file cannot carry as they are


def spaced(corpus, *names):
    """The same data with other names of its first pages."""
    renamed = dict(zip([page.page_id for page in corpus.pages], names, strict=False))
    return replace(
        corpus,
        pages=tuple(replace(page, page_id=renamed.get(page.page_id, page.page_id)) for page in corpus.pages),
        qrels={q: {renamed.get(p, p): grade for p, grade in found.items()} for q, found in corpus.qrels.items()},
    )


def test_encoded_ids_are_those_of_the_data(read):
    data = spaced(small_corpus(), "a b", "50%", "c\td")
    lines = "".join(f"q{n} Q0 {encoded_id(p)} 1 1 me\n" for n, p in enumerate(("a b", "50%", "c\td")))
    assert read(lines, corpus=data, part=data).run == {"q0": {"a b": 1.0}, "q1": {"50%": 1.0}, "q2": {"c\td": 1.0}}
    plain = {"q0": {"a b": 1.0}, "q1": {"50%": 1.0}}  # JSON can hold them as they are
    assert read(plain, corpus=data, part=data).run == plain


def test_an_id_that_may_be_two_is_refused(read):
    data = spaced(small_corpus(), "a b", "a%20b")
    with pytest.raises(EvaluationError, match="'a%20b', which may be that id or stand, percent-encoded, for 'a b'"):
        read("q0 Q0 a%20b 1 1 me\n", corpus=data, part=data)
    both = "".join(f"q0 Q0 {encoded_id(name)} 1 1 me\n" for name in ("a b", "a%20b"))
    assert read(both, corpus=data, part=data).run == {"q0": {"a b": 1.0, "a%20b": 1.0}}


# --- files of an evaluation


def test_names_of_files_are_safe_and_no_two_are_alike():
    keys = ["m: fusion", "M: Fusion", "../../etc/passwd: run", "a\x1b[2J\nb: run", "…", "x" * 300 + ": run"]
    names = file_names(keys)
    assert names[:5] == ["m-fusion", "M-Fusion-2", "etc-passwd-run", "a-2J-b-run", "system"]
    assert len(names[5]) == 100 and all("/" not in name and not name.startswith(".") for name in names)


def test_runs_of_an_earlier_evaluation_go(read, part, rng, tmp_path):
    _, run = ranked(part, rng)
    system = read(run, "mine.json").system("mine")
    (tmp_path / "runs").mkdir()
    for name in ("old.trec", "notes.txt"):
        (tmp_path / "runs" / name).write_text("q1 Q0 p1 1 1 me\n")
    bound = replace(system, name="oracle", measures=replace(system.measures, hits=None))
    assert list(write_trec_files(tmp_path, [system, bound], part)) == ["mine: run"]  # a bound has no ranking
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mine-run.trec", "notes.txt"]
    found = read_run(tmp_path / "runs" / "mine-run.trec")
    assert set(found) == {query.query_id for query in part.queries} and N_QUERIES > len(found)
