"""First the base, then the gain: our run of an unmodified model beside the public run of it, where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from miner_diag.backbones.known import known_model
from miner_diag.corpus import Corpus
from miner_diag.evaluation.published import LABEL, TOLERANCE, PublishedRun, published_run, read_published
from miner_diag.evaluation.scored_system import ScoredSystem
from miner_diag.retrieval.metrics import metric_label

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
"""What a table says of a base run that lies within, or beyond, `TOLERANCE` points of the public run."""

_KINDS = {"backbone": "single", "late": "multi"}
_METRICS = ("ndcg_at_5", "ndcg_at_10")


@dataclass(frozen=True)
class BaseRun:
    """Our run of an unmodified model and the public one, on the metric of the benchmark."""

    model: str
    """Its hub id."""
    value: float
    """Our mean over the languages that both have, in points (nDCG times 100)."""
    published: PublishedRun
    """The public run."""
    published_value: float
    """Its mean over the same languages, in points."""
    metric: str
    """What was measured."""

    @property
    def distance(self) -> float:
        """Ours less the public one, in points."""
        return self.value - self.published_value

    @property
    def verdict(self) -> str:
        """`REPRODUCED` or `NOT_REPRODUCED`."""
        return REPRODUCED if abs(self.distance) <= TOLERANCE else NOT_REPRODUCED

    def sentence(self, data: str) -> str:
        """Return what a person should know before any gain on this base is told."""
        told = (
            f"The public run of {self.model} on {data} ({LABEL}; {self.published.protocol}) has "
            f"{metric_label(self.metric)} {self.published_value:.1f}, ours {self.value:.1f} "
            f"({self.distance:+.1f} points): the base is {self.verdict}"
        )
        if self.verdict == REPRODUCED:
            return f"{told}."
        return (
            f"{told} (more than {TOLERANCE} points off), so a gain on it is not yet one on the published model. "
            "--protocol mteb runs a known model as the public leaderboard does."
        )


def with_published(
    scores: pd.DataFrame, systems: Sequence[ScoredSystem], corpus: Corpus
) -> tuple[pd.DataFrame, list[BaseRun]]:
    """Return ``scores.csv`` with the public runs beside our own, and what they say of our bases.

    Parameters
    ----------
    scores : DataFrame
        ``scores.csv``.
    systems : sequence of ScoredSystem
        The systems that it is of. A retriever that is a known model, or has the name of a hub id, is held against the
        public run of that model.
    corpus : Corpus
        What they were scored on.

    Returns
    -------
    scores : DataFrame
        With the columns published and distance, in points; empty where there is no public run, and left out where the
        data are no set of a public benchmark.
    bases : list of BaseRun
        One for each retriever with a public run.
    """
    if corpus.benchmark is None:
        return scores, []
    public, metric = read_published(), corpus.benchmark.metric
    scores = scores.assign(published=None, distance=None).astype({"published": float, "distance": float})
    bases = []
    for system in systems:
        if system.role not in _KINDS:
            continue
        of_system = scores["system"].eq(system.key)
        known = known_model(system.model)
        hub_id = system.model if known is None else known.hub_id
        for name in _METRICS:
            run = published_run(public, hub_id, corpus.benchmark.task, name, _KINDS[system.role])
            rows = scores.index[of_system & scores["metric"].eq(name)]
            if run is None or not len(rows):
                continue
            stated = scores.loc[rows, "language"].map(lambda language, run=run: _stated(run, language))
            scores.loc[rows, "published"] = stated
            scores.loc[rows, "distance"] = 100 * scores.loc[rows, "value"] - stated
            both = rows[stated.notna()]
            if name == metric and len(both):
                ours, theirs = 100 * scores.loc[both, "value"].mean(), scores.loc[both, "published"].mean()
                bases.append(BaseRun(system.model, float(ours), run, float(theirs), name))
    return scores, bases


def mark_bases(table: pd.DataFrame, bases: Sequence[BaseRun]) -> pd.DataFrame:
    """Return a table of compared systems with the column base_run: what is known of the base that a gain stands on."""
    verdicts = {base.model: base.verdict for base in bases}
    held_against = table["backbone"].where(table["backbone"].notna(), table["model"])
    return table.assign(base_run=held_against.map(verdicts)) if bases else table


def _stated(run: PublishedRun, language: str) -> float | None:
    """Return the public score of a language; a data set in one language has one score, whatever it is called."""
    if len(run.by_language) == 1:
        return next(iter(run.by_language.values()))
    return run.by_language.get(language)
