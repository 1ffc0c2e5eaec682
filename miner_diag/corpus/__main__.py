"""``python -m miner_diag.corpus``: fetch and check a data set, and show what is in it."""

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.corpus.run import CorpusOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(CorpusOptions, run, "corpus", args)


if __name__ == "__main__":
    main()
