"""``python -m miner_diag.probes``: which kind of probe each layer needs, and which layers to keep."""

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.probes.run import ProbesOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(ProbesOptions, run, "probes", args)


if __name__ == "__main__":
    main()
