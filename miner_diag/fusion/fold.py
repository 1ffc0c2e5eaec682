"""One split by document: its layers chosen, its systems fitted to train and chosen on validation, all of it written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from miner_diag.fusion.building import FusionConfig
from miner_diag.fusion.form import FusionForm
from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.miner import MergedMiner, MinerFusion
from miner_diag.fusion.miner_building import MinerOptions, MinerParts, fit_miner_parts
from miner_diag.fusion.model import check_layers
from miner_diag.fusion.plots import sensitivity_figure, training_figure, weights_figure
from miner_diag.fusion.rows import FORMS, Form, Materials, Row, refuse_final_alone
from miner_diag.fusion.saved_systems import FittedTo, save_systems
from miner_diag.fusion.sensitivity import SensitivityOptions, sensitivity_table, with_seed_noise
from miner_diag.fusion.table import fusion_records, seeds_table, training_table, weights_table
from miner_diag.fusion.training import FusionTrainOptions
from miner_diag.fusion.tuning import TrainedSystem, TuningOptions, best_head, system_named, tune_all
from miner_diag.probes.fitted_probes import FittedProbes
from miner_diag.probes.splits import Splits
from miner_diag.probes.study import StudyOptions
from miner_diag.runs import RunFolder
from miner_diag.tables import with_subject


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

    form: Form
    """The form that the run is about; the other one is trained beside it."""

    @property
    def main(self) -> TrainedSystem:
        """The fusion of that form."""
        return self.system(self.form)

    @cached_property
    def merged_miner(self) -> MergedMiner:
        """MINER's form of the first seed as it would be served."""
        system = self.system("miner").runs[0].system
        assert isinstance(system, MinerFusion)
        return MergedMiner(system)

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
    form: Form,
    miner: MinerOptions,
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
    form : {"miner", "trained_maps"}
        The form that the run is about.
    miner, config, mask, training, tuning
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
    validation, device = splits.validation.data, splits.validation.embedded.backbone.device
    parts = fit_miner_parts(
        splits.train.data,
        validation,
        miner,
        layers=layers,
        more_layers=probes.selected if any(row.name == "miner_our_layers" for row in rows) else (),
        device=device,
        state=None if state is None else state / "miner_probes.safetensors",
        progress=True,
    )
    materials = Materials(probes, splits.train.data, config, mask, parts)
    systems = tune_all(
        rows, materials, validation, training, tuning, device=device, state=state, progress=True, report=report
    )
    table = None
    if grid is not None:
        rates = system_named(systems, "trained_maps").training
        table = sensitivity_table(materials, validation, rates, grid, device=device, state=state, report=report)
        names = {system.name for system in systems}
        repeated = system_named(systems, "fixed_mask" if "fixed_mask" in names else "trained_maps")
        table = with_seed_noise(
            table,
            share=mask.share,
            n_layers=len(materials.layers),
            threshold=StudyOptions().ratio_threshold,
            scores=[run.score for run in repeated.runs],
        )
    return FittedFold(splits, materials, tuple(systems), best_head(systems), table, tuple(cautions), form)


def choose_layers(probes: FittedProbes, layers: tuple[int, ...]) -> tuple[FittedProbes, list[str]]:
    """Return the probes with the layers to fuse as their selection, and a caution where none was selected.

    Raises
    ------
    FusionError
        If `layers` are not rising layers of the backbone that end with the final one, or that one alone.
    """
    final = probes.n_layers - 1
    if layers:
        check_layers(layers, probes.n_layers)
        refuse_final_alone(layers, final)
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
    backbone, fusion, parts = embedded.backbone, fold.main, fold.materials.miner
    FittedTo.of(fold.splits.train.corpus, corpus).write(folder.folder)
    save_systems(folder.folder, fold.systems, backbone.key(), fold.head)
    best = max(range(len(fusion.runs)), key=lambda number: fusion.runs[number].score)
    run = fusion.runs[best]
    assert isinstance(run.system, FusionForm)
    run.system.save(
        folder.folder,
        backbone.key(),
        backbone_name=backbone.name,
        corpus=corpus.name,
        corpus_form=corpus.form,
        fold=corpus.fold,
        training=asdict(fusion.training),
        **_built_of(fold),
        seed=fusion.training.seed + best,
        best_epoch=run.best_epoch,
        validation_ndcg_at_5=run.score,
    )
    folder.json("selection", parts.choice.facts())
    folder.table("masks", parts.masks(parts.layers))
    named = {"data": corpus.name, "queries": corpus.form, "split": "validation", "model": backbone.name}
    weights, training = (
        with_subject(table, **named) for table in (weights_table(fusion), training_table(fold.systems))
    )
    folder.table("weights", weights)
    folder.table("seeds", seeds_table(fold.systems))
    folder.table("training", training)
    folder.records(
        fusion_records(fold.systems, fold.splits.validation, model=backbone.name, model_revision=backbone.revision)
    )
    folder.figure("weights", weights_figure(weights))
    folder.figure("training", training_figure(training[training["system"].isin([*FORMS, fold.head])]))
    if fold.sensitivity is not None:
        sensitivity = with_subject(fold.sensitivity, **named)
        folder.table("sensitivity", sensitivity)
        folder.figure("sensitivity", sensitivity_figure(sensitivity))


