"""Several processes fill one store with the bytes that one process gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import EmbeddedCorpus, TokenCorpus, open_corpus, open_token_corpus
from miner_diag.embeddings.processes import Processes, one_process, processes
from tests.embeddings.helpers import kept_bytes

ROOT = Path(__file__).parents[2]
RUN = """
import os
import sys
from pathlib import Path
from miner_diag.embeddings import EmbeddedCorpus, StoreOptions
from miner_diag.embeddings.processes import leave_the_rest_to_the_main_process, processes
from tests.embeddings.helpers import PretendBackbone, small_shards, three_splits

def tell(line):
    os.write(1, (line + "\\n").encode())  # in one piece: print writes several, between which another process writes

backbone = PretendBackbone()
backbone.noise = 1e-6
corpus = three_splits()
with small_shards():
    embedded_corpus = EmbeddedCorpus(
        corpus, backbone, StoreOptions(Path(sys.argv[1]), token_budget=60), progress=False, several_processes=True
    )
    embedded = embedded_corpus.take(corpus)
assert embedded.stores.pages.layer_embeddings.shape == (180, 4, 6)
tell(f"embedded {processes().rank} {len(backbone.embedded())}")
leave_the_rest_to_the_main_process()
tell(f"main goes on {processes().rank}")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "run.py"
    path.write_text(RUN)
    return path


def run(*command):
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env={**environment, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_give_the_bytes_of_one(script, tmp_path):
    run(script, tmp_path / "one")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    output = run(*launcher, script, tmp_path / "two")
    assert kept_bytes(tmp_path / "one") == kept_bytes(tmp_path / "two")
    embedded = {line.split()[1]: int(line.split()[2]) for line in output.splitlines() if "embedded" in line}
    assert sum(embedded.values()) == 201 and min(embedded.values()) > 60, "each has its share, and nobody embeds twice"
    assert output.count("main goes on") == 1
    for path in sorted((tmp_path / "two").glob("*/shards/*"))[::2]:  # as a killed run may leave it
        path.unlink()
    run(*launcher, script, tmp_path / "two")
    assert kept_bytes(tmp_path / "one") == kept_bytes(tmp_path / "two")
    output = run(*launcher, script, tmp_path / "two")  # from the store
    assert "embedded 0 0" in output and "embedded 1 0" in output


def test_accelerate_launches_it_too(script, tmp_path):
    pytest.importorskip("accelerate")
    run("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", script, tmp_path / "accelerated")
    run(script, tmp_path / "one")
    assert kept_bytes(tmp_path / "one") == kept_bytes(tmp_path / "accelerated")


def test_what_the_others_leave_out_is_embedded_by_the_main_process(backbone, corpus, options):
    embedded_corpus = EmbeddedCorpus(corpus, backbone, options, progress=False)
    waits = []

    class Pretended(Processes):
        """The first of two processes, of which the other one has died after the first meeting."""

        def wait(self):
            waits.append(len(backbone.embedded()))

    embedded_corpus._stored._processes = Pretended(0, 2)
    embedded = embedded_corpus.take(corpus)
    assert len(waits) == 3 and waits[0] == 0 < waits[1] < waits[2] == 201
    assert len(embedded.stores.pages) == 180


def test_shards_are_dealt_out():
    three = [Processes(rank, 3) for rank in range(3)]
    assert all(sum(one.takes(shard) for one in three) == 1 for shard in range(20))
    assert Processes().takes(7) and Processes().is_main
    Processes().wait()


def test_the_launchers_variables(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes() == one_process() == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but MASTER_ADDR and MASTER_PORT are not set: .*torchrun"):
        processes()
    monkeypatch.setenv("RANK", "5")
    with pytest.raises(ValueError, match="got RANK=5, WORLD_SIZE=2"):
        processes()


def test_what_does_not_share_its_work_is_refused_before_anything_is_loaded(
    monkeypatch, backbone, late, corpus, options
):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    nowhere = DataOptions(data="nowhere")
    for refused in (
        lambda: EmbeddedCorpus(corpus, backbone, options),
        lambda: TokenCorpus(corpus, late, options),
        lambda: open_corpus(LoadOptions(), nowhere, options),
        lambda: open_token_corpus(LoadOptions("page-text-late"), nowhere, options),
    ):
        with pytest.raises(ValueError, match=r"2 processes were started \(WORLD_SIZE\), but only python -m miner_diag"):
            refused()
    EmbeddedCorpus(corpus, backbone, options, several_processes=True)
