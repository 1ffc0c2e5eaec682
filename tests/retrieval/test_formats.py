"""Files of qrels and runs: every form gives the same dicts, every fault is named with its line."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.retrieval import read_qrels, read_run

QRELS = {"q1": {"p1": 1, "p2": 0}, "q2": {"p1": 2}}
RUN = {"q1": {"p1": 0.5, "p2": -1e-3}, "q2": {"p2": 3.0}}


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "file"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq1\tp2\t0\nq2\tp1\t2\n",
        "q1\tp1\t1\nq1\tp2\t0\n\nq2\tp1\t2\n",
        "q1 0 p1 1\nq1 0 p2 0\nq2 0 p1 2",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\tp1\t1\r\nq1\tp2\t0\r\nq2\tp1\t2\r\n",
        json.dumps(QRELS, indent=1),
        "qid docid rel\nq1 p1 1\nq1 p2 0\nq2 p1 2",
        "Query_ID\tDoc ID\tRelevance\nq1\tp1\t1.0\nq1\tp2\t0.0\nq2\tp1\t2.0\n",
        "query iteration docno grade\nq1 0 p1 1\nq1 0 p2 0\nq2 0 p1 2",
        "corpus-id\tquery-id\tscore\np1\tq1\t1\np2\tq1\t0\np1\tq2\t2\n",
        "topic\tdocument\tusefulness\nq1\tp1\t1\nq1\tp2\t0\nq2\tp1\t2\n",
        "\nquery-id\tcorpus-id\tscore\tjudge\nq1\tp1\t1\tme\nq1\tp2\t0\tyou\nq2\tp1\t2\tme\n",
    ],
)
def test_forms_of_qrels(file, text):
    assert read_qrels(file(text)) == QRELS


@pytest.mark.parametrize(
    "text",
    [
        "q1 Q0 p1 1 0.5 me\nq1 Q0 p2 2 -1e-3 me\nq2 Q0 p2 1 3 me\n",
        "q1\tp1\t0.5\nq1\tp2\t-0.001\nq2\tp2\t3\n",
        "query-id\tcorpus-id\tscore\nq1\tp1\t0.5\nq1\tp2\t-0.001\nq2\tp2\t3\n",
        json.dumps(RUN),
    ],
)
def test_forms_of_runs(file, text):
    assert read_run(file(text)) == RUN


def test_ids_may_hold_spaces_where_tabs_separate(file):
    assert read_run(file("a query\tmy doc.pdf#1\t0.5\n")) == {"a query": {"my doc.pdf#1": 0.5}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\tp1\t1\nq1\tp2\n", r"file, line 2: qrels have 3 columns .* not 2; got 'q1\\tp2'"),
        ("q1\tp1\t1\nq1\tp2\tyes\n", "file, line 2: the grade of query 'q1', page 'p2' is 'yes'; expected a number"),
        ("q1\tp1\t0.5\n", "line 1: .* whole number"),
        ("q1\tp1\t1\nq2\tp1\t1\nq1\tp1\t1\n", r"line 3: query 'q1', page 'p1' stands already at .*file, line 1"),
        ("", "file holds no line with a grade"),
        ("query-id\tcorpus-id\tscore\n", "file holds no line with a grade"),
        ('{"q1": {"p1": 1},\n "q2": {"p1" 1}}', "file, line 2: not JSON"),
        ('{"q1": {"p1": 1}, "q1": {"p2": 1}}', "the key 'q1' stands more than once"),
        ('{"q1": {"p1": 1, "p1": 2}}', "the key 'p1' stands more than once"),
        ('{"q1": ["p1"]}', "query 'q1' has list; expected {page id: number}"),
        ('{"q1": {"p1": true}}', "query 'q1': .* is True; expected a number"),
        ('{"q1": {"p1": null}}', "query 'q1': .* is None; expected a number"),
        ('{"q1": {"p1": NaN}}', "query 'q1': .* is nan"),
        ("q1\tp1\t-0.5\n", "line 1: .* whole number"),
        ("q1\tp1\t-inf\n", "line 1: .* whole number"),
        ("q1\tp1\t1_0\n", "line 1: .* is '1_0'; expected a number"),
        (f"q1\tp1\t{'9' * 400}\n", "line 1: .*whole number below 2"),
        ('{"q1": {"p1": ' + "9" * 400 + "}}", "query 'q1': .*whole number below 2"),
        ('{"q1": {"p1": ' + "9" * 5000 + "}}", "file: .*digits"),
        ('{"q1":' * 100_000, "file is JSON nested too deeply"),
        ("one\ttwo\tthree\nq1\tp1\t1\n", "line 1: the grade of query 'one', page 'two' is 'three'"),
        ("query-id\tcorpus-id\tscore\nq1\tp1\n", "line 2: the header has 3 columns between tabs, not 2"),
        ("query-id\tcorpus-id\tscore\nq1 0 p1 1\n", "line 2: the header has 3 columns between tabs, not 1"),
        ("q1\t\t1\n", "line 1: the id of the page is empty"),
    ],
)
def test_faults_in_qrels_are_named(file, text, message):
    with pytest.raises(ValueError, match=message):
        read_qrels(file(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 p1 1 0.5 me\nq1 Q0 p2 2 0.4\n", "line 2: a run has 3 columns .* not 5"),
        ("q1 Q0 p1 1 nan me\n", "line 1: the score of query 'q1', page 'p1' is 'nan'; expected a finite number"),
        ("q1 p1 1\nq1 p1 2\n", "line 2: .* stands already"),
        ("q1 Q0 p1 first 0.5 me\n", "line 1: the rank of query 'q1', page 'p1' is 'first'; expected a whole number"),
        ("q1 Q0 p1 -1 0.5 me\n", "line 1: the rank .* is '-1'; expected a whole number of at least 0"),
        ("q1 Q0 p1 1.0 0.5 me\n", "line 1: the rank .* is '1.0'"),
        (f"q1 Q0 p1 {'9' * 16} 0.5 me\n", "of 15 digits at most"),
        (
            "q1 Q0 p1 1 0.1 me\nq2 Q0 p1 1 0.1 me\nq1 Q0 p2 2 0.3 me\n",
            "line 3: page 'p2' of query 'q1' has the rank 2 and the score 0.3, page 'p1' the better rank 1 and "
            "the lower score 0.1. Only scores rank, the highest first: turn the sign of distances",
        ),
        ('{"mteb_model_meta": {}, "default": [1]}', "file: subset 'default' must be {split: {query: {page: score}}}"),
        (
            '{"mteb_model_meta": {}, "english": {"test": {"q": {"p": 1}}}, "french": {"test": {"q": {"r": 1}}}}',
            "file: query 'q' stands in english, test and in french, test; keep one subset",
        ),
    ],
)
def test_faults_in_runs_are_named(file, text, message):
    with pytest.raises(ValueError, match=message):
        read_run(file(text))


@pytest.mark.parametrize(
    "text",
    [
        "q1 Q0 p2 7 0.5 me\nq1 Q0 p1 0 0.5 me\n",  # a tie is no contradiction, and ranks may begin at 0
        "q1 Q0 p1 1 0.5 me\nq1 Q0 p2 1 0.7 me\n",  # one rank for all says nothing
        "q1 Q0 p1 1 0.5 me\nq1 Q0 p2 2 0.500000001 me\n",  # one score in float32, in which scores are compared
        "qid docno score rank\nq1 p1 0.5 1\nq1 p2 0.2 2\n",
    ],
)
def test_ranks_that_say_what_scores_say_are_taken(file, text):
    assert set(read_run(file(text))["q1"]) == {"p1", "p2"}


def test_a_rank_is_found_by_its_heading(file):
    with pytest.raises(ValueError, match="line 3: page 'p2' .* has the rank 2 and the score 0.7, page 'p1' the better"):
        read_run(file("rank qid docno score\n1 q1 p1 0.5\n2 q1 p2 0.7\n"))


def test_a_prediction_file_of_mteb_is_a_run(file):
    subsets = {"english": {"test": {"q1": RUN["q1"]}}, "french": {"test": {"q2": RUN["q2"]}}}
    meta = {"model_name": "somebody/model", "revision": "abc"}
    assert read_run(file(json.dumps({"mteb_model_meta": meta, **subsets}))) == RUN


def test_a_file_that_is_too_large_is_named_before_it_is_read(file, monkeypatch):
    monkeypatch.setattr("miner_diag.qrels.LARGEST_FILE", 1 << 20)
    assert read_run(file("q1 p1 0.5\n"))
    with pytest.raises(ValueError, match="file has 2 MB; files of at most 1 MB are read. Keep the first pages"):
        read_run(file("q1 p1 0.5\n" * (1 << 18)))


def test_grades_below_0_count_as_0_and_are_told(file, caplog):
    assert read_qrels(file("q1 0 p1 -2\nq1 0 p2 1\nq2 0 p1 -1.0")) == {"q1": {"p1": 0, "p2": 1}, "q2": {"p1": 0}}
    assert re.search(r"2 of 3 grades are below 0, the first at .*file, line 1; they count as 0", caplog.text)


@pytest.mark.parametrize("name", ["qid", "query_id", "query-id", "topic"])
def test_a_query_that_is_called_as_a_column_is_no_header(file, name):
    assert read_qrels(file(f"{name}\tp1\t1\nq2\tdoc\t2\n")) == {name: {"p1": 1}, "q2": {"doc": 2}}
    assert read_qrels(file(f"{name} 0 doc 1\n")) == {name: {"doc": 1}}
    assert read_run(file(f"{name} Q0 doc 1 0.5 me\n")) == {name: {"doc": 0.5}}


def test_the_header_of_a_run_says_what_stands_where(file):
    text = "qid Q0 docno rank score tag\nq1 Q0 p1 1 0.5 me\nq1 Q0 p2 2 -1e-3 me\nq2 Q0 p2 1 3 me\n"
    assert read_run(file(text)) == RUN


@given(
    st.lists(
        st.tuples(st.sampled_from(["q1", "q 2", "qid"]), st.sampled_from(["p1", "doc", "p 3"]), st.integers(0, 9)),
        min_size=1,
        unique_by=lambda pair: pair[:2],
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_every_spelling_of_the_same_qrels_is_read_alike(tmp_path_factory, pairs, header, trec, whole):
    lines = [["query-id", "it", "corpus-id", "score"]] if header else []
    lines += [[query, "0", page, str(grade if whole else float(grade))] for query, page, grade in pairs]
    path = tmp_path_factory.mktemp("qrels") / "qrels.tsv"
    path.write_text("\n".join("\t".join(line if trec else [line[0], *line[2:]]) for line in lines))
    expected = {}
    for query, page, grade in pairs:
        expected.setdefault(query, {})[page] = grade
    assert read_qrels(path) == expected


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.tsv does not exist"):
        read_run(tmp_path / "nothing.tsv")
    with pytest.raises(ValueError, match="is not a text file"):
        read_run(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="is not a text file"):
        read_qrels(tmp_path / "binary")
