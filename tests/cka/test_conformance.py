"""Our row of the conformance table: right in every planted case. And the table itself tells right from wrong."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks.cka_cases import ERROR, Case, cases
from tests.benchmarks.cka_conformance import judge, run, table, verdict
from tests.benchmarks.cka_rivals import IMPLEMENTATIONS, Implementation

OURS = [implementation for implementation in IMPLEMENTATIONS if implementation.ours]


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
@pytest.mark.parametrize("implementation", OURS, ids=lambda implementation: implementation.name)
def test_ours_is_right(case, implementation):
    result = judge(case, implementation)
    assert result["verdict"] == "right", result
    if case.truth == ERROR:  # a sentence of ours, not an accident
        assert result["message"].startswith(("UndefinedCKAError: ", "ValueError: "))


def test_verdicts():
    number, nothing = Case("", None, None, 0.5), Case("", None, None, ERROR)
    for value, failed, expected in (
        (0.5 + 9e-6, False, "right"),
        (0.51, False, "near"),
        (0.6, False, "WRONG"),
        (math.nan, False, "NaN"),
        (math.nan, True, "error"),
    ):
        assert verdict(number, value, failed) == expected
    for value, failed, expected in ((0.0, False, "WRONG"), (math.nan, False, "NaN"), (math.nan, True, "right")):
        assert verdict(nothing, value, failed) == expected


def test_a_wrong_implementation_is_told_and_an_absent_one_is_listed():
    biased = Implementation("always one", "miner-diag", "miner_diag", lambda x, y, batch: 1.0)
    absent = Implementation("absent", "no-such-cka", "no_such_cka", lambda x, y, batch: 1.0)
    rows = run([biased, absent])
    assert {row["verdict"] for row in rows if row["implementation"] == "always one"} == {"right", "WRONG"}
    assert {row["verdict"] for row in rows if row["implementation"] == "absent"} == {"not installed"}
    text = table(rows)
    assert "No module named 'no_such_cka'" in text
    assert "!1.0000" in text
