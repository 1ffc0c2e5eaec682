"""A run killed with SIGKILL, at moments it cannot prepare for, ends with the same bytes once it is taken up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("pretend", {conftest!r})
pretend = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pretend)
from miner_diag.corpus.core import Page
from miner_diag.embeddings import extract, extract_tokens

backbone = {backbone}
def slowly(item_id, layers):
    time.sleep({pause})
    return layers
backbone.spoil = slowly
pages = [Page(f"p{{n}}", "d", n + 1, "x " * (n % 17), f"h{{n}}") for n in range(60)]
options = {{"token_budget": 30, "shard_items": 4, "progress": False}}
{extract}(backbone, pages, "page", sys.argv[1], corpus_key={{"corpus": "t"}}, **options)
"""


KINDS = {
    "layers": {"backbone": "pretend.PretendBackbone()", "extract": "extract"},
    "tokens": {"backbone": "pretend.PretendLate()", "extract": "extract_tokens"},
}


def command(kind, folder, pause):
    code = RUN.format(conftest=str(Path(__file__).with_name("conftest.py")), pause=pause, **KINDS[kind])
    return [sys.executable, "-c", code, str(folder)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folders = {kind: tmp_path_factory.mktemp("whole") / kind for kind in KINDS}
    for kind, folder in folders.items():
        subprocess.run(command(kind, folder, 0), check=True)
    return {kind: content(folder) for kind, folder in folders.items()}


@pytest.mark.parametrize(
    ("kind", "shards"), [("layers", 0), ("layers", 1), ("layers", 4), ("layers", 8), ("tokens", 0), ("tokens", 5)]
)
def test_killed_and_taken_up(tmp_path, whole, kind, shards):
    folder = tmp_path / "store"
    process = subprocess.Popen(command(kind, folder, 0.01))
    until = time.monotonic() + 60
    while not (folder / "key.json").exists() or len(list(folder.glob("shard-*"))) < shards:
        assert process.poll() is None and time.monotonic() < until, "the run was to be killed before its end"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert not (folder / "shards.json").exists()
    subprocess.run(command(kind, folder, 0), check=True)
    assert content(folder) == whole[kind]
    for name, moment in kept.items():
        assert (folder / name).stat().st_mtime_ns == moment, f"{name} was there and was computed again"
