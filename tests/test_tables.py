"""Text from elsewhere does nothing: not to a terminal, a log or a spreadsheet; and it comes back unchanged."""

import json
import logging
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.command import InertFormatter
from miner_diag.corpus.core import Skipped
from miner_diag.corpus.summary import skipped_lines
from miner_diag.figures import new_figure, save_figure
from miner_diag.records import read_records
from miner_diag.retrieval.__main__ import main
from miner_diag.runs import RunFolder
from miner_diag.tables import cell_as_written, inert_cell, read_csv, table_text, write_csv
from miner_diag.texts import DANGEROUS, inert

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3+cmd",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''=1",
    "＝1+1",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\nforged: line",
    "a\r\nb",
    "\u202egnp.exe",
    "\u2066a\u2069\u200f",
    "\u2028",
    "\\x1b",
    "\\\\x1b\\u202e",
    "C:\\docs\\a",
    "<script>alert(1)</script>",
    'a,"b"',
    "\udc80",
    "Ünïcode – “quoted”",
    "'",
    "",
    "=",
]

texts = st.text(st.sampled_from("=+-@'\\xu0123bde \t\r\n\x1b\x9b\u202ea,\"") | st.characters(), max_size=12)


@given(texts)
def test_a_cell_comes_back_and_is_inert(text):
    cell = inert_cell(text)
    assert cell_as_written(cell) == text
    assert not DANGEROUS.search(cell)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or float(cell) == float(text)


@given(texts)
def test_shown_text_is_one_line_without_control_characters(text):
    shown = inert(text)
    assert len(shown.splitlines()) <= 1 and not DANGEROUS.search(shown)
    if not DANGEROUS.search(text):
        assert shown == text


