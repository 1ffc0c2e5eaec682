"""Compare systems query by query: one bootstrap, one paired test, and families of p values that are stated.

Every interval and every test starts from a generator of its own, made from the seed. So what a table says of a system
depends on that system, on what it is compared with and on the queries, never on the other rows or on their order; only
the adjusted p value depends on the family, which is printed with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from miner_diag.stats import (
    Interval,
    StatisticsOptions,
    bootstrap_crossed,
    holm,
    paired_permutation,
    smallest_detectable,
)

ALPHA = 0.05
"""The significance level of a verdict, after Holm's adjustment over the family."""

POWER = 0.8
"""The power of the smallest detectable difference."""

MAIN_METRIC = "ndcg_at_5"
"""The metric by which systems are compared unless a caller says otherwise."""

Role = Literal["backbone", "head", "fusion", "baseline", "control", "variant", "late", "run", "lexical", "bound"]
"""What part a system plays. A run is the run file of a system of which nothing else is known. A bound uses the answers
and is compared with nothing."""

Family = Literal["headline", "context", "ablation"]
"""Which comparisons share one adjustment of p values."""

FAMILIES: dict[Family, str] = {
    "headline": "the fusion with its backbone and with its head, for every fusion",
    "context": "the chosen head, late interaction, BM25, run files and further retrievers with the backbone",
    "ablation": "every other system with backbone and head",
}
"""Family -> the comparisons that belong to it."""

Verdict = Literal["better", "worse", "not distinguishable", ""]


class EvaluationError(ValueError):
    """Systems or data that cannot be evaluated as asked; the message says what was expected and what to do."""


@dataclass(frozen=True, eq=False)
class SystemValues:
    """What one system reached, and what it is compared with."""

    name: str
    """The system's name, which no other system of the call has."""
    role: Role
    """What part it plays."""
    values: np.ndarray
    """[S, Q] the metric of each query for each seed; a system that is not trained has S = 1."""
    backbone: str | None = None
    """The name of the backbone that it is compared with; None compares with none."""
    head: str | None = None
    """The name of the head that it is compared with; None compares with none."""


@dataclass(frozen=True)
class Difference:
    """A system less another one."""

    other: str
    """The name of the other system."""
    value: float
    """The mean difference over seeds and queries."""
    interval: Interval | None
    """The interval of that mean; None for a single query, which has no spread."""
    p_value: float | None
    """The two-sided p value of the paired permutation test, not adjusted; None for a single query."""
    p_holm: float | None
    """The same after Holm's adjustment over the family."""
    family: Family
    """The comparisons that the adjustment is over."""
    detectable: float | None
    """The smallest true difference that one such test, of so many queries or documents that differ so much, finds with
    the power `POWER` at the level `ALPHA`; None where no size can be told."""

    @property
    def verdict(self) -> Verdict:
        """What the adjusted p value says at the level `ALPHA`; empty where nothing was tested."""
        return verdict(self.value, self.p_holm)


@dataclass(frozen=True)
class SystemComparison:
    """One system on one set of queries."""

    name: str
    """The system's name."""
    role: Role
    """What part it plays."""
    value: float
    """The mean of the metric over seeds and queries."""
    interval: Interval | None
    """The interval of that mean; None for a single query."""
    to_backbone: Difference | None
    """The system less its backbone, paired by query; None where there is none."""
    to_head: Difference | None
    """The system less the head on the final layer, paired by query; None where there is none."""

    @property
    def verdict(self) -> Verdict:
        """The comparison with the backbone in a word."""
        return "" if self.to_backbone is None else self.to_backbone.verdict

    @property
    def verdict_to_head(self) -> Verdict:
        """The comparison with the head in a word."""
        return "" if self.to_head is None else self.to_head.verdict


