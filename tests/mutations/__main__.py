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
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutations import MUTATIONS, Mutation
from tests.mutations.copied import Copy

LIBRARIES = [
    "numpy",
    "scipy.stats",
    "pandas",
    "torch",
    "seaborn",
    "transformers",
    "safetensors.torch",
    "hypothesis",
    "pytest",
]
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


if __name__ == "__main__":
    sys.exit(main())
