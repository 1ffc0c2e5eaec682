"""The list of faults fits the package: every text is there exactly once, and every test that is named exists."""

import ast
import re
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS
from tests.mutations.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_text_stands_in_the_package_exactly_once_and_its_tests_exist(mutation):
    text = (ROOT / "miner_diag" / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, "change `old` to what the line says now, or take the fault out of the list"
    assert mutation.new != mutation.old and mutation.why.endswith(".") and mutation.tests
    ast.parse(text.replace(mutation.old, mutation.new))
    for test in mutation.tests:
        path, _, name = test.partition("::")
        source = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"def {name}\(", source), f"{path} has no test called {name}"


def test_every_fault_has_a_name_of_its_own():
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names)


def test_an_unknown_name_is_a_sentence(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--only", "no-such-fault"])
    assert stopped.value.code == 2
    assert "there is no fault called no-such-fault" in capsys.readouterr().err
