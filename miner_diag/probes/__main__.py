"""``python -m miner_diag.probes``: which kind of probe each layer needs, and which layers to keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import save as save_safetensors

from miner_diag.command import run_command
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings.job import Embedded, StoreOptions
from miner_diag.files import atomic_path, write_atomic
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.plots import probe_curves, ratio_against_benefit, salience_curves
from miner_diag.probes.retrieval_data import Side
from miner_diag.probes.splits import Splits, embed_whole, fitting_splits
from miner_diag.probes.study import Study, StudyOptions, study
from miner_diag.probes.sweep import sweep, sweep_frame
from miner_diag.probes.table import (
    concentration_frame,
    control_table,
    probe_table,
    rule_facts,
    rule_table,
    selection_facts,
    sentences,
    study_records,
)
from miner_diag.provenance import RunClock, write_run
from miner_diag.records import write_records


@dataclass(frozen=True)
class ProbesOptions(StudyOptions, StoreOptions):
    """Fit both kinds of probe to every layer; say which kind each needs, which layers to keep, and how sure that is."""

    split: Literal["validation"] = "validation"
    """Probes are fitted to train and judged on validation; test is not read."""
    out: Path = Path("runs/probes")
    """Folder that is written to."""
    embeddings: Path | None = None
    """Folder of the store, as python -m miner_diag.embeddings --split all writes it; --out/embeddings if not given."""
    memory_gb: float = 4.0
    """A side of a split that is larger is read from disk row by row."""
    intervals_over: Literal["auto", "items", "documents"] = "auto"
    """What intervals, tests and resamples are over: whole documents, whose queries are alike, or single queries; auto
    takes documents from 6 on."""
    sweep: bool = False
    """Settle the training options one after the other on validation, write sweep.csv, and do nothing else."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not self.memory_gb > 0:
            raise ValueError(f"memory_gb must be above 0; got {self.memory_gb}")


TERMINAL = {
    "layer": "layer",
    "kind": "kind",
    "raw_ndcg_at_5": "raw",
    "validation_ndcg_at_5": "probe",
    "low": "low",
    "high": "high",
    "difference_to_other_kind": "less other",
    "p_holm": "p (Holm)",
    "alignment_ratio_page_final": "AR",
    "predicted_kind": "predicted",
    "chosen_kind": "chosen",
    "selected": "kept",
    "selection_frequency": "frequency",
    "kept_neurons_90": "neurons 90 %",
}
"""Columns of ``probes.csv`` that fit a terminal, and their headings there."""

TOWERS = (
    "Two towers: these are layers of the {side} tower, each probed against the final embedding of the other one, which "
    "stays as it is; no layer of one is paired with a layer of the other."
)
"""What is said of a backbone whose sides do not share layers."""


def run(options: ProbesOptions) -> None:
    """Run the command; of two towers, each side by itself into a folder of its own."""
    clock = RunClock()
    folder = options.embeddings or options.out / "embeddings"
    embedded = embed_whole(options, folder, clock)
    sides: tuple[Side | None, ...] = (None,) if embedded.backbone.shared_layers else ("query", "page")
    for side in sides:
        splits = fitting_splits(embedded, memory_gb=options.memory_gb, side=side)
        mine = options if side is None else replace(options, out=options.out / side)
        (run_sweep if options.sweep else run_study)(splits, embedded, mine, clock)


