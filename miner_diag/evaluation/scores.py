"""Every metric of every system with its interval: ``scores.csv``, and the records that go with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from miner_diag.corpus import Corpus
from miner_diag.evaluation.scored_system import ScoredSystem, record_fields
from miner_diag.records import Record
from miner_diag.stats import Interval, StatisticsOptions, bootstrap_crossed_tables

MOST_ROWS = 100_000
"""So many values of single queries are written as records beside those of the main metric, some 30 MB."""


@dataclass(frozen=True)
class Score:
    """The mean of one metric of one system over the queries of one language."""

    system: ScoredSystem
    """The system."""
    language: str
    """The language of the queries; empty where the data name none."""
    metric: str
    """What was measured, as files name it."""
    value: float
    """The mean over seeds and queries."""
    interval: Interval | None
    """The interval of that mean; None where it is over a single query or document."""
    n_queries: int
    """The number of these queries."""


def score_systems(
    systems: Sequence[ScoredSystem],
    corpus: Corpus,
    documents: Sequence[str] | None,
    statistics: StatisticsOptions,
) -> list[Score]:
    """Return the mean of each metric with its interval, for each system and each language of the queries.

    Parameters
    ----------
    systems : sequence of ScoredSystem
        The systems.
    corpus : Corpus
        The Q queries and the pages that they were scored on.
    documents : sequence [Q] of str, optional
        The documents of the queries, if intervals are over documents.
    statistics : StatisticsOptions
        The confidence and the seed. Intervals of the main metric are those of the comparison.
    """
    languages = np.array([query.language for query in corpus.queries])
    labels = None if documents is None else np.asarray(documents)
    found = []
    for system in systems:
        for language in dict.fromkeys(languages.tolist()):
            rows = languages == language
            tables = {metric: values[:, rows] for metric, values in system.measures.values.items()}
            intervals = _intervals(list(tables.values()), None if labels is None else labels[rows], statistics)
            found += [
                Score(system, language, metric, float(values.mean()), interval, int(rows.sum()))
                for (metric, values), interval in zip(tables.items(), intervals, strict=True)
            ]
    return found


def _intervals(
    tables: Sequence[np.ndarray], clusters: np.ndarray | None, statistics: StatisticsOptions
) -> Sequence[Interval | None]:
    """Return an interval for each table [S, q], all from the same resamples; None where a single unit has no spread."""
    n_units = tables[0].shape[1] if clusters is None else len(np.unique(clusters))
    if n_units < 2:
        return [None] * len(tables)
    rng = np.random.default_rng(statistics.seed)
    return bootstrap_crossed_tables(tables, rng, clusters=clusters, confidence=statistics.confidence)


def scores_table(scores: Sequence[Score], corpus: Corpus) -> pd.DataFrame:
    """Return ``scores.csv``: a row for each system, language and metric."""
    return pd.DataFrame(
        [
            {
                "system": score.system.key,
                "data": corpus.name,
                "language": score.language,
                "n_queries": score.n_queries,
                "n_pages": len(corpus.pages),
                "metric": score.metric,
                "value": score.value,
                **({"low": None, "high": None} if score.interval is None else score.interval.ends()),
            }
            for score in scores
        ]
    )


def rows_per_query(systems: Sequence[ScoredSystem], metric: str) -> int:
    """Return how many values of single queries there are beside those of the main metric."""
    return sum(values.size for system in systems for name, values in system.measures.values.items() if name != metric)


def score_records(
    scores: Sequence[Score], systems: Sequence[ScoredSystem], corpus: Corpus, *, main: str, seed: int, per_query: bool
) -> Iterator[Record]:
    """Yield the means of all metrics but the main one, what ties could make of each, and values of single queries.

    The comparison has the records of the main metric. Where queries are in several languages, their means stand in
    ``scores.csv`` alone.

    Parameters
    ----------
    scores : sequence of Score
        What `score_systems` returned.
    systems, corpus
        What it was given.
    main : str
        The main metric.
    seed : int
        The seed of the bootstrap.
    per_query : bool
        Whether values of single queries are among them.
    """
    for score in scores:
        if score.metric != main and score.n_queries == len(corpus.queries):
            common = record_fields(score.system, corpus)
            if score.interval is None:
                yield Record(**common, measure=score.metric, value=score.value, n=score.n_queries)
            else:
                over = "queries" if score.interval.n_clusters is None else "documents"
                number = score.interval.record_fields(f"bootstrap over {over} and seeds")
                yield Record(**common, measure=score.metric, seed=seed, **number)
    queries = [query.query_id for query in corpus.queries]
    for system in systems:
        common = record_fields(system, corpus)
        for metric, ties in system.measures.ties.items():
            for end, value in (("worst", ties.worst), ("best", ties.best), ("tie_rate", ties.rate)):
                yield Record(**common, measure=f"{metric}_{end}", value=value, n=len(queries))
        for metric, of_seeds in system.measures.values.items() if per_query else ():
            if metric == main:
                continue
            for training_seed, values in zip(system.seeds, of_seeds, strict=True):
                for query_id, value in zip(queries, values, strict=True):
                    yield Record(**common, measure=metric, value=float(value), query_id=query_id, seed=training_seed)
