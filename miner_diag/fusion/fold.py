"""One split by document: its layers chosen, its systems fitted to train and chosen on validation, all of it written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from miner_diag.fusion.building import FusionConfig
from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.model import Fusion, check_layers
from miner_diag.fusion.plots import sensitivity_figure, training_figure, weights_figure
from miner_diag.fusion.rows import Materials, Row
from miner_diag.fusion.saved_systems import FittedTo, save_systems
from miner_diag.fusion.sensitivity import SensitivityOptions, sensitivity_table
from miner_diag.fusion.table import fusion_records, seeds_table, training_table, weights_table
from miner_diag.fusion.training import FusionTrainOptions
from miner_diag.fusion.tuning import TrainedSystem, TuningOptions, best_head, system_named, tune_all
from miner_diag.probes.fitted_probes import FittedProbes
from miner_diag.probes.splits import Splits
from miner_diag.runs import RunFolder


@dataclass(frozen=True, eq=False)
class FittedFold:
    """What one split by document gave."""

    splits: Splits
    """The training and the validation split."""
    materials: Materials
    """What the systems were built from; its probes select the layers that were fused."""
    systems: tuple[TrainedSystem, ...]
    """What was trained."""
    head: str
    """The head that validation likes best: what a gain of the fusion must go beyond."""
    sensitivity: pd.DataFrame | None
    """``sensitivity.csv``, if it was asked for."""
    cautions: tuple[str, ...]
    """What is to be said of the selection."""

    @property
    def number(self) -> int:
        """Number of the split by document."""
        return self.splits.train.corpus.fold

    def system(self, name: str) -> TrainedSystem:
        """Return the system of a name."""
        return system_named(self.systems, name)


def fit_fold(
    splits: Splits,
    probes: FittedProbes,
    rows: Sequence[Row],
    *,
    layers: tuple[int, ...] = (),
    config: FusionConfig,
    mask: MaskOptions,
    training: FusionTrainOptions,
    tuning: TuningOptions,
    grid: SensitivityOptions | None = None,
    state: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> FittedFold:
    """Fit everything to one split by document.

    Parameters
    ----------
    splits : Splits
        Train and validation; there is no test split among the arguments.
    probes : FittedProbes
        Probes that were fitted to the same splits.
    rows : sequence of Row
        The systems that are trained.
    layers : tuple of int
        Layers to fuse; those that the probes select if none is given.
    config, mask, training, tuning
        What is built, and how it is trained.
    grid : SensitivityOptions, optional
        What the sensitivity table tries; there is none if this is not given.
    state : path, optional
        Folder of the states of trainings.
    report : callable, optional
        Gets a line for each training that is done.

    Raises
    ------
    FusionError
        If the layers cannot be fused, or a training fails.
    """
    probes, cautions = choose_layers(probes, layers)
    materials = Materials(probes, splits.train.data, config, mask)
    validation, device = splits.validation.data, splits.validation.embedded.backbone.device
    systems = tune_all(
        rows, materials, validation, training, tuning, device=device, state=state, progress=True, report=report
    )
    table = None
    if grid is not None:
        rates = system_named(systems, "fusion").training
        table = sensitivity_table(materials, validation, rates, grid, device=device, state=state, report=report)
    return FittedFold(splits, materials, tuple(systems), best_head(systems), table, tuple(cautions))


def choose_layers(probes: FittedProbes, layers: tuple[int, ...]) -> tuple[FittedProbes, list[str]]:
    """Return the probes with the layers to fuse as their selection, and a caution where none was selected.

    Raises
    ------
    FusionError
        If `layers` are not rising layers of the backbone that end with the final one.
    """
    final = probes.n_layers - 1
    if layers:
        check_layers(layers, probes.n_layers)
        return replace(probes, selected=layers), []
    if probes.selected != (final,):
        return probes, []
    inner = int(np.argmax(probes.scores[:, :-1].max(axis=0)))
    caution = (
        f"The probes' selection keeps the final layer only; so that there is something to fuse, layer {inner}, whose "
        "probe scores best on validation, is fused with it."
    )
    return replace(probes, selected=(inner, final)), [caution]


def write_fold(fold: FittedFold, folder: RunFolder) -> None:
    """Write systems, the fusion, tables, records and figures of one split by document."""
    embedded, corpus = fold.splits.validation.embedded, fold.splits.validation.corpus
    backbone, fusion = embedded.backbone, fold.system("fusion")
    FittedTo.of(fold.splits.train.corpus, corpus).write(folder.folder)
    save_systems(folder.folder, fold.systems, backbone.key(), fold.head)
    best = max(range(len(fusion.runs)), key=lambda number: fusion.runs[number].score)
    run = fusion.runs[best]
    assert isinstance(run.system, Fusion)
    run.system.save(
        folder.folder,
        backbone.key(),
        backbone_name=backbone.name,
        corpus=corpus.name,
        corpus_form=corpus.form,
        fold=corpus.fold,
        training=asdict(fusion.training),
        config=asdict(fold.materials.config),
        mask=asdict(fold.materials.mask),
        seed=fusion.training.seed + best,
        best_epoch=run.best_epoch,
        validation_ndcg_at_5=run.score,
    )
    weights, training = weights_table(fusion), training_table(fold.systems)
    folder.table("weights", weights)
    folder.table("seeds", seeds_table(fold.systems))
    folder.table("training", training)
    folder.records(
        fusion_records(fold.systems, fold.splits.validation, model=backbone.name, model_revision=backbone.revision)
    )
    title = f"{backbone.name} on {corpus.name}, {corpus.form} queries"
    folder.figure("weights", weights_figure(weights, title=title))
    folder.figure("training", training_figure(training, ("fusion", fold.head), title=title))
    if fold.sensitivity is not None:
        folder.table("sensitivity", fold.sensitivity)
        folder.figure("sensitivity", sensitivity_figure(fold.sensitivity, title=title))


def fold_facts(fold: FittedFold, probes: str) -> dict[str, Any]:
    """Return what ``run.json`` says of one split by document; `probes` is the folder of the probes that were used."""
    train, validation = fold.splits.train, fold.splits.validation
    return validation.embedded.facts() | {
        **validation.facts(),
        "train": train.facts(),
        "validation": validation.facts(),
        "probes": probes,
        "selected_layers": list(fold.materials.layers),
        "systems": [system.name for system in fold.systems],
        "head": fold.head,
    }


def closing_lines(fold: FittedFold) -> list[str]:
    """Return what a person takes away; all numbers are of the validation split, and the lines say so."""
    train, validation = fold.splits.train.facts(), fold.splits.validation.facts()
    layers = ", ".join(map(str, fold.materials.layers))
    lines = [
        f"Document split {fold.number}: fitted to {train['n_pairs']} pairs of {train['n_documents']} training "
        f"documents, chosen on {validation['n_queries']} queries of {validation['n_documents']} validation documents; "
        "the test documents were not read.",
        f"The fusion takes layers {layers}. The head on the final layer that validation likes best is {fold.head}.",
        score_line(fold),
        "Rates, epochs and the head were chosen on these queries, so these numbers are too good; those that count are "
        "measured on the test documents by evaluation.",
    ]
    scores = {name: fold.system(name).validation.mean() for name in ("backbone", "fusion")}
    if scores["fusion"] <= scores["backbone"]:
        lines.append("The fusion gains nothing over the backbone on validation: the backbone is the better choice.")
    return [*lines, *fold.cautions]


def score_line(fold: FittedFold) -> str:
    """Return validation nDCG@5 of backbone, head and fusion as a sentence."""
    n_seeds = len(fold.system("fusion").runs)
    scores = [f"{name} {fold.system(name).validation.mean():.4f}" for name in ("backbone", fold.head, "fusion")]
    return (
        f"Document split {fold.number}, nDCG@5 of validation queries, mean over {n_seeds} "
        f"seed{'s' * (n_seeds > 1)}: {', '.join(scores)}."
    )
