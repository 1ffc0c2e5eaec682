"""Where the defaults come from: one option after the other, each judged on the validation split alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.probes.train import Fitted, ProbeTrainOptions, fit_probes

Judges = Literal["base", "normalized_projection", "both"]

PLAN: tuple[tuple[str, Judges, tuple[Any, ...]], ...] = (
    ("temperature", "both", (0.1, 0.05, 0.2, 0.4)),
    ("ridge", "normalized_projection", (0.01, 0.001, 0.003, 0.03, 0.1)),
    ("start", "normalized_projection", ("least_squares", "identity", "orthogonal")),
    ("learning_rate", "normalized_projection", (3e-4, 1e-4, 1e-3)),
    ("gate_learning_rate", "base", (3e-2, 1e-2, 1e-1)),
    ("batch_size", "both", (256, 512)),
    ("to_final", "both", (0.3, 0.0, 1.0)),
    ("gate_l1", "base", (0.1, 0.0, 0.3)),
    ("rank", "normalized_projection", (None, 128)),
    ("sides", "both", ("shared", "per-side")),
)
"""Option, which kind it concerns, and values, the default first; options are settled in this order."""

NOISE = 0.001
"""Another value takes a default's place if it is better by more than this in mean nDCG@5."""

MORE_SEEDS = 2
"""The settled options are fitted again with so many other seeds; their spread must stay below `NOISE`."""


@dataclass(frozen=True)
class Trial:
    """One fit of the sweep."""

    option: str
    """What was varied."""
    value: Any
    """Its value; all other options stood as settled so far."""
    judged_by: Judges
    """The kind whose mean validation nDCG@5 over layers decides; "both" takes the mean of both kinds."""
    score: float
    """That number."""
    ndcg: np.ndarray
    """[2, L] validation nDCG@5 of every probe."""
    epochs: int
    """How many the fit took."""
    seconds: float
    """How long."""
    settled: bool
    """True for the value that was kept."""


def sweep(
    train: RetrievalData,
    validation: RetrievalData,
    options: ProbeTrainOptions | None = None,
    *,
    shared_layers: bool = True,
    device: Any = "cpu",
    fit: Callable[..., Fitted] = fit_probes,
) -> Iterator[list[Trial]]:
    """Settle the options of `PLAN` one after the other; yield the trials of each.

    The value that stands first in the plan is kept unless another one is better by more than `NOISE`. A value that
    needs another option (a rank beyond the width, shared probes of two towers) is left out by `values_for`. The last
    trials are those of `MORE_SEEDS`, which settle nothing.
    """
    settled = options or ProbeTrainOptions()
    known: dict[ProbeTrainOptions, tuple[Fitted, float]] = {}

    def trial(option: str, judged_by: Judges, value: Any) -> Trial:
        asked = replace(settled, **{option: value})
        if asked not in known:
            start = time.perf_counter()
            fitted = fit(train, validation, asked, shared_layers=shared_layers, device=device)
            known[asked] = fitted, time.perf_counter() - start
        fitted, seconds = known[asked]
        means = fitted.ndcg.mean(axis=2)
        score = {"base": means[0].mean(), "normalized_projection": means[1].mean(), "both": means.mean()}[judged_by]
        return Trial(option, value, judged_by, float(score), means, len(fitted.loss), round(seconds, 1), False)

    for option, judged_by, values in PLAN:
        trials = [trial(option, judged_by, value) for value in values_for(option, values, train.width, shared_layers)]
        best = int(np.argmax([one.score for one in trials]))
        if trials[best].score <= trials[0].score + NOISE:
            best = 0
        trials[best] = replace(trials[best], settled=True)
        settled = replace(settled, **{option: trials[best].value})
        yield trials
    seeds = [trial("seed", "both", settled.seed + more) for more in range(1 + MORE_SEEDS)]
    yield [replace(seeds[0], settled=True), *seeds[1:]]


def values_for(option: str, values: tuple[Any, ...], width: int, shared_layers: bool) -> list[Any]:
    """Return the values that this backbone allows."""
    if option == "rank":
        return [value for value in values if value is None or value < width]
    if option == "sides" and not shared_layers:
        return ["per-side"]
    return list(values)


def sweep_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return one row per fit of the sweep."""
    rows = []
    for trial in trials:
        row: dict[str, Any] = {"option": trial.option, "value": str(trial.value), "judged_by": trial.judged_by}
        row |= {"score": round(trial.score, 5), "settled": trial.settled}
        row |= {"base_mean": trial.ndcg[0].mean(), "projection_mean": trial.ndcg[1].mean()}
        row |= {"base_final": trial.ndcg[0, -1], "projection_final": trial.ndcg[1, -1]}
        rows.append(row | {"epochs": trial.epochs, "seconds": trial.seconds})
    return pd.DataFrame(rows).round(5)
