"""The repository keeps its own rules: ruff's checks and formatting, and notebooks that are what their sources say."""

import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["rules", "format"])
def test_ruff_has_nothing_to_say(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_has_nothing_to_say():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_line_escapes_the_formatter():
    marks = ["# fmt: " + word for word in ("skip", "off")]
    sources = [path for path in ROOT.rglob("*.py") if not {".venv", "build"} & set(path.parts)]
    escaped = [str(path) for path in sources for mark in marks if mark in path.read_text(encoding="utf-8")]
    assert not escaped, escaped


@pytest.mark.parametrize("source", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebook_is_made_from_its_source(source):
    made, kept = jupytext.read(source), jupytext.read(source.with_suffix(".ipynb"))
    assert [(c.cell_type, c.source) for c in made.cells] == [(c.cell_type, c.source) for c in kept.cells]
    assert all(not cell.get("outputs") for cell in kept.cells), "outputs are not committed"


@pytest.mark.parametrize("source", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebook_is_thin(source):
    text = source.read_text(encoding="utf-8")
    first = jupytext.read(source).cells[0].source
    assert "def " not in text
    for word in ("Question", "Inputs", "Cost", "minute", "GB"):
        assert word in first, f"the first cell does not say: {word}"
