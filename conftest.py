"""Settings of every test session, the notebooks' own included."""

import os
import tempfile

import pytest

# Threads are set once, before any library starts its pool: tests stay comparable between machines.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

collect_ignore_glob = ["notebooks/*.py"]
"""Sources of notebooks are not collected: importing one would run it once more than nbmake does."""


def pytest_configure(config: pytest.Config) -> None:
    """Let notebooks write below a temporary folder, so that a test session leaves nothing in the checkout."""
    if "MINER_DIAG_RUNS" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="miner-diag-runs-")
        config.add_cleanup(folder.cleanup)
        os.environ["MINER_DIAG_RUNS"] = folder.name
