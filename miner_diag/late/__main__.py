"""``python -m miner_diag.late``: nDCG of a late-interaction retriever, and what its tokens cost."""

from __future__ import annotations

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.late.run import LateOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(LateOptions, run, "late", args)


if __name__ == "__main__":
    main()