def run_study(splits: Splits, embedded: Embedded, options: ProbesOptions, clock: RunClock) -> None:
    """Fit, compare and select; write everything into ``options.out`` and tell it."""
    backbone, corpus = embedded.backbone, splits.validation.corpus
    by_document, caution = over_documents(corpus, options.intervals_over)
    found = study(
        splits.train.judged,
        splits.validation.judged,
        options,
        page_hashes=[page.page_hash for page in corpus.pages],
        by_document=by_document,
        backbone=backbone.key(),
        shared_layers=backbone.shared_layers,
        device=backbone.device,
        progress=True,
    )
    clock.stage("probes")
    table = write_study(found, splits, embedded, options)
    clock.stage("write")
    told = [*sentences(found, options.ratio_threshold), *embedded.notes(), *caution]
    if found.probed is not None:
        told.insert(0, TOWERS.format(side=found.probed))
    first = found.fits[0]
    n_cells = first.n_negatives + first.n_masked
    told.append(
        f"{first.n_masked} of {n_cells} cells in batches ({first.n_masked / max(1, n_cells):.2%}) were false negatives "
        "(the page, or one that looks the same, answers the query) and were masked"
    )
    facts = (
        embedded.facts()
        | splits.validation.facts()
        | {
            "probed_tower": found.probed,
            "train": splits.train.facts(),
            "n_steps": first.n_steps,
            "n_false_negatives_masked": first.n_masked,
            "n_negatives": first.n_negatives,
            "epochs": [len(fit.loss) for fit in found.fits],
            "best_epoch": first.best_epoch.tolist(),
            "intervals_over": "documents" if by_document else "items",
            "chance_ndcg_at_5": found.chance,
            "alignment_ratio_as_predictor": rule_facts(found, options.ratio_threshold),
            "sentences": told,
        }
    )
    content = write_run(options.out, "miner_diag.probes", options, clock, **facts)
    print(f"{backbone.name} on {corpus.name}, {corpus.part}: {corpus.form} queries, fold {corpus.fold}")
    shown = table.rename(columns={found.ratio_name: "alignment_ratio_page_final"})[list(TERMINAL)]
    print(shown.rename(columns=TERMINAL).to_string(index=False, na_rep="", float_format="{:.3f}".format))
    for line in (*told, *skipped_lines(corpus.skipped)):
        print(line)
    print(f"{content['seconds']:.0f} s, {content['peak_memory_mb']:.0f} MB; tables and figures are in {options.out}")


def write_study(found: Study, splits: Splits, embedded: Embedded, options: ProbesOptions) -> pd.DataFrame:
    """Write probes, salience, tables, records and figures into ``options.out``; return the table of probes."""
    out, backbone, corpus = options.out, embedded.backbone, splits.validation.corpus
    found.fits[0].stack.save(out / "probes.safetensors")
    arrays: dict[str, np.ndarray] = {
        kind: np.ascontiguousarray(values) for kind, values in zip(KINDS, found.salience, strict=True)
    }
    write_atomic(out / "salience.safetensors", save_safetensors(arrays))
    write_json(out / "selection.json", selection_facts(found, options))
    write_records(
        out / "records.jsonl",
        study_records(
            found,
            model=backbone.name,
            model_revision=backbone.revision,
            dataset=corpus.name,
            split=corpus.part,
            width=backbone.width,
            seed=options.seed,
            query_ids=splits.validation.judged.relevance.query_ids,
        ),
    )
    table, concentrated = probe_table(found), concentration_frame(found)
    frames = {
        "probes": table,
        "rule": rule_table(found),
        "controls": control_table(found),
        "concentration": concentrated,
    }
    for name, frame in frames.items():
        write_atomic(out / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    title = f"{backbone.name} on {corpus.name} ({corpus.part}), {corpus.form} queries"
    title += "" if found.probed is None else f", {found.probed} tower"
    counts = (
        f"{len(splits.train.judged.pairs[0])} training pairs, {len(corpus.queries)} queries, {len(corpus.pages)} pages"
    )
    n_documents = found.raw[0].n_clusters
    over = "single queries" if n_documents is None else f"{n_documents} documents"
    ax = probe_curves(
        table, chance=found.chance, title=f"{title}\n{counts}, {options.confidence:.0%} intervals over {over}"
    )
    curves = ax.get_figure(root=True)
    assert isinstance(curves, Figure)
    figures = {
        "probes": curves,
        "salience": salience_curves(concentrated, title=title),
        "ratio": ratio_against_benefit(table, threshold=options.ratio_threshold, title=title),
    }
    for name, figure in figures.items():
        with atomic_path(out / f"{name}.png") as path:
            figure.savefig(path, dpi=200)
    return table


def write_json(path: Path, content: Any) -> None:
    """Write one JSON object, indented."""
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def run_sweep(splits: Splits, embedded: Embedded, options: ProbesOptions, clock: RunClock) -> None:
    """Settle the training options on validation; write ``sweep.csv``."""
    backbone = embedded.backbone
    start = options.training()
    trials = []
    for settled in sweep(
        splits.train.judged,
        splits.validation.judged,
        start,
        shared_layers=backbone.shared_layers,
        device=backbone.device,
    ):
        trials += settled
        frame = sweep_frame(trials)
        write_atomic(options.out / "sweep.csv", frame.to_csv(index=False, lineterminator="\n"))
        print(frame.tail(len(settled)).to_string(index=False), flush=True)
    clock.stage("sweep")
    write_run(options.out, "miner_diag.probes", options, clock, **embedded.facts() | splits.validation.facts())


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(ProbesOptions, run, "probes", args)


if __name__ == "__main__":
    main()
