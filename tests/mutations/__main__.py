"""Put every fault of the list into a copy of the package and run the tests that must notice it.

Usage::

    python -m tests.mutations                    # all faults, some minutes
    python -m tests.mutations --only NAME NAME   # these alone

The tests run on a copy; the package itself is never written to. First they must pass without a fault. The exit status
is 1 if they do not, if a fault survives, if it keeps the tests from running at all, or if its text is no longer in the
package exactly once; else 0.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
LIBRARIES = ["numpy", "scipy.stats", "pandas", "torch", "pytest", "hypothesis"]
"""Imported once, by the process that all test runs are copies of."""
OUTCOMES = {0: "survived", 1: "caught"}
"""What the exit status of pytest says of a fault; any other means that the tests did not run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="The faults to try; all if this is not given.")
    names = parser.parse_args(arguments).only
    unknown = set(names or ()) - {mutation.name for mutation in MUTATIONS}
    if unknown:
        parser.error(f"there is no fault called {', '.join(sorted(unknown))}")
    chosen = [mutation for mutation in MUTATIONS if names is None or mutation.name in names]
    multiprocessing.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Copy(Path(folder))
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        status, seconds = copy.run(tests)
        if status:
            print(f"the tests fail without any fault; see {copy.log}:\n{copy.log.read_text(encoding='utf-8')[-3000:]}")
            return 1
        print(f"{len(tests)} test files and tests pass without a fault ({seconds:.0f} s); now {len(chosen)} faults")
        outcomes = [_try(copy, mutation) for mutation in chosen]
    for outcome in ("caught", "survived", "did not run", "text not found once"):
        print(f"{outcome}: {outcomes.count(outcome)}")
    return int(set(outcomes) != {"caught"})


def _try(copy: Copy, mutation: Mutation) -> str:
    """Return what became of one fault, and print its line of the table."""
    seconds = 0.0
    if not copy.put_in(mutation):
        outcome = "text not found once"
    else:
        status, seconds = copy.run(mutation.tests)
        outcome = OUTCOMES.get(status, "did not run")
        copy.take_out(mutation)
    print(f"{mutation.name:<34} {outcome:<20} {seconds:5.1f} s  {mutation.file:<28} {mutation.why}", flush=True)
    return outcome


OPTIONS = ["-q", "-x", "-o", "addopts=", "--import-mode=importlib", "--strict-markers", "-p", "no:cacheprovider"]
"""The options of every run: those of the project without its doctests and notebooks, and an end at the first failure."""


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
    import pytest

    status = int(
        pytest.main(
            ["-q", "-x", "--no-header", "--durations=0", "-p", "no:nbmake", "-o", "addopts=", *OPTIONS, *arguments]
        )
    )
    package = sys.modules.get("miner_diag")
    if package is not None and not str(package.__file__).startswith(folder):
        status = 9  # the tests have seen another package than the copy
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
