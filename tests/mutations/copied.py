"""A copy of the package that faults are put into, and test runs on it, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.mutation import Mutation

ROOT = Path(__file__).parents[2]
NOT_RUN = 9
"""The exit status where no test could say anything; no status of pytest."""
OPTIONS = [
    "-q",
    "-x",
    "-o",
    "addopts=",
    "--import-mode=importlib",
    "--strict-markers",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
"""The options of every run: the project's own without doctests and notebooks, and an end at the first failure."""


class Copy:
    """A copy of the package beside links to the tests and what they read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "pytest.txt"
        self.time = 1_000_000_000
        shutil.copytree(ROOT / "miner_diag", folder / "miner_diag", ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.iterdir():
            if path.name not in ("miner_diag", "runs", ".git") and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)

    def put_in(self, mutation: Mutation) -> bool:
        """Put a fault in; return False, and change nothing, where its text is not there exactly once."""
        text = (ROOT / "miner_diag" / mutation.file).read_text(encoding="utf-8")
        if text.count(mutation.old) != 1:
            return False
        self._write(mutation.file, text.replace(mutation.old, mutation.new))
        return True

    def take_out(self, mutation: Mutation) -> None:
        """Make the file what it is in the package."""
        self._write(mutation.file, (ROOT / "miner_diag" / mutation.file).read_text(encoding="utf-8"))

    def _write(self, file: str, text: str) -> None:
        path = self.folder / "miner_diag" / file
        path.write_text(text, encoding="utf-8")
        self.time += 10  # compiled files are known by the time of their source, to the second
        os.utime(path, (self.time, self.time))

    def run(self, tests: Sequence[str]) -> tuple[int, float]:
        """Run tests until one fails; return pytest's exit status and the seconds."""
        start = time.perf_counter()
        arguments = [str(Path("tests") / test) for test in tests]
        process = multiprocessing.get_context("forkserver").Process(
            target=_run_pytest, args=(str(self.folder), str(self.log), arguments)
        )
        process.start()
        process.join()
        return process.exitcode or 0, time.perf_counter() - start


def _run_pytest(folder: str, log: str, arguments: list[str]) -> None:
    """Run pytest in the copy, in a process of its own, and leave with its exit status."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "miner_diag")]:
        del sys.modules[name]
    sys.path[:] = [folder, *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    os.chdir(folder)
    with open(log, "w", encoding="utf-8") as written:
        os.dup2(written.fileno(), 1)
        os.dup2(written.fileno(), 2)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no test of the list needs a plugin; to load them takes seconds
    status = NOT_RUN
    try:
        import pytest

        status = int(pytest.main([*OPTIONS, *arguments]))
        package = sys.modules.get("miner_diag")
        if package is not None and not str(package.__file__).startswith(folder):
            status = NOT_RUN  # the tests have seen another package than the copy
    finally:  # an error of this process would leave with 1, which is the status of a test that failed
        sys.stdout.flush()
        os._exit(status)
