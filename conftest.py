"""Settings of every test session, the notebooks' own included."""

import os
import sys
import tempfile

import pytest

MOST_WORKERS = 4
"""Each takes up to 2 GB, and there are no more large pieces of work than this."""

ASKED_OF_NOTEBOOKS = {f"MINER_DIAG_{what}" for what in ("DATA", "FIGURES", "LIMIT", "MODELS", "RUNS", "RUN_FILES")}
"""A session that sets one of these wants to see what notebooks draw."""

NOTEBOOK_PAGES = "120"
"""The largest number of pages of a notebook where nobody looks at what it draws."""

# Threads are set once, before any library starts its pool: tests stay comparable between machines. Where several
# processes share the cores, threads that wait must not burn them (many a test takes ten times the processor time then):
# those of torch sleep if told to, those of NumPy's BLAS do not, so there is one.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

collect_ignore_glob = ["notebooks/*.py"]
"""Sources of notebooks are not collected: importing one would run it once more than nbmake does."""


def pytest_configure(config: pytest.Config) -> None:
    """Let notebooks write below a temporary folder, so that a test session leaves nothing in the checkout.

    Where nothing is asked of them, what they draw is thrown away, and those that read pages from pixels read few.
    """
    if not ASKED_OF_NOTEBOOKS & set(os.environ):
        os.environ["MINER_DIAG_LIMIT"] = NOTEBOOK_PAGES
    if "MINER_DIAG_RUNS" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="miner-diag-runs-")
        config.add_cleanup(folder.cleanup)
        os.environ["MINER_DIAG_RUNS"] = folder.name  # the processes that share the tests inherit it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share the tests between the cores that this process may use, a few of them at most."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Hand out whole files, and all notebooks together: each reads what the one before it has computed."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "notebooks" if nodeid.startswith("notebooks/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the notebooks: no other piece of work that one process has to do alone takes as long."""
    items.sort(key=lambda item: not item.nodeid.startswith("notebooks/"))
