"""``python -m tools.train_line_reader``: train the reader of text lines of ``page-vision``."""

from collections.abc import Sequence

from miner_diag.command import run_command
from tools.train_line_reader.run import ReaderTrainOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(ReaderTrainOptions, run, "tools.train_line_reader", args)


if __name__ == "__main__":
    main()
