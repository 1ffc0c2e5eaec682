"""The ablation: every row tuned and trained alike on train and validation, over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.model import FusionError
from miner_diag.fusion.systems import (
    FittedProbes,
    FusionConfig,
    Row,
    SingleProbe,
    build_fusion,
    n_parameters,
    query_specific,
)
from miner_diag.fusion.train import FusionTrainOptions, TrainedRun, ndcg_of, train
from miner_diag.probes.compare_kinds import predicted_kinds
from miner_diag.probes.retrieval_data import RetrievalData

HEADS = ("final_layer_linear", "final_layer_head", "final_layer_mlp")
"""Heads on the final layer alone; a gain of the fusion counts only beyond the one that validation likes best."""


@dataclass(frozen=True)
class AblationOptions:
    """How much is trained."""

    n_seeds: int = 5
    """Trainings of each system."""
    rate_scales: tuple[float, ...] = (0.33, 1.0)
    """Both learning rates are tried at these multiples, for each system alike; validation decides, with the first
    seed."""
    systems: tuple[str, ...] = ()
    """Names of rows to train; all if none is given. backbone, the heads and fusion are always among them."""

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
    """Of the system."""
    what: str
    """In words."""
    options: FusionTrainOptions
    """As validation settled them."""
    runs: tuple[TrainedRun, ...]
    """One per seed; one alone for what is not trained."""
    n_parameters: int
    """Numbers that are trained."""

    @property
    def validation(self) -> np.ndarray:
        """[S, Q] nDCG@5."""
        return np.stack([run.ndcg for run in self.runs])

    @property
    def seconds(self) -> float:
        """Of one training, in the mean."""
        return float(np.mean([run.seconds for run in self.runs]))

    def ndcg(self, judged: RetrievalData, device: Any = "cpu", width: int | None = None) -> np.ndarray:
        """Return nDCG@5 [S, Q] on another split, of the first `width` coordinates if given."""
        return np.stack([ndcg_of(run.system, judged, device, width) for run in self.runs])


def run_rows(
    rows: Sequence[Row],
    train_split: RetrievalData,
    validation: RetrievalData,
    training: FusionTrainOptions,
    options: AblationOptions,
    *,
    device: Any = "cpu",
    state: Path | None = None,
    progress: bool = False,
    told: Callable[[str], None] | None = None,
) -> list[TrainedSystem]:
    """Tune and train every row, each with the same data, steps, seeds and number of trials.

    Parameters
    ----------
    rows : sequence of Row
        What is trained.
    train_split, validation : RetrievalData
        The test split is not among the arguments.
    training, options : FusionTrainOptions, AblationOptions
        How.
    device : str
        Where.
    state : path, optional
        Folder of the states of trainings; a run that was stopped goes on there.
    progress : bool
        Show bars.
    told : callable, optional
        Gets a line for each row that is done.
    """
    entries = []
    for row in rows:
        entry = _run_row(row, train_split, validation, training, options, device=device, state=state, progress=progress)
        entries.append(entry)
        if told is not None:
            scores = [run.score for run in entry.runs]
            told(
                f"{entry.name:<24} validation {np.mean(scores):.4f}  {entry.n_parameters:>9,} parameters  "
                f"{entry.seconds:5.1f} s"
            )
    return entries


def _run_row(
    row: Row,
    train_split: RetrievalData,
    validation: RetrievalData,
    training: FusionTrainOptions,
    options: AblationOptions,
    **how: Any,
) -> TrainedSystem:
    state: Path | None = how.pop("state")
    training = replace(training, **row.training)

    def scaled(scale: float) -> FusionTrainOptions:
        return replace(
            training,
            learning_rate=scale * training.learning_rate,
            weight_learning_rate=scale * training.weight_learning_rate,
        )

    def fit(scale: float, seed: int) -> TrainedRun:
        settled = replace(scaled(scale), seed=seed)
        path = None if state is None or not row.trained else state / f"{row.name}-{scale:g}-{seed}.safetensors"
        system = row.build(np.random.default_rng([seed, 1]))
        return train(system, train_split, validation, settled, state=path, name=row.name, **how)

    first = training.seed
    size = n_parameters(row.build(np.random.default_rng(0)))
    if not row.trained:
        return TrainedSystem(row.name, row.what, training, (fit(1.0, first),), size)
    trials = {scale: fit(scale, first) for scale in options.rate_scales}
    scale = max(trials, key=lambda scale: trials[scale].score)
    runs = [trials[scale], *(fit(scale, first + seed) for seed in range(1, options.n_seeds))]
    return TrainedSystem(row.name, row.what, scaled(scale), tuple(runs), size)


def run_query_specific(
    fusion: TrainedSystem,
    train_split: RetrievalData,
    validation: RetrievalData,
    *,
    device: Any = "cpu",
    state: Path | None = None,
) -> TrainedSystem:
    """Train the query-specific layer weights on top of each seed's fitted fusion."""
    runs = []
    for number, run in enumerate(fusion.runs):
        options = replace(fusion.options, seed=fusion.options.seed + number)
        path = None if state is None else state / f"query_specific-{options.seed}.safetensors"
        variant = query_specific(run.system)
        runs.append(train(variant, train_split, validation, options, device=device, state=path, name="query_specific"))
    what = "fusion whose layer weights follow the query; pages, and so the index, unchanged"
    return TrainedSystem(
        "query_specific", what, fusion.options, tuple(runs), n_parameters(query_specific(fusion.runs[0].system))
    )


