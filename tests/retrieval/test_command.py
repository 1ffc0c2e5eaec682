"""The command, end to end, in the forms a user would call it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from miner_diag.records import read_records
from miner_diag.retrieval.__main__ import main
from miner_diag.retrieval.run import ScoreOptions


@pytest.fixture
def files(tmp_path):
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tp{i}\t1\n" for i in range(10)))
    rows = [f"q{i} Q0 p{(i + shift) % 10} {shift + 1} {1 - shift / 10} me\n" for i in range(8) for shift in range(3)]
    rows += [f"q8 Q0 p{j} 1 0.5 me\n" for j in range(10)]  # all tied
    rows += ["extra Q0 p1 1 0.5 me\n"]  # without qrels; q9 has no results
    (tmp_path / "run.tsv").write_text("".join(rows))
    return tmp_path


def test_table_and_files(files, capsys):
    main(["--run", str(files / "run.tsv"), "--qrels", str(files / "qrels.tsv"), "--out", str(files / "out")])
    shown = capsys.readouterr().out
    # eight queries have the right page first, one ties ten pages, one has no results
    tied = sum(1 / np.log2(rank + 1) for rank in range(1, 6)) / 10
    mean = (8 + tied) / 10
    assert f"nDCG@5      {mean:.4f}   95% interval" in shown
    assert "tie rate     10.0%   ties broken against or for every query: 0.8000 to 0.9000" in shown
    assert "1 without results, counted 0" in shown
    assert "queries of the run that the qrels do not hold" in shown
    with (files / "out" / "ndcg_per_query.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["query_id"] for row in rows] == [f"q{i}" for i in range(10)]
    assert rows[0] == {
        "query_id": "q0",
        "ndcg_at_5": "1.000000",
        "ndcg_at_5_worst": "1.000000",
        "ndcg_at_5_best": "1.000000",
        "order_matters": "False",
        "has_results": "True",
    }
    assert (rows[8]["order_matters"], rows[9]["ndcg_at_5"], rows[9]["has_results"]) == ("True", "0.000000", "False")
    records = read_records(files / "out" / "records.jsonl")
    assert [record.measure for record in records[:4]] == ["ndcg_at_5", "ndcg_at_5_worst", "ndcg_at_5_best", "tie_rate"]
    assert records[0].value == pytest.approx(mean)
    assert records[0].low < mean < records[0].high
    assert [record.query_id for record in records[4:]] == [f"q{i}" for i in range(10)]
    run = json.loads((files / "out" / "run.json").read_text())
    assert run["options"]["k"] == 5
    assert run["without_results"] == ["q9"] and run["not_in_qrels"] == ["extra"]


def test_same_seed_same_words_and_nothing_written_without_out(files, capsys):
    arguments = ["--run", str(files / "run.tsv"), "--qrels", str(files / "qrels.tsv"), "--k", "3"]
    before = sorted(files.iterdir())
    main(arguments)
    first = capsys.readouterr().out
    main(arguments)
    assert capsys.readouterr().out == first
    assert "nDCG@3" in first
    assert sorted(files.iterdir()) == before


def test_a_fault_is_one_sentence_and_nothing_is_written(files):
    (files / "bad.tsv").write_text("q1 Q0 p1 1 0.5 me\nq1 Q0 p2 2\n")
    with pytest.raises(SystemExit, match=r"error: .*bad\.tsv, line 2: a run has 3 columns"):
        main(["--run", str(files / "bad.tsv"), "--qrels", str(files / "qrels.tsv"), "--out", str(files / "out")])
    assert not (files / "out").exists()


def test_options_out_of_range_are_sentences(files):
    for change, message in [
        ({"k": 0}, "k must be"),
        ({"confidence": 1.0}, "confidence"),
        ({"resamples": 5}, "resamples"),
    ]:
        with pytest.raises(ValueError, match=message):
            ScoreOptions(run=files / "run.tsv", qrels=files / "qrels.tsv", **change)


def test_one_query_has_no_interval(files, capsys):
    (files / "one.tsv").write_text("q0 0 p0 1\n")
    main(["--run", str(files / "run.tsv"), "--qrels", str(files / "one.tsv")])
    assert "no interval from one query" in capsys.readouterr().out


def test_runs_as_a_module_and_explains_its_options(files):
    done = subprocess.run(
        [sys.executable, "-m", "miner_diag.retrieval", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "The number of ranks that count." in done.stdout
    assert "--qrels" in done.stdout
