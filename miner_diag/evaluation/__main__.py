"""``python -m miner_diag.evaluation``: saved systems compared on any corpus."""

from __future__ import annotations

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.evaluation.run import EvaluationOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(EvaluationOptions, run, "evaluation", args)


if __name__ == "__main__":
    main()
