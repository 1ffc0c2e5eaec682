"""``python -m miner_diag.retrieval``: score a run file against qrels."""

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.retrieval.run import ScoreOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(ScoreOptions, run, "retrieval", args)


if __name__ == "__main__":
    main()
