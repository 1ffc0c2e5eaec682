"""What one system reached on one set of queries, and who it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miner_diag.evaluation.compare import Comparison, Role, SystemValues, compare_systems
from miner_diag.stats import StatisticsOptions

K = 5
"""Ranks that count in nDCG@5, the measure of this stage."""
BACKBONE = "backbone"
"""The name of the system that is a retriever's own final embedding."""


@dataclass(frozen=True, eq=False)
class ScoredSystem:
    """A system with its nDCG@5 of every query."""

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
    ndcg: np.ndarray
    """[S, Q] nDCG@5 of each query for each seed; S is 1 for what is not trained."""
    seeds: tuple[int | None, ...]
    """[S] seeds of the trainings; None for what is not trained."""
    width: int
    """D, the width of a vector."""
    bytes_per_page: float
    """The mean size of what is stored of a page."""
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


def system_key(model: str, name: str) -> str:
    """Return how an evaluation calls a system: "page-text: fusion"."""
    return f"{model}: {name}"


def named(name: str, label: str) -> str:
    """Return what a system is called where runs of one retriever have to be told apart."""
    return f"{name} ({label})" if label else name


def compare_scored(
    systems: Sequence[ScoredSystem], documents: Sequence[str] | None, statistics: StatisticsOptions
) -> Comparison:
    """Compare scored systems; `documents` [Q] are those of the queries if intervals are over documents."""
    values = [SystemValues(s.key, s.role, s.ndcg, s.backbone, s.head) for s in systems]
    return compare_systems(values, clusters=documents, statistics=statistics)
