"""A store that is larger than the memory allowed is read row by row."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from miner_diag.probes import RetrievalData, ProbeTrainOptions, fit_probes
from miner_diag.retrieval import Relevance
from tests.probes.helpers import stored

N, L, D = 14_000, 8, 128  # 57 MB a side, 115 MB in all
rng = np.random.default_rng(0)
stores = stored(Path(sys.argv[1]), lambda item_id: rng.normal(size=(L, D)), N, (L, D))
few = RetrievalData.of(*(rng.normal(size=(40, L, D)).astype(np.float32) for _ in "qp"), Relevance.of(np.arange(40), 40),
                [str(i) for i in range(40)])
options = ProbeTrainOptions(epochs=1, batch_size=64, start="least_squares")
fit_probes(few, few, options)  # libraries have their buffers
status = Path("/proc/self/status").read_text()
used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 50_000_000,) * 2)  # private memory; maps of files are not in it
try:
    read = [store.layer_embeddings for store in stores]
except MemoryError:
    print("too large for memory")  # so the cap is one
large = RetrievalData.of(*stores, Relevance.of(np.arange(N), N), [str(i) for i in range(N)])
fitted = fit_probes(large, few, options)
print(fitted.n_steps)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA and /proc are Linux's")
def test_training_fits_into_less_memory_than_the_store(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["too large for memory", "218"]