def fold_facts(fold: FittedFold, probes: str) -> dict[str, Any]:
    """Return what ``run.json`` says of one split by document; `probes` is the folder of the probes that were used."""
    train, validation = fold.splits.train, fold.splits.validation
    return validation.embedded.facts() | {
        **validation.facts(),
        "train": train.facts(),
        "validation": validation.facts(),
        "probes": probes,
        "form": fold.form,
        "selected_layers": {"miner": list(fold.materials.miner.layers), "trained_maps": list(fold.materials.layers)},
        "miner_probes": _miner_probes(fold.materials.miner),
        "merged": {"multiply_adds": fold.merged_miner.multiply_adds, "bytes": fold.merged_miner.n_bytes},
        "systems": [system.name for system in fold.systems],
        "head": fold.head,
    }


def closing_lines(fold: FittedFold) -> list[str]:
    """Return what a person takes away; all numbers are of the validation split, and the lines say so."""
    train, validation = fold.splits.train.facts(), fold.splits.validation.facts()
    parts = fold.materials.miner
    of_miner = ", ".join(
        f"{layer} ({'base' if parts.choice.kinds[layer] == 'base' else 'norm'})" for layer in parts.layers
    )
    lines = [
        f"Document split {fold.number}: fitted to {train['n_pairs']} pairs of {train['n_documents']} training "
        f"documents, chosen on {validation['n_queries']} queries of {validation['n_documents']} validation documents; "
        "the test documents were not read.",
        f"miner, the authors' form, takes layers {of_miner}; trained_maps, ours, takes layers "
        f"{', '.join(map(str, fold.materials.layers))}. The head on the final layer that validation likes best is "
        f"{fold.head}.",
        _merged_line(fold),
        score_line(fold),
        "Rates, epochs and the head were chosen on these queries, so these numbers are too good; those that count are "
        "measured on the test documents by evaluation.",
    ]
    backbone = fold.system("backbone").validation.mean()
    for form in FORMS:
        if fold.system(form).validation.mean() <= backbone:
            lines.append(f"{form} gains nothing over the backbone on validation: the backbone is the better choice.")
    return [*lines, *fold.cautions]


def score_line(fold: FittedFold) -> str:
    """Return validation nDCG@5 of backbone, head and both forms as a sentence."""
    n_seeds = len(fold.main.runs)
    scores = [f"{name} {fold.system(name).validation.mean():.4f}" for name in ("backbone", fold.head, *FORMS)]
    return (
        f"Document split {fold.number}, nDCG@5 of validation queries, mean over {n_seeds} "
        f"seed{'s' * (n_seeds > 1)}: {', '.join(scores)}."
    )


def _built_of(fold: FittedFold) -> dict[str, Any]:
    """Return the options that the form of the run was built with."""
    if fold.form == "miner":
        return {"miner": asdict(fold.materials.miner.options)}
    return {"config": asdict(fold.materials.config), "mask": asdict(fold.materials.mask)}


def _miner_probes(parts: MinerParts) -> dict[str, Any]:
    probes = parts.probes
    return {
        "layers": list(probes.layers),
        "kinds": list(probes.kinds),
        "validation_ndcg_at_5": probes.scores.tolist(),
        "best_epoch": probes.best_epoch.tolist(),
        "temperature": probes.temperature.tolist(),
        "mean_hard_negatives": probes.n_hard,
    }


def _merged_line(fold: FittedFold) -> str:
    merged = fold.merged_miner
    return (
        f"Merged for serving, miner costs {merged.multiply_adds:,} multiply-adds an item beyond the backbone's forward "
        f"and holds {merged.n_bytes / 1e6:.2f} MB; its vector has the backbone's size."
    )