def test_every_character_that_moves_a_terminal_is_shown_by_its_code():
    for number in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F)):
        assert inert(chr(number)) == (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
    for kept in "aé–…“☃漢\u200d\u00ad":
        assert inert(kept) == kept


def test_numbers_stay_numbers_and_texts_come_back(tmp_path):
    frame = pd.DataFrame(
        {
            "query_id": HOSTILE[:-5],
            "value": np.linspace(-1, 1, len(HOSTILE) - 5),
            "count": range(-5, len(HOSTILE) - 10),
            "mixed": [-0.5, None, "=a", *["-3"] * (len(HOSTILE) - 8)],
            "kept": [True, False, *[True] * (len(HOSTILE) - 7)],
        }
    )
    write_csv(tmp_path / "a.csv", frame)
    raw, again = pd.read_csv(tmp_path / "a.csv"), read_csv(tmp_path / "a.csv")
    for name in ("value", "count", "kept"):
        assert raw[name].dtype == frame[name].dtype and raw[name].equals(frame[name])
    assert again["query_id"].tolist() == frame["query_id"].tolist()
    assert again["mixed"].tolist()[2] == "=a" and set(raw["mixed"][3:]) == {"-3"}
    assert not raw["query_id"].str.match(r"[=+\-@\t\r]").any()
    lines = (tmp_path / "a.csv").read_text().split("\n")
    assert len(lines) == len(frame) + 2  # no cell has a line end


def test_a_table_without_text_from_elsewhere_is_written_as_ever(tmp_path):
    frame = pd.DataFrame({"system": ["fusion", None], "low": [-0.25, float("nan")], "what": ['a, "b"', "C:\\dir"]})
    for index in (True, False):
        write_csv(tmp_path / "a.csv", frame, index=index)
        assert (tmp_path / "a.csv").read_text() == frame.to_csv(index=index, lineterminator="\n")


def test_names_of_columns_and_rows_are_inert_too(tmp_path):
    frame = pd.DataFrame({"=a": [1], "b": [2]}, index=pd.Index(["\x1b[2J"], name="model"))
    write_csv(tmp_path / "a.csv", frame, index=True)
    assert (tmp_path / "a.csv").read_text() == "model,'=a,b\n\\x1b[2J,1,2\n"
    assert read_csv(tmp_path / "a.csv", index_col="model").equals(frame)
    assert "\x1b" not in table_text(frame)


def test_a_table_in_the_terminal_shows_codes():
    names = pd.Series(HOSTILE, dtype=object)  # not every kind of text that pandas knows holds half a character
    shown = table_text(pd.DataFrame({"name": names, "value": 1.5}), index=False, float_format="{:.2f}".format)
    assert not DANGEROUS.search(shown.replace("\n", "")) and len(shown.split("\n")) == len(HOSTILE) + 1
    assert "1.50" in shown


def test_a_runs_closing_lines_and_reasons_are_inert(tmp_path, capsys):
    lines = skipped_lines([Skipped(name, f"it is \x1b[31m{name}") for name in HOSTILE])
    RunFolder(tmp_path / "a\x1b[2J", "miner_diag.cka", {"data": "\u202ea"}).finish(
        facts={"skipped": {name: name for name in HOSTILE}}, lines=[*lines, *HOSTILE], next_command="cka \x1b[2J"
    )
    out = capsys.readouterr().out
    assert not DANGEROUS.search(out.replace("\n", ""))
    assert len(out.split("\n")) == len(lines) + len(HOSTILE) + 3
    content = json.loads((tmp_path / "a\x1b[2J" / "run.json").read_text())
    assert content["skipped"] == {name: name for name in HOSTILE}  # JSON holds the text as it is


def test_log_lines_are_inert_and_tracebacks_keep_their_lines():
    formatter = InertFormatter("%(message)s")
    record = logging.LogRecord("a", logging.WARNING, "", 0, "%s is left out: %s", ("\x1b[2J", "a\nb"), None)
    assert formatter.format(record) == "\\x1b[2J is left out: a\\x0ab"
    try:
        raise ValueError("x")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "\nTraceback" in formatter.format(record)


def test_the_command_that_scores_runs_is_inert_from_end_to_end(tmp_path, capsys):
    ids = ["=cmd|'/C_calc'!A0", "-1+1", "\x1b[2J", "plain", "\u202eq"]
    (tmp_path / "qrels.json").write_text(json.dumps({query_id: {"p": 1} for query_id in ids}))
    (tmp_path / "run.json").write_text(json.dumps({query_id: {"p": 0.5} for query_id in ids}))
    out = tmp_path / "out"
    main(["--run", str(tmp_path / "run.json"), "--qrels", str(tmp_path / "qrels.json"), "--out", str(out)])
    table = read_csv(out / "ndcg_per_query.csv")
    assert sorted(table["query_id"]) == sorted(ids)
    assert not pd.read_csv(out / "ndcg_per_query.csv")["query_id"].str.match(r"[=+\-@]").any()
    assert {r.query_id for r in read_records(out / "records.jsonl")} - {None} == set(ids)
    (tmp_path / "bad.json").write_text(json.dumps({"\x1b[2J\n": {"p": "x"}}))
    with pytest.raises(SystemExit) as ended:
        main(["--run", str(tmp_path / "bad.json"), "--qrels", str(tmp_path / "qrels.json")])
    assert str(ended.value).startswith("error: ") and not DANGEROUS.search(str(ended.value))
    assert not DANGEROUS.search(capsys.readouterr().out.replace("\n", ""))


def test_names_in_figures_are_drawn_as_they_are(tmp_path):
    figure = new_figure(3, 2)
    ax = figure.subplots()
    ax.plot([1, 2], label="a $\\frac{ model")
    ax.set_title("$unclosed\\frac{ \x1b[2J\n$second$")
    ax.legend()
    ax.set_yticks([1, 2], ["$a\\frac{", "b \x1b[2J"])
    ax.text(0, 1, "$\\frac{")
    figure.suptitle("data $$ of ${")
    save_figure(figure, tmp_path / "a.png")
    assert ax.title.get_text() == "$unclosed\\frac{ \\x1b[2J\n$second$"
