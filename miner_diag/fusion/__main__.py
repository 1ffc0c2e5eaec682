"""``python -m miner_diag.fusion``: fit and save a fusion of layers, and the heads that it is compared with."""

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.fusion.run import FusionOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(FusionOptions, run, "fusion", args)


if __name__ == "__main__":
    main()
