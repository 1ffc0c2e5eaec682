"""``python -m miner_diag.embeddings``: run a retriever once and keep the pooled vector of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from miner_diag.command import run_command
from miner_diag.embeddings.job import StoreOptions, embed
from miner_diag.provenance import RunClock, write_run


@dataclass(frozen=True)
class EmbeddingsOptions(StoreOptions):
    """Run a retriever once over queries and pages and keep the pooled vector of every layer."""

    out: Path = Path("runs/embeddings")
    """Folder that is written to; a run that was stopped is taken up there."""


def run(options: EmbeddingsOptions) -> None:
    """Run the command."""
    clock = RunClock()
    embedded = embed(options, options.out, clock)
    write_run(options.out, "miner_diag.embeddings", options, clock, **embedded.facts())
    for side, store in zip(("queries", "pages"), embedded.stores, strict=True):
        n_items, n_states, width = store.shape
        print(f"{side:<8} {n_items} x {n_states} layers x {width}  {store.folder}")
    print(embedded.backbone.last_layer)
    largest = max(embedded.noise.max_relative_difference)
    print(f"noise floor of pages (batch of 1 against batched): at most {largest:.1e}, relative")


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(EmbeddingsOptions, run, "embeddings", args)


if __name__ == "__main__":
    main()
