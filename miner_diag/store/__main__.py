"""``python -m miner_diag.store``: list what the store holds, and delete it on request."""

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.store.run import StoreCommandOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(StoreCommandOptions, run, "store", args)


if __name__ == "__main__":
    main()
