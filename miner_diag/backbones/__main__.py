"""``python -m miner_diag.backbones``: which retrievers there are, and what this machine can run of them."""

from collections.abc import Sequence

from miner_diag.backbones.run import BackbonesOptions, run
from miner_diag.command import run_command


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(BackbonesOptions, run, "backbones", args)


if __name__ == "__main__":
    main()
