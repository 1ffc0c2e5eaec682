"""``python -m miner_diag.retrieval``: score a run file against qrels."""

from __future__ import annotations

from collections.abc import Sequence

from miner_diag.command import run_command
from miner_diag.retrieval.score import Scored, ScoreOptions, score_run_file


def run(options: ScoreOptions) -> None:
    """Run the command."""
    print(summary(score_run_file(options)))
    if options.out is not None:
        print(f"written to {options.out}: ndcg_per_query.csv, records.jsonl, run.json")


def summary(scored: Scored) -> str:
    """Return the table that the terminal shows."""
    ndcg, interval = scored.ndcg, scored.interval
    worst, best = ndcg.bounds
    spread = (
        f"{interval.confidence:.0%} interval {interval.low:.4f} to {interval.high:.4f} (bootstrap over queries)"
        if interval
        else "no interval from one query"
    )
    rows = [
        (f"nDCG@{ndcg.k}", f"{ndcg.mean:.4f}", spread),
        ("tie rate", f"{ndcg.tie_rate:.1%}", f"ties broken against or for every query: {worst:.4f} to {best:.4f}"),
        ("queries", f"{len(ndcg.values)}", f"{len(scored.without_results)} without results, counted 0"),
    ]
    if scored.not_in_qrels:
        rows.append(("left out", f"{len(scored.not_in_qrels)}", "queries of the run that the qrels do not hold"))
    return "\n".join(f"{name:<9} {value:>8}   {note}" for name, value, note in rows)


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(ScoreOptions, run, "retrieval", args)


if __name__ == "__main__":
    main()
