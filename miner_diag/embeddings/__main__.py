"""``python -m miner_diag.embeddings``: run a retriever once and keep the pooled vector of every layer."""

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.embeddings.run import EmbeddingsOptions, run


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(EmbeddingsOptions, run, "embeddings", args)


if __name__ == "__main__":
    main()
