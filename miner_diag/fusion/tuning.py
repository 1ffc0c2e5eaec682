"""Every row of the ablation tuned and trained alike: the same data, rates to try, seeds and steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.model import Fusion
from miner_diag.fusion.rows import HEADS, Materials, Role, Row
from miner_diag.fusion.training import FusionTrainOptions, TrainedRun, train
from miner_diag.probes.hard_negatives import mine_hard_negatives
from miner_diag.probes.retrieval_data import RetrievalData


@dataclass(frozen=True)
class TuningOptions:
    """How often each system is trained."""

    n_seeds: int = 5
    """The number of trainings of each system, with seeds --training.seed, --training.seed + 1, …"""
    rate_scales: tuple[float, ...] = (0.33, 1.0)
    """Both learning rates are tried at these multiples, for each system alike; validation decides, with the first
    seed."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_seeds < 1:
            raise ValueError(f"n_seeds must be at least 1; got {self.n_seeds}")
        if not self.rate_scales or min(self.rate_scales) <= 0:
            raise ValueError(f"rate_scales must hold numbers above 0; got {self.rate_scales}")


@dataclass(frozen=True, eq=False)
class TrainedSystem:
    """A row of the ablation, trained."""

    name: str
    """The system's name."""
    role: Role
    """What the system is in a comparison."""
    what: str
    """A description."""
    training: FusionTrainOptions
    """How it was trained, with the rates that validation chose."""
    runs: tuple[TrainedRun, ...]
    """One for each seed; one alone for what is not trained."""
    n_parameters: int
    """How many numbers are trained."""

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """[S] the seed of each run; None for what is not trained."""
        if not self.n_parameters:
            return (None,) * len(self.runs)
        return tuple(self.training.seed + number for number in range(len(self.runs)))

    @property
    def validation(self) -> np.ndarray:
        """[S, Q] nDCG@5 of each validation query."""
        return np.stack([run.ndcg for run in self.runs])

    @property
    def seconds(self) -> float:
        """Mean time of one training."""
        return float(np.mean([run.seconds for run in self.runs]))


def tune_all(
    rows: Sequence[Row],
    materials: Materials,
    validation: RetrievalData,
    training: FusionTrainOptions,
    options: TuningOptions,
    *,
    device: Any = "cpu",
    state: Path | None = None,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
) -> list[TrainedSystem]:
    """Tune and train every row.

    Parameters
    ----------
    rows : sequence of Row
        What is trained; a row that is built on the fusion stands behind it.
    materials : Materials
        What the systems are built from, the training split among it. The test split is not among the arguments.
    validation : RetrievalData
        What decides on learning rates and when a training stops.
    training, options : FusionTrainOptions, TuningOptions
        How they are trained.
    device : str
        Where to train.
    state : path, optional
        Folder of the states of trainings; a run that was stopped goes on there.
    progress : bool
        Show bars.
    report : callable, optional
        Gets a line for each row that is done.

    Raises
    ------
    FusionError
        If a row is built on the fusion and the fusion does not stand before it, or a training fails.
    """
    trainer = _Trainer(materials, validation, training, options, {"device": device, "progress": progress}, state)
    systems: list[TrainedSystem] = []
    for row in rows:
        system = (
            trainer.tune(row) if row.build_on is None else trainer.go_on(row, system_named(systems, "trained_maps"))
        )
        systems.append(system)
        if report is not None:
            score = np.mean([run.score for run in system.runs])
            report(
                f"{system.name:<24} validation {score:.4f}  {system.n_parameters:>9,} parameters  "
                f"{system.seconds:5.1f} s"
            )
    return systems


def system_named(systems: Sequence[TrainedSystem], name: str) -> TrainedSystem:
    """Return the system of a name.

    Raises
    ------
    FusionError
        If there is none.
    """
    for system in systems:
        if system.name == name:
            return system
    raise FusionError(f"systems must hold {name}; got {', '.join(system.name for system in systems) or 'none'}")


def best_head(systems: Sequence[TrainedSystem]) -> str:
    """Return the head on the final layer that validation likes best.

    Raises
    ------
    FusionError
        If there is none: then no gain could be told from that of more data.
    """
    heads = [system for system in systems if system.role == "head"]
    if not heads:
        raise FusionError(f"systems must hold one of {', '.join(HEADS)}: a gain counts only beyond a head")
    return max(heads, key=lambda system: system.validation.mean()).name


@dataclass(frozen=True, eq=False)
class _Trainer:
    materials: Materials
    validation: RetrievalData
    training: FusionTrainOptions
    options: TuningOptions
    how: dict[str, Any]
    state: Path | None
    mined: dict[tuple[int, float], np.ndarray] = field(default_factory=dict)
    """Hard negatives by their number and guard: all trainings have the same."""

    def tune(self, row: Row) -> TrainedSystem:
        """Try the rates with the first seed, and train all seeds with the one that validation likes best."""
        training = replace(self.training, **row.training)

        def scaled(scale: float) -> FusionTrainOptions:
            rates = {name: scale * getattr(training, name) for name in ("learning_rate", "weight_learning_rate")}
            return replace(training, **rates)

        def fit(scale: float, seed: int) -> tuple[TrainedRun, int]:
            assert row.build is not None
            system = row.build(self.materials, np.random.default_rng([seed, 1]))
            state = f"{row.name}-{scale:g}-{seed}" if row.trained else None
            return self._train(system, replace(scaled(scale), seed=seed), row, state), system.n_trained

        first = training.seed
        what = row.what.format(**self.materials.words())
        if not row.trained:
            run, n_parameters = fit(1.0, first)
            return TrainedSystem(row.name, row.role, what, training, (run,), n_parameters)
        trials = {scale: fit(scale, first) for scale in self.options.rate_scales}
        best = max(trials, key=lambda scale: trials[scale][0].score)
        run, n_parameters = trials[best]
        runs = [run, *(fit(best, first + number)[0] for number in range(1, self.options.n_seeds))]
        return TrainedSystem(row.name, row.role, what, scaled(best), tuple(runs), n_parameters)

    def go_on(self, row: Row, fusion: TrainedSystem) -> TrainedSystem:
        """Train what is built on each seed's fitted fusion, with the fusion's rates."""
        assert row.build_on is not None
        runs, n_parameters = [], 0
        for number, fitted in enumerate(fusion.runs):
            assert isinstance(fitted.system, Fusion)
            system = row.build_on(fitted.system)
            n_parameters, seed = system.n_trained, fusion.training.seed + number
            runs.append(self._train(system, replace(fusion.training, seed=seed), row, f"{row.name}-{seed}"))
        return TrainedSystem(row.name, row.role, row.what, fusion.training, tuple(runs), n_parameters)

    def _train(self, system: Any, training: FusionTrainOptions, row: Row, state: str | None) -> TrainedRun:
        path = None if self.state is None or state is None else self.state / f"{state}.safetensors"
        split, how = self.materials.train, (training.hard_negatives, training.guard)
        if system.n_trained and how not in self.mined:
            self.mined[how] = mine_hard_negatives(split, *how)
        hard = self.mined.get(how)
        return train(system, split, self.validation, training, state=path, name=row.name, hard=hard, **self.how)
