"""``python -m miner_diag.serving``: a retriever for other tools, an index of PDFs, and what serving costs."""

from __future__ import annotations

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.serving.run import ServingOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(ServingOptions, run, "serving", args)


if __name__ == "__main__":
    main()
