"""SystemComparison: the one place that reads the test split, and what a difference there is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from miner_diag.corpus import Corpus
from miner_diag.embeddings.job import Embedded
from miner_diag.probes.splits import Split, take_split
from miner_diag.stats import Interval, bootstrap_crossed, holm, paired_permutation

ALPHA = 0.05
"""Significance level of a verdict, after Holm's adjustment over the table."""


def read_test(embedded: Embedded, corpus: Corpus, reads: list[dict[str, Any]], *, memory_gb: float = 4.0) -> Split:
    """Return the test split, and note in `reads` that it was read: nothing may be fitted or chosen after this.

    Parameters
    ----------
    embedded : Embedded
        All splits.
    corpus : Corpus
        The same items with the splits to be used.
    reads : list
        An entry is appended; it goes into ``run.json``.
    memory_gb : float
        A side that is larger is read from disk row by row.
    """
    split = take_split(embedded, corpus, "test", memory_gb)
    reads.append({"at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "fold": corpus.fold, **split.facts()})
    return split


@dataclass(frozen=True)
class SystemComparison:
    """One system on one split."""

    name: str
    """Of the system."""
    ndcg: Interval
    """Mean nDCG@5 over seeds and queries."""
    to_backbone: Interval | None
    """Less the backbone's, paired by query; None for the backbone."""
    p_backbone: float | None
    """Of the paired permutation test, adjusted over the table."""
    to_head: Interval | None
    """Less that of the head on the final layer alone."""
    p_head: float | None
    """Of the same test against the head."""

    @property
    def verdict(self) -> str:
        """Against the backbone, in words."""
        return verdict(self.to_backbone, self.p_backbone)

    @property
    def verdict_to_head(self) -> str:
        """Against the head, in words."""
        return verdict(self.to_head, self.p_head)


def verdict(difference: Interval | None, p_holm: float | None) -> str:
    """Return "better", "worse" or "not distinguishable"; "" where nothing was compared."""
    if difference is None or p_holm is None:
        return ""
    if p_holm >= ALPHA:
        return "not distinguishable"
    return "better" if difference.value > 0 else "worse"


def judge_systems(
    values: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    head: str,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    bounds: Sequence[str] = (),
) -> list[SystemComparison]:
    """Compare all systems with the backbone and with the head.

    Parameters
    ----------
    values : dict of ndarray [S, Q]
        nDCG@5 of each query for each seed; a system that is not trained has S = 1. Holds "backbone".
    rng : Generator
        For bootstrap and permutations.
    head : str
        The system that a gain must go beyond.
    clusters : sequence [Q], optional
        Documents of the queries.
    confidence : float
        Of the intervals, which are over documents (or queries) and seeds.
    bounds : sequence of str
        Systems that use the answers; they are not compared.

    Notes
    -----
    Tests are on the means over seeds, so they speak of the training as a whole, not of a lucky seed.
    """

    def interval(table: np.ndarray) -> Interval:
        return bootstrap_crossed(table, rng, clusters=clusters, confidence=confidence)

    mean = {name: found.mean(axis=0) for name, found in values.items()}
    adjusted: dict[str, dict[str, float]] = {}
    for other in ("backbone", head):
        compared = [
            name for name in values if name not in (other, *bounds) and (other == "backbone" or name != "backbone")
        ]
        p = holm([paired_permutation(mean[name], mean[other], rng, clusters=clusters) for name in compared])
        adjusted[other] = dict(zip(compared, (float(value) for value in p), strict=True))

    def difference(name: str, other: str) -> Interval | None:
        if name not in adjusted[other]:
            return None
        mine, its = values[name], values[other]
        # pairs of seeds, as often one as the other; a system without seeds stands against each of the other's
        n_seeds = math.lcm(len(mine), len(its))
        pairs = [mine[seed % len(mine)] - its[seed % len(its)] for seed in range(n_seeds)]
        return interval(np.stack(pairs))

    return [
        SystemComparison(
            name,
            interval(found),
            difference(name, "backbone"),
            adjusted["backbone"].get(name),
            difference(name, head),
            adjusted[head].get(name),
        )
        for name, found in values.items()
    ]
