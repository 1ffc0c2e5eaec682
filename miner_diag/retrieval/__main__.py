"""``python -m miner_diag.retrieval``: score a run file against qrels."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from miner_diag.retrieval.score import Scored, ScoreOptions, score_run_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after a sentence about what is wrong."""
    options = tyro.cli(ScoreOptions, args=arguments, prog="python -m miner_diag.retrieval")
    try:
        scored = score_run_file(options)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(summary(scored))
    if options.out is not None:
        sys.stdout.write(f"\nwritten: {options.out / 'ndcg_per_query.csv'}, {options.out / 'run.json'}\n")
    return 0


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
    return "".join(f"{name:<9} {value:>8}   {note}\n" for name, value, note in rows)


if __name__ == "__main__":
    sys.exit(main())