def oracle(probed: FittedProbes, judged: RetrievalData, fusion: np.ndarray) -> np.ndarray:
    """Return nDCG@5 [1, Q] of the best single layer's probe, or the fusion, picked for each query by the answers.

    An upper bound of choosing a layer per query, not a system.
    """
    layers = [ndcg_of(SingleProbe(probed, layer, kind), judged) for layer, kind in enumerate(probed.kinds)]
    return np.max([*layers, fusion.mean(axis=0)], axis=0)[None]


def best_head(entries: Sequence[TrainedSystem]) -> str:
    """Return the head on the final layer that validation likes best.

    Raises
    ------
    FusionError
        If there is none: then no gain could be told from that of more data.
    """
    heads = [entry for entry in entries if entry.name in HEADS]
    if not heads:
        raise FusionError(f"systems must hold one of {', '.join(HEADS)}: a gain counts only beyond a head")
    return max(heads, key=lambda entry: entry.validation.mean()).name


@dataclass(frozen=True)
class SensitivityOptions:
    """What the sensitivity table tries, on validation, with the first seed."""

    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Kept shares of inner layers (the fixed rule)."""
    n_layers: tuple[int, ...] = (2, 3, 5)
    """Numbers of layers, the best by the validation score of their probes; those above L are left out."""
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Of the alignment ratio, which then names the kinds of probe."""


def sensitivity(
    probed: FittedProbes,
    train_split: RetrievalData,
    validation: RetrievalData,
    shape: FusionConfig,
    training: FusionTrainOptions,
    options: SensitivityOptions,
    *,
    device: Any = "cpu",
    state: Path | None = None,
    told: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Return a row per kept share, number of layers and threshold: validation nDCG@5 of the trained fusion."""
    final = probed.n_layers - 1
    best = sorted(range(final), key=lambda layer: -probed.scores[:, layer].max())
    table: list[dict[str, Any]] = []
    done: dict[tuple[Any, ...], float] = {}
    start = shape.final_map(train_split)
    for threshold in options.thresholds:
        kinds = tuple(predicted_kinds(probed.ratios, threshold))
        for n in (n for n in options.n_layers if 2 <= n <= probed.n_layers):
            layers = (*sorted(best[: n - 1]), final)
            for share in options.shares:
                # thresholds that name the same kinds give the same fusion, which is trained once
                key = (layers, tuple(kinds[layer] for layer in layers[:-1]), share)
                if key not in done:
                    mask = MaskOptions(mask="fixed", share=share)
                    rng = np.random.default_rng(0)
                    system = build_fusion(probed, layers, shape, mask, rng, kinds, final_map=start)
                    name = f"sensitivity-{threshold:g}-{n}-{share:g}"
                    path = None if state is None else state / f"{name}.safetensors"
                    done[key] = train(
                        system, train_split, validation, training, device=device, state=path, name=name
                    ).score
                    if told is not None:
                        told(f"share {share:g}, layers {layers}, threshold {threshold:g}: {done[key]:.4f}")
                table.append(
                    {
                        "kept_share": share,
                        "n_layers": n,
                        "threshold": threshold,
                        "layers": " ".join(map(str, layers)),
                        "kinds": " ".join(key[1]),
                        "validation_ndcg_at_5": done[key],
                    }
                )
    return table
