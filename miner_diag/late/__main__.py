"""``python -m miner_diag.late``: judge a late-interaction retriever."""

from __future__ import annotations

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.corpus.summary import skipped_lines
from miner_diag.files import write_atomic
from miner_diag.late.job import LateOptions, late_scores
from miner_diag.late.table import late_lines, late_records
from miner_diag.provenance import RunClock, write_run
from miner_diag.records import write_records
from miner_diag.retrieval.score import per_query_csv


def run(options: LateOptions) -> None:
    """Run the command."""
    clock = RunClock()
    found = late_scores(options, clock)
    write_records(options.out / "records.jsonl", late_records(found, options.seed))
    write_atomic(options.out / "ndcg_per_query.csv", per_query_csv(found.ndcg))
    if found.partner is not None:
        write_atomic(options.out / "ndcg_per_query_against.csv", per_query_csv(found.partner.ndcg))
    content = write_run(options.out, "miner_diag.late", options, clock, **found.facts())
    for line in (*late_lines(found), *skipped_lines(found.corpus.skipped)):
        print(line)
    print(f"{content['seconds']:.0f} s, {content['peak_memory_mb']:.0f} MB; written to {options.out}")


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(LateOptions, run, "late", args)


if __name__ == "__main__":
    main()
