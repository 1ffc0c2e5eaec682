"""Score a run file against qrels: what the command of this folder does."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.files import sha256_file, write_atomic
from miner_diag.provenance import RunClock, write_run
from miner_diag.records import Record, write_records
from miner_diag.retrieval.formats import read_qrels, read_run
from miner_diag.retrieval.ndcg import Ndcg, ndcg_of_run
from miner_diag.stats import Interval, bootstrap_mean


@dataclass(frozen=True)
class ScoreOptions:
    """Score a run file against qrels: nDCG@k with a bootstrap interval over queries and the tie rate."""

    run: Path
    """Scores of pages: a TREC run, `query page score` columns, or JSON {query: {page: score}}."""
    qrels: Path
    """What is right: BEIR qrels.tsv, TREC qrels, or JSON {query: {page: grade}}. Every query in it is scored."""
    k: int = 5
    """Ranks that count."""
    out: Path | None = None
    """Folder for ndcg_per_query.csv, records.jsonl and run.json; nothing is written without it."""
    confidence: float = 0.95
    """Nominal coverage of the interval."""
    resamples: int = 4000
    """Bootstrap samples."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        """Refuse options that no run can have."""
        if self.k < 1:
            raise ValueError(f"k must be at least 1; got {self.k}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, both excluded; got {self.confidence}")
        if self.resamples < 100:
            raise ValueError(f"resamples must be at least 100; got {self.resamples}")


@dataclass(frozen=True, eq=False)
class Scored:
    """A run, judged."""

    ndcg: Ndcg
    """Per query, with the bounds that ties leave."""
    interval: Interval | None
    """Of the mean; None for a single query, which has no spread."""
    without_results: tuple[str, ...]
    """Queries of the qrels that the run does not hold; they count 0."""
    not_in_qrels: tuple[str, ...]
    """Queries of the run that the qrels do not hold; they are left out."""


def score_run_file(options: ScoreOptions) -> Scored:
    """Read both files, score, and write the table if a folder is given.

    Raises
    ------
    ValueError
        If a file is not what it should be; file and line are named.
    """
    clock = RunClock()
    qrels, run = read_qrels(options.qrels), read_run(options.run)
    ndcg = ndcg_of_run(qrels, run, options.k)
    interval = None
    if len(ndcg.values) > 1:
        interval = bootstrap_mean(
            ndcg.values,
            np.random.default_rng(options.seed),
            confidence=options.confidence,
            n_resamples=options.resamples,
        )
    scored = Scored(
        ndcg=ndcg,
        interval=interval,
        without_results=tuple(query_id for query_id in qrels if query_id not in run),
        not_in_qrels=tuple(query_id for query_id in run if query_id not in qrels),
    )
    if options.out is not None:
        write_atomic(options.out / "ndcg_per_query.csv", per_query_csv(ndcg, scored.without_results))
        row = partial(
            Record,
            model=options.run.name,
            model_revision=sha256_file(options.run),
            dataset=options.qrels.name,
            split="all",
        )
        write_records(options.out / "records.jsonl", ndcg_records(ndcg, interval, row, options.seed))
        write_run(
            options.out,
            "miner_diag.retrieval",
            options,
            clock,
            qrels_sha256=sha256_file(options.qrels),
            without_results=scored.without_results,
            not_in_qrels=scored.not_in_qrels,
        )
    return scored


def ndcg_records(ndcg: Ndcg, interval: Interval | None, row: Callable[..., Record], seed: int) -> list[Record]:
    """Return the means with what bounds them, then a row per query.

    Parameters
    ----------
    ndcg : Ndcg
        Of every query.
    interval : Interval or None
        Of the mean.
    row : callable
        Makes a record of the fields that change from row to row.
    seed : int
        Of the bootstrap.
    """
    name = f"ndcg_at_{ndcg.k}"
    ends: dict[str, Any] = {}
    if interval is not None:
        over = "queries" if interval.n_clusters is None else "documents"
        ends = {
            "low": interval.low,
            "high": interval.high,
            "confidence": interval.confidence,
            "method": f"bootstrap over {over}",
            "n_clusters": interval.n_clusters,
        }
    worst, best = ndcg.bounds
    n = len(ndcg.values)
    mean = row(measure=name, value=ndcg.mean, n=n, seed=seed, **ends)
    bounds = [(f"{name}_worst", worst), (f"{name}_best", best), ("tie_rate", ndcg.tie_rate)]
    means = [mean, *(row(measure=measure, value=value, n=n) for measure, value in bounds)]
    return means + [
        row(measure=name, value=float(value), query_id=query_id)
        for query_id, value in zip(ndcg.query_ids, ndcg.values, strict=True)
    ]


def per_query_csv(ndcg: Ndcg, without_results: Collection[str] = ()) -> str:
    """Return CSV text, one row per query."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    name = f"ndcg_at_{ndcg.k}"
    rows.writerow(["query_id", name, f"{name}_worst", f"{name}_best", "order_matters", "has_results"])
    missing = set(without_results)
    for query_id, value, worst, best, order in zip(
        ndcg.query_ids, ndcg.values, ndcg.worst, ndcg.best, ndcg.order_matters, strict=True
    ):
        rows.writerow([query_id, *(f"{x:.6f}" for x in (value, worst, best)), bool(order), query_id not in missing])
    return text.getvalue()
