"""Several processes fill one store with the bytes that one process gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from miner_diag.embeddings import open_store
from miner_diag.embeddings.processes import Processes, processes

RUN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pretend", {conftest!r})
pretend = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pretend)
from miner_diag.corpus.core import Page
from miner_diag.embeddings import extract
from miner_diag.embeddings.processes import leave_the_rest_to_the_main_process, processes

backbone = pretend.PretendBackbone()
pages = [Page(f"p{{n}}", "d", n + 1, "x " * (n % 17), f"h{{n}}") for n in range(60)]
options = {{"token_budget": 30, "shard_items": 4, "progress": False}}
store = extract(backbone, pages, "page", sys.argv[1], corpus_key={{"corpus": "t"}}, **options)
assert store.shape == (60, 4, 6)
print("embedded", processes().rank, sum(map(len, backbone.batches)), flush=True)
leave_the_rest_to_the_main_process()
print("main goes on", processes().rank, flush=True)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "run.py"
    path.write_text(RUN.format(conftest=str(Path(__file__).with_name("conftest.py"))))
    return path


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*command):
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env={**environment, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_give_the_bytes_of_one(script, tmp_path):
    run(script, tmp_path / "one")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    told = run(*launcher, script, tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    embedded = {line.split()[1]: int(line.split()[2]) for line in told.splitlines() if "embedded" in line}
    assert sum(embedded.values()) == 60 and min(embedded.values()) > 15, "each has its share, and nobody embeds twice"
    assert told.count("main goes on") == 1
    assert np.isfinite(open_store(tmp_path / "two").layer_embeddings).all()
    told = run(*launcher, script, tmp_path / "two")  # from the store
    assert "embedded 0 0" in told and "embedded 1 0" in told


def test_accelerate_launches_it_too(script, tmp_path):
    pytest.importorskip("accelerate")
    run("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", script, tmp_path / "accelerated")
    run(script, tmp_path / "one")
    assert content(tmp_path / "one") == content(tmp_path / "accelerated")


def test_shards_are_shared_out():
    three = [Processes(rank, 3) for rank in range(3)]
    assert all(sum(one.takes(shard) for one in three) == 1 for shard in range(20))
    assert Processes().takes(7) and Processes().is_main
    Processes().wait()


def test_the_launchers_variables(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes() == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but MASTER_ADDR and MASTER_PORT are not set: .*torchrun"):
        processes()
    monkeypatch.setenv("RANK", "5")
    with pytest.raises(ValueError, match="got RANK=5, WORLD_SIZE=2"):
        processes()
