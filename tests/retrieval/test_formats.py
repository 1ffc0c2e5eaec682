"""Files of qrels and runs: every form gives the same dicts, every fault is named with its line."""

from __future__ import annotations

import json

import pytest

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
        ("q1\tp1\t-1\n", "line 1: .* at least 0"),
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
    ],
)
def test_faults_in_runs_are_named(file, text, message):
    with pytest.raises(ValueError, match=message):
        read_run(file(text))


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.tsv does not exist"):
        read_run(tmp_path / "nothing.tsv")
    with pytest.raises(ValueError, match="is not a text file"):
        read_run(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="is not a text file"):
        read_qrels(tmp_path / "binary")