@dataclass(frozen=True, eq=False)
class Comparison:
    """All systems of one call, and what their intervals and p values rest on."""

    systems: tuple[SystemComparison, ...]
    """One for each system, in the order given."""
    families: dict[Family, int]
    """Family -> the number of comparisons that its p values are adjusted for."""
    n_queries: int
    """Q."""
    n_documents: int | None
    """The number of documents that intervals and tests are over; None where they are over single queries."""
    effective_documents: float | None
    """Kish's effective number of these documents: so many of equal size say as much."""
    confidence: float
    """The nominal coverage of the intervals."""
    metric: str = MAIN_METRIC
    """What is compared, as files name it."""

    def __getitem__(self, name: str) -> SystemComparison:
        """Return the comparison of a system by its name."""
        return next(system for system in self.systems if system.name == name)

    @property
    def over(self) -> str:
        """What intervals and tests are over, in words."""
        if self.n_documents is None:
            return f"{self.n_queries} single queries"
        if self.effective_documents is None:
            return f"{self.n_documents} documents"
        return f"{self.n_documents} documents (effective number {self.effective_documents:.1f})"

    def caption(self) -> str:
        """Return what every table and figure of these numbers says below it."""
        families = "; ".join(
            f"{family} ({FAMILIES[family]}): {count} comparison{'s' if count != 1 else ''}"
            for family, count in self.families.items()
        )
        intervals = f"{self.confidence:.0%} intervals and paired permutation tests are over {self.over} and over seeds."
        if not families:
            return f"{intervals} Nothing is compared, so there is no p value."
        return (
            f"{intervals} p_value is the p value of one test; p_holm is adjusted by Holm within a family. Families: "
            f"{families}."
        )


def verdict(difference: float | None, p_holm: float | None) -> Verdict:
    """Return "better", "worse" or "not distinguishable"; "" where nothing was tested.

    Examples
    --------
    >>> verdict(0.02, 0.01), verdict(-0.02, 0.01), verdict(0.02, 0.2)
    ('better', 'worse', 'not distinguishable')
    """
    if difference is None or p_holm is None:
        return ""
    if p_holm >= ALPHA:
        return "not distinguishable"
    return "better" if difference > 0 else "worse"


def compare_systems(
    systems: Sequence[SystemValues],
    *,
    clusters: Sequence[str] | None,
    statistics: StatisticsOptions,
    metric: str = MAIN_METRIC,
) -> Comparison:
    """Compare every system with its backbone and with its head, query by query.

    Parameters
    ----------
    systems : sequence of SystemValues
        Values [S, Q] over the same Q queries in the same order.
    clusters : sequence of str [Q] or None
        The document of each query, if intervals and tests are over documents; None takes single queries.
    statistics : StatisticsOptions
        The confidence and the seed; what intervals are over stands in `clusters`.
    metric : str
        What the values are.

    Returns
    -------
    Comparison
        With an interval for each mean and each difference, and for each difference a p value, raw and adjusted, and how
        large a difference this number of queries or documents can show.

    Raises
    ------
    EvaluationError
        If two systems have one name, a reference is not among the systems, or values do not fit each other.

    Notes
    -----
    Intervals are percentile intervals of the pigeonhole bootstrap over documents (or queries) and seeds
    (:func:`~miner_diag.stats.bootstrap_crossed`). Tests are on the means over seeds, so they speak of the training as a
    whole and not of a lucky seed. The smallest detectable difference (:func:`~miner_diag.stats.smallest_detectable`,
    two-sided, one comparison, no adjustment) is of the same means.
    """
    by_name = _by_name(systems, clusters)
    chosen_heads = {system.head for system in systems if system.head is not None}
    n_queries = next(iter(by_name.values())).values.shape[1]

    def interval(table: np.ndarray) -> Interval | None:
        if n_queries < 2:
            return None
        rng = np.random.default_rng(statistics.seed)
        return bootstrap_crossed(table, rng, clusters=clusters, confidence=statistics.confidence)

    def p_value(values: np.ndarray, other: np.ndarray) -> float | None:
        if n_queries < 2:
            return None
        rng = np.random.default_rng(statistics.seed)
        return paired_permutation(values.mean(axis=0), other.mean(axis=0), rng, clusters=clusters)

    def detectable(values: np.ndarray, other: np.ndarray) -> float | None:
        if n_queries < 2:
            return None
        paired = values.mean(axis=0) - other.mean(axis=0)
        return smallest_detectable(paired, clusters=clusters, alpha=ALPHA, power=POWER)

    raw: dict[tuple[str, str], tuple[Family, float | None]] = {}
    for system in systems:
        for against, other in (("backbone", system.backbone), ("head", system.head)):
            if other is not None:
                family = _family(system, against, chosen_heads)
                raw[system.name, other] = family, p_value(system.values, by_name[other].values)
    adjusted, families = _adjusted(raw)

    def difference(system: SystemValues, other: str | None) -> Difference | None:
        if other is None:
            return None
        reference = by_name[other].values
        pairs = seed_pairs(system.values, reference)
        family, p = raw[system.name, other]
        p_holm = adjusted.get((system.name, other))
        size = detectable(system.values, reference)
        return Difference(other, float(pairs.mean()), interval(pairs), p, p_holm, family, size)

    compared = tuple(
        SystemComparison(
            system.name,
            system.role,
            float(system.values.mean()),
            interval(system.values),
            difference(system, system.backbone),
            difference(system, system.head),
        )
        for system in systems
    )
    first = compared[0].interval
    n_documents = None if clusters is None else len(set(clusters))
    effective = None if first is None else first.effective_clusters
    return Comparison(compared, families, n_queries, n_documents, effective, statistics.confidence, metric)


