"""``python -m miner_diag.cka``: which layers of a retriever are retrieval-aligned."""

from collections.abc import Sequence

from miner_diag.cka.run import CKAOptions, run
from miner_diag.command import run_command


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(CKAOptions, run, "cka", args)


if __name__ == "__main__":
    main()
