"""``python -m miner_diag.report``: backbones, their fusions and late interaction on one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from miner_diag.command import run_command
from miner_diag.corpus import load_corpus
from miner_diag.corpus.core import Form
from miner_diag.files import atomic_path, write_atomic
from miner_diag.provenance import RunClock, write_run
from miner_diag.report.main_table import cost_figure, main_table


@dataclass(frozen=True)
class ReportOptions:
    """Put backbones, their fusions and late interaction on one table, with bytes per page; nothing is run again."""

    fusion: tuple[Path, ...] = (Path("runs/fusion"),)
    """Folders of runs of miner_diag.fusion, one per backbone."""
    late: tuple[Path, ...] = ()
    """Folders of runs of miner_diag.late on the same test split; NAME-late stands with backbone NAME."""
    data: str = "sample"
    """The data set of these runs."""
    queries: Form = "hidden"
    """hidden or verbatim, as in these runs."""
    fold: int = 0
    """As in these runs."""
    intervals_over: Literal["auto", "items", "documents"] = "auto"
    """What intervals and tests are over; auto takes documents from 6 on."""
    seed: int = 0
    """Of bootstrap and permutations."""
    out: Path = Path("runs/report")
    """Folder that is written to."""


def run(options: ReportOptions) -> None:
    """Run the command."""
    clock = RunClock()
    corpus = load_corpus(options.data, queries=options.queries, fold=options.fold).split("test")
    table = main_table(corpus, options.fusion, options.late, intervals_over=options.intervals_over, seed=options.seed)
    write_atomic(options.out / "main_table.csv", table.to_csv(index=False, lineterminator="\n"))
    with atomic_path(options.out / "main_table.png") as path:
        cost_figure(table, title=f"{corpus.name}, test").savefig(path, dpi=200)
    write_run(options.out, "miner_diag.report", options, clock, corpus_revision=corpus.revision)
    shown = table.drop(columns=["kind", "n_queries", "n_documents"])
    print(shown.to_string(index=False, na_rep="", float_format="{:.4f}".format))
    print(f"table and figure are in {options.out}")


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(ReportOptions, run, "report", args)


if __name__ == "__main__":
    main()
