"""A run killed with SIGKILL, at moments it is not ready for, is taken up by another and ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.embeddings.helpers import kept_bytes, shard_bytes

ROOT = Path(__file__).parents[2]
RUN = """
import sys, time
from pathlib import Path
from miner_diag.embeddings import EmbeddedCorpus, StoreOptions, TokenCorpus
from tests.embeddings.helpers import PretendBackbone, PretendLate, small_shards, three_splits

kind, root, parts, pause = sys.argv[1:]
backbone = PretendBackbone() if kind == "layers" else PretendLate()
backbone.noise = 1e-6
def slowly(item_id, layers):
    time.sleep(float(pause))
    return layers
backbone.spoil = slowly
corpus = three_splits()
with small_shards():
    opened = {"layers": EmbeddedCorpus, "tokens": TokenCorpus}[kind]
    embedded_corpus = opened(corpus, backbone, StoreOptions(Path(root), token_budget=60), progress=False)
    for part in parts.split():
        embedded_corpus.take(corpus.split(part))
"""


def command(kind, root, parts, pause=0.0):
    return [sys.executable, "-c", RUN, kind, str(root), parts, str(pause)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    roots = {kind: tmp_path_factory.mktemp("whole") / kind for kind in ("layers", "tokens")}
    for kind, root in roots.items():
        subprocess.run(command(kind, root, "all"), check=True, cwd=ROOT)
    return {kind: kept_bytes(root) for kind, root in roots.items()}


@pytest.mark.parametrize(
    ("kind", "n_shards"),
    [("layers", 0), ("layers", 1), ("layers", 4), ("layers", 12), ("tokens", 0), ("tokens", 9)],
)
def test_killed_and_taken_up(tmp_path, whole, kind, n_shards):
    root = tmp_path / "store"
    process = subprocess.Popen(command(kind, root, "validation all", 0.01), cwd=ROOT)
    until = time.monotonic() + 120
    while len(list(root.glob("*/key.json"))) < 2 or len(shard_bytes(root)) < n_shards:
        assert process.poll() is None and time.monotonic() < until, "the run was to be killed before its end"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in root.glob("*/shards/[!.]*")}
    assert len(kept) < sum("shards" in name for name in whole[kind])
    subprocess.run(command(kind, root, "test train validation"), check=True, cwd=ROOT)
    without_halves = {name: content for name, content in kept_bytes(root).items() if "/." not in name}
    assert without_halves == whole[kind]
    for path, moment in kept.items():
        assert path.stat().st_mtime_ns == moment, f"{path} was there and was computed again"
