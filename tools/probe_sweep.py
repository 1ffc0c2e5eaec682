"""Where the defaults of probe training come from: one option after the other, each settled on the validation split.

``python -m tools.probe_sweep --data debian-docs-large --epochs 8 --patience 2`` writes ``sweep.csv`` with a row for
each fit; ``figures/03_probe_sweep.csv`` is such a table. Options are settled in the order of `PLAN`; all others stand
as settled so far. The test split is not read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import LoadOptions
from miner_diag.command import run_command
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions, open_corpus
from miner_diag.probes.retrieval_data import RetrievalData, Side
from miner_diag.probes.splits import Splits, fitting_splits
from miner_diag.probes.train import Fitted, ProbeTrainOptions, fit_probes
from miner_diag.runs import RunFolder

Decides = Literal["base", "normalized_projection", "both"]

PLAN: tuple[tuple[str, Decides, tuple[Any, ...]], ...] = (
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
"""The options in the order in which they are settled, the kind that decides, and the values, the default first."""

NOISE = 0.001
"""Another value takes a default's place if it is better by more than this in mean nDCG@5."""

MORE_SEEDS = 2
"""The settled options are fitted again with so many other seeds; their spread must stay below `NOISE`."""


@dataclass(frozen=True)
class SweepOptions:
    """Settle the options of probe training one after the other on the validation split, and write sweep.csv."""

    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=LoadOptions)
    """Which retriever."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where pooled layers are kept."""
    training: Annotated[ProbeTrainOptions, OmitArgPrefixes] = field(default_factory=ProbeTrainOptions)
    """What the sweep starts from."""
    seed: int = 0
    """The seed of the trainings."""
    out: Path = Path("runs/probe_sweep")
    """The folder that is written to; a dual encoder gets a folder below it for each side."""


@dataclass(frozen=True)
class Trial:
    """One fit of the sweep."""

    option: str
    """The option that was varied."""
    value: Any
    """Its value; all other options stood as settled so far."""
    decided_by: Decides
    """The kind whose mean validation nDCG@5 over layers decides; "both" takes the mean of both kinds."""
    score: float
    """The number that decides."""
    ndcg: np.ndarray
    """[2, L] validation nDCG@5 of every probe."""
    epochs: int
    """The number of epochs that the fit took."""
    seconds: float
    """The seconds that the fit took."""
    settled: bool
    """True for the value that was kept."""


def sweep(
    train: RetrievalData,
    validation: RetrievalData,
    options: ProbeTrainOptions | None = None,
    *,
    seed: int = 0,
    shared_layers: bool = True,
    device: Any = "cpu",
    fit: Callable[..., Fitted] = fit_probes,
) -> Iterator[list[Trial]]:
    """Settle the options of `PLAN` one after the other; yield the trials of each.

    The value that stands first in the plan is kept unless another one is better by more than `NOISE`. A value that
    the backbone does not allow (a rank beyond its width, two probes in a dual encoder) is left out by `values_for`. The
    last trials are those of `MORE_SEEDS`, which settle nothing.

    Parameters
    ----------
    train, validation : RetrievalData
        The two splits.
    options : ProbeTrainOptions, optional
        What the sweep starts from; the defaults if not given.
    seed : int
        Seed of the trainings.
    shared_layers, device
        As in :func:`~miner_diag.probes.train.fit_probes`.
    fit : callable
        Fits one set of probes.
    """
    settled = options or ProbeTrainOptions()
    known: dict[tuple[ProbeTrainOptions, int], tuple[Fitted, float]] = {}

    def trial(option: str, decided_by: Decides, value: Any) -> Trial:
        training, run_seed = settled, seed
        if option == "seed":
            run_seed = value
        elif option == "start":
            training = settled.with_start(value)
        else:
            training = replace(settled, **{option: value})
        if (training, run_seed) not in known:
            start = time.perf_counter()
            fitted = fit(train, validation, training, seed=run_seed, shared_layers=shared_layers, device=device)
            known[training, run_seed] = fitted, time.perf_counter() - start
        fitted, seconds = known[training, run_seed]
        means = fitted.ndcg.mean(axis=2)
        score = {"base": means[0].mean(), "normalized_projection": means[1].mean(), "both": means.mean()}[decided_by]
        return Trial(option, value, decided_by, float(score), means, len(fitted.loss), round(seconds, 1), False)

    for option, decided_by, values in PLAN:
        trials = [trial(option, decided_by, value) for value in values_for(option, values, train.width, shared_layers)]
        best = int(np.argmax([one.score for one in trials]))
        if trials[best].score <= trials[0].score + NOISE:
            best = 0
        trials[best] = replace(trials[best], settled=True)
        value = trials[best].value
        settled = settled.with_start(value) if option == "start" else replace(settled, **{option: value})
        yield trials
    seeds = [trial("seed", "both", seed + more) for more in range(1 + MORE_SEEDS)]
    yield [replace(seeds[0], settled=True), *seeds[1:]]


def values_for(option: str, values: tuple[Any, ...], width: int, shared_layers: bool) -> list[Any]:
    """Return the values that this backbone allows."""
    if option == "rank":
        return [value for value in values if value is None or value < width]
    if option == "sides" and not shared_layers:
        return ["shared"]
    return list(values)


def sweep_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return one row per fit of the sweep."""
    rows = []
    for trial in trials:
        # the column keeps the name that it has in figures/03_probe_sweep.csv
        row: dict[str, Any] = {"option": trial.option, "value": str(trial.value), "judged_by": trial.decided_by}
        row |= {"score": round(trial.score, 5), "settled": trial.settled}
        row |= {"base_mean": trial.ndcg[0].mean(), "projection_mean": trial.ndcg[1].mean()}
        row |= {"base_final": trial.ndcg[0, -1], "projection_final": trial.ndcg[1, -1]}
        rows.append(row | {"epochs": trial.epochs, "seconds": trial.seconds})
    return pd.DataFrame(rows).round(5)


def run(options: SweepOptions) -> None:
    """Run the sweep; each side of a dual encoder by itself, into a folder of its own."""
    folder = RunFolder(options.out, "tools.probe_sweep", options)
    embedded_corpus = open_corpus(options.load, options.data, options.store, folder)
    sides: tuple[Side | None, ...] = (None,) if embedded_corpus.backbone.shared_layers else ("query", "page")
    for side in sides:
        of_side = folder if side is None else RunFolder(options.out / side, folder.command, options)
        run_sweep(fitting_splits(embedded_corpus, memory_gb=options.store.memory_gb, side=side), options, of_side)


def run_sweep(splits: Splits, options: SweepOptions, folder: RunFolder) -> None:
    """Settle the options on these splits; write and print the trials of each option as soon as it is settled."""
    backbone = splits.validation.embedded.backbone
    trials: list[Trial] = []
    for of_option in sweep(
        splits.train.data,
        splits.validation.data,
        options.training,
        seed=options.seed,
        shared_layers=backbone.shared_layers,
        device=backbone.device,
    ):
        trials += of_option
        frame = sweep_frame(trials)
        folder.table("sweep", frame)
        print(frame.tail(len(of_option)).to_string(index=False), flush=True)
    folder.stage("sweep")
    kept = ", ".join(f"{trial.option} {trial.value}" for trial in trials if trial.settled)
    folder.finish(facts=splits.validation.embedded.facts() | splits.validation.facts(), lines=[f"Settled: {kept}"])


if __name__ == "__main__":
    run_command(SweepOptions, run, "tools.probe_sweep", None)
