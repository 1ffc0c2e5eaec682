"""Score a run file against qrels: what the command of this folder does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from miner_diag.files import sha256_file
from miner_diag.records import Record
from miner_diag.retrieval.formats import read_qrels, read_run
from miner_diag.retrieval.score import ndcg_records, per_query_frame, score_run, summary_lines
from miner_diag.runs import RunFolder
from miner_diag.texts import inert


@dataclass(frozen=True)
class ScoreOptions:
    """Score a run file against qrels: nDCG@k with a bootstrap interval over queries and the tie rate."""

    run: Path
    """Scores of pages: a TREC run, `query page score` columns, or JSON {query: {page: score}}."""
    qrels: Path
    """What is right: BEIR qrels.tsv, TREC qrels, or JSON {query: {page: grade}}. Every query in it is scored."""
    k: int = 5
    """The number of ranks that count."""
    ignore_self: bool = False
    """For queries that are pages too: the page that has a query's own id is not ranked for that query."""
    out: Path | None = None
    """The folder for ndcg_per_query.csv, records.jsonl and run.json; nothing is written without it."""
    confidence: float = 0.95
    """The nominal coverage of the interval."""
    resamples: int = 4000
    """The number of bootstrap samples."""
    seed: int = 0
    """The seed of the bootstrap."""

    def __post_init__(self) -> None:
        """Refuse options that no run can have."""
        if self.k < 1:
            raise ValueError(f"k must be at least 1; got {self.k}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, both excluded; got {self.confidence}")
        if self.resamples < 100:
            raise ValueError(f"resamples must be at least 100; got {self.resamples}")


def run(options: ScoreOptions) -> None:
    """Run the command: score, show the table, and write it if a folder is given.

    Raises
    ------
    ValueError
        If a file is not what it should be; file and line are named.
    """
    folder = None if options.out is None else RunFolder(options.out, "miner_diag.retrieval", options)
    scored = score_run(
        read_qrels(options.qrels),
        read_run(options.run),
        k=options.k,
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
        ignore_self=options.ignore_self,
    )
    lines = summary_lines(scored)
    if folder is None:
        print("\n".join(map(inert, lines)))
        return
    row = partial(
        Record, model=options.run.name, model_revision=sha256_file(options.run), dataset=options.qrels.name, split="all"
    )
    folder.table("ndcg_per_query", per_query_frame(scored.ndcg, scored.without_results))
    folder.records(ndcg_records(scored.ndcg, scored.interval, row, options.seed))
    facts = {
        "qrels_sha256": sha256_file(options.qrels),
        "without_results": scored.without_results,
        "not_in_qrels": scored.not_in_qrels,
        "rank_own": scored.rank_own,
    }
    folder.finish(facts=facts, lines=lines)
