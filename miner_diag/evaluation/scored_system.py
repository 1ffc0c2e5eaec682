"""What one system reached on one set of queries, and who it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from miner_diag.corpus import Corpus
from miner_diag.evaluation.compare import MAIN_METRIC, Comparison, Role, SystemValues, compare_systems
from miner_diag.retrieval.metric_values import MetricValues
from miner_diag.retrieval.ranking import MeasuredRanking
from miner_diag.retrieval.search import Hits
from miner_diag.stats import StatisticsOptions

K = 5
"""Ranks that count in nDCG@5, the metric by which systems are compared unless a data set is published with another."""
BACKBONE = "backbone"
"""The name of the system that is a retriever's own final embedding."""


def main_metric(corpus: Corpus) -> str:
    """Return the metric by which systems are compared on a data set: that of its benchmark, if it belongs to one."""
    return MAIN_METRIC if corpus.benchmark is None else corpus.benchmark.metric


class Ties(NamedTuple):
    """What the order of tied pages could make of a metric, in the mean over queries and seeds."""

    worst: float
    """The value if every tie were broken against the query."""
    best: float
    """The value if every tie were broken in its favour."""
    rate: float
    """The share of queries whose value depends on it."""

    @classmethod
    def of(cls, seeds: Sequence[MetricValues]) -> Ties:
        """Return the means over trainings with several seeds."""
        worst, best = np.mean([values.bounds for values in seeds], axis=0)
        return cls(float(worst), float(best), float(np.mean([values.tie_rate for values in seeds])))


@dataclass(frozen=True, eq=False)
class Measures:
    """What a system's rankings reached."""

    values: Mapping[str, np.ndarray]
    """Metric -> its value [S, Q] of each query for each seed; S is 1 for what is not trained."""
    ties: Mapping[str, Ties] = field(default_factory=dict)
    """Metric -> what the order of tied pages could make of it; empty where that is not known."""
    hits: Hits | None = None
    """The first pages of each query, of the first seed; None where there is no ranking."""

    @classmethod
    def of(cls, seeds: Sequence[MeasuredRanking]) -> Measures:
        """Return what the rankings of a system, one for each seed, reached."""
        metrics = {name: [ranking.metrics[name] for ranking in seeds] for name in seeds[0].metrics}
        return cls(
            {name: np.stack([each.values for each in values]) for name, values in metrics.items()},
            {name: Ties.of(values) for name, values in metrics.items()},
            seeds[0].hits,
        )


@dataclass(frozen=True, eq=False)
class ScoredSystem:
    """A system with its metrics of every query."""

    model: str
    """The retriever that it belongs to: "page-text"."""
    model_revision: str
    """What pins the retriever's weights."""
    name: str
    """What of the retriever it is: "backbone", "final_layer_head", "fusion", "late"."""
    role: Role
    """What part it plays."""
    what: str
    """The system in words."""
    measures: Measures
    """What its rankings reached."""
    seeds: tuple[int | None, ...]
    """[S] seeds of the trainings; None for what is not trained."""
    width: int | None
    """D, the width of a vector; None where there is none."""
    bytes_per_page: float | None
    """The mean size of what is stored of a page; None where that is not known."""
    backbone: str | None = None
    """The key of the system that it is compared with as its backbone."""
    head: str | None = None
    """The key of the system that it is compared with as the head on the final layer."""
    n_parameters: int | None = None
    """The number of trained parameters; None where that is not known."""
    seconds: float | None = None
    """The mean time of one training; None where that is not known."""
    layers: tuple[int, ...] = ()
    """[K] the hidden states that it reads; empty where that is not known."""

    @property
    def key(self) -> str:
        """Its name among the systems of one evaluation."""
        return system_key(self.model, self.name)

    @property
    def ndcg(self) -> np.ndarray:
        """[S, Q] nDCG@5 of each query for each seed."""
        return self.measures.values[MAIN_METRIC]


def record_fields(system: ScoredSystem, corpus: Corpus) -> dict[str, Any]:
    """Return the fields that every record of a system on some queries and pages has."""
    return {
        "model": system.model,
        "model_revision": system.model_revision,
        "dataset": corpus.name,
        "split": corpus.part,
        "system": system.name,
        "d": system.width,
    }


def system_key(model: str, name: str) -> str:
    """Return how an evaluation calls a system: "page-text: fusion"."""
    return f"{model}: {name}"


def named(name: str, label: str) -> str:
    """Return what a system is called where runs of one retriever have to be told apart."""
    return f"{name} ({label})" if label else name


def compare_scored(
    systems: Sequence[ScoredSystem],
    documents: Sequence[str] | None,
    statistics: StatisticsOptions,
    metric: str = MAIN_METRIC,
) -> Comparison:
    """Compare scored systems; `documents` [Q] are those of the queries if intervals are over documents."""
    values = [SystemValues(s.key, s.role, s.measures.values[metric], s.backbone, s.head) for s in systems]
    return compare_systems(values, clusters=documents, statistics=statistics, metric=metric)