def seed_pairs(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return differences [lcm(S, S'), Q] of pairs of seeds, each seed of a system as often as its others.

    A system without seeds (S = 1) stands against each seed of the other.

    Examples
    --------
    >>> seed_pairs(np.array([[3.0], [5.0]]), np.array([[1.0]])).ravel()
    array([2., 4.])
    """
    n_pairs = math.lcm(len(values), len(other))
    return np.stack([values[pair % len(values)] - other[pair % len(other)] for pair in range(n_pairs)])


def _family(system: SystemValues, against: str, chosen_heads: set[str]) -> Family:
    if system.role == "fusion":
        return "headline"
    outside = system.role in ("late", "run", "lexical", "backbone") or system.name in chosen_heads
    return "context" if against == "backbone" and outside else "ablation"


def _adjusted(
    raw: dict[tuple[str, str], tuple[Family, float | None]],
) -> tuple[dict[tuple[str, str], float], dict[Family, int]]:
    """Return Holm's p value of each comparison, and the size of each family that has one."""
    adjusted: dict[tuple[str, str], float] = {}
    families: dict[Family, int] = {}
    for family in FAMILIES:
        tested = {pair: p for pair, (of_pair, p) in raw.items() if of_pair == family and p is not None}
        if tested:
            families[family] = len(tested)
            adjusted.update(zip(tested, map(float, holm(list(tested.values()))), strict=True))
    return adjusted, families


def _by_name(systems: Sequence[SystemValues], clusters: Sequence[str] | None) -> dict[str, SystemValues]:
    """Return the systems by name after checking that they fit each other."""
    if not systems:
        raise EvaluationError("systems must hold at least one system; got none")
    by_name: dict[str, SystemValues] = {}
    n_queries = systems[0].values.shape[-1]
    for system in systems:
        if system.name in by_name:
            raise EvaluationError(f"systems must have names of their own; {system.name!r} stands twice")
        if system.values.ndim != 2 or not len(system.values) or system.values.shape[1] != n_queries:
            raise EvaluationError(
                f"values must be [seeds, queries] with the same {n_queries} queries for every system; "
                f"{system.name} has {list(system.values.shape)}"
            )
        by_name[system.name] = system
    if clusters is not None and len(clusters) != n_queries:
        raise EvaluationError(
            f"clusters must name the document of each of the {n_queries} queries; got {len(clusters)}"
        )
    for system in systems:
        for kind, other in (("backbone", system.backbone), ("head", system.head)):
            if other is not None and (other not in by_name or other == system.name):
                raise EvaluationError(
                    f"{system.name} is to be compared with the {kind} {other!r}, which is not another one of the "
                    f"systems: {', '.join(by_name)}"
                )
    return by_name
