"""A run scored against qrels, as rows, as a table for each query, and as lines for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from miner_diag.records import Record
from miner_diag.retrieval.ndcg import Ndcg, ndcg_of_run
from miner_diag.stats import Interval, bootstrap_mean


@dataclass(frozen=True, eq=False)
class Scored:
    """A run with its nDCG."""

    ndcg: Ndcg
    """NDCG of every query, with the bounds that ties leave."""
    interval: Interval | None
    """Interval of the mean; None for a single query, which has no spread."""
    without_results: tuple[str, ...]
    """Queries of the qrels that the run does not hold; they count 0."""
    not_in_qrels: tuple[str, ...]
    """Queries of the run that the qrels do not hold; they are left out."""
    rank_own: tuple[str, ...]
    """Scored queries for which the run ranks the page of their own id."""
    ignore_self: bool
    """Whether these pages are left out."""


def score_run(
    qrels: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Mapping[str, float]],
    *,
    k: int = 5,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
    ignore_self: bool = False,
) -> Scored:
    """Score a run against qrels with a bootstrap interval over queries; errors as in `ndcg_of_run`.

    Parameters
    ----------
    qrels : {query id: {page id: grade}}
        Every query in it is scored.
    run : {query id: {page id: score}}
        What is scored.
    k : int
        Number of ranks that count.
    confidence : float
        Nominal coverage of the interval.
    resamples : int
        Number of bootstrap samples.
    seed : int
        Seed of the bootstrap.
    ignore_self : bool
        As in `ndcg_of_run`.
    """
    ndcg = ndcg_of_run(qrels, run, k, ignore_self=ignore_self)
    interval = None
    if len(ndcg.values) > 1:
        rng = np.random.default_rng(seed)
        interval = bootstrap_mean(ndcg.values, rng, confidence=confidence, n_resamples=resamples)
    return Scored(
        ndcg=ndcg,
        interval=interval,
        without_results=tuple(query_id for query_id in qrels if query_id not in run),
        not_in_qrels=tuple(query_id for query_id in run if query_id not in qrels),
        rank_own=tuple(query_id for query_id in qrels if query_id in run.get(query_id, {})),
        ignore_self=ignore_self,
    )


def summary_lines(scored: Scored) -> list[str]:
    """Return the table that the terminal shows, line by line."""
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
    if scored.rank_own or scored.ignore_self:
        done = (
            "left out" if scored.ignore_self else "which counts; --ignore-self leaves it out if it is the query itself"
        )
        rows.append(("own pages", f"{len(scored.rank_own)}", f"queries rank the page of their own id, {done}"))
    return [f"{name:<9} {value:>8}   {note}" for name, value, note in rows]


def ndcg_records(ndcg: Ndcg, interval: Interval | None, row: Callable[..., Record], seed: int) -> list[Record]:
    """Return the means with what bounds them, then a row per query.

    Parameters
    ----------
    ndcg : Ndcg
        NDCG of every query.
    interval : Interval or None
        Interval of the mean.
    row : callable
        Makes a record of the fields that change from row to row.
    seed : int
        Seed of the bootstrap.
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
            "effective_clusters": interval.effective_clusters,
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


def per_query_frame(ndcg: Ndcg, without_results: Collection[str] = ()) -> pd.DataFrame:
    """Return one row per query: nDCG and its bounds to six digits, and whether the run holds the query."""
    name = f"ndcg_at_{ndcg.k}"
    numbers = {name: ndcg.values, f"{name}_worst": ndcg.worst, f"{name}_best": ndcg.best}
    missing = set(without_results)
    return pd.DataFrame(
        {
            "query_id": ndcg.query_ids,
            **{column: [f"{value:.6f}" for value in values] for column, values in numbers.items()},
            "order_matters": ndcg.order_matters,
            "has_results": [query_id not in missing for query_id in ndcg.query_ids],
        }
    )
