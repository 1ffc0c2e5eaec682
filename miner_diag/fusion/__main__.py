"""``python -m miner_diag.fusion``: one vector of the same size out of several layers, and whether it is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from miner_diag.command import run_command
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings.job import Embedded
from miner_diag.files import atomic_path, write_atomic
from miner_diag.fusion.job import Fold, FusionOptions, forget_states, run_fold, state_folder
from miner_diag.fusion.plots import ablation_figure, folds_figure, sensitivity_figure, training_figure, weights_figure
from miner_diag.fusion.pooled import HEAD, judge_pooled
from miner_diag.fusion.result import HEADS, sensitivity
from miner_diag.fusion.table import (
    ablation_table,
    curve_table,
    per_query,
    pooled_table,
    seeds_table,
    sentences,
    weights_table,
    width_table,
)
from miner_diag.probes.splits import embed_whole
from miner_diag.provenance import RunClock, write_run
from miner_diag.records import write_records

FOLD_ROWS = ("fusion",)
"""What the other splits by document train beside the backbone and the heads."""
TERMINAL = {
    "system": "system",
    "ndcg_at_5": "nDCG@5",
    "low": "low",
    "high": "high",
    "difference_to_backbone": "to backbone",
    "p_holm": "p (Holm)",
    "verdict": "verdict",
    "difference_to_head": "to head",
    "head_verdict": "verdict to head",
    "n_parameters": "parameters",
    "seconds": "s",
}
"""Columns of ``ablation.csv`` that fit a terminal, and their headings there."""


def run(options: FusionOptions) -> None:
    """Run the command."""
    clock = RunClock()
    embedded = embed_whole(options, options.embeddings or options.out / "embeddings", clock)
    state = state_folder(options.out, embedded, options)
    reads: list[dict[str, Any]] = []
    grid: list[dict[str, Any]] = []

    def before_test(probed: Any, splits: Any, entries: Any) -> None:
        clock.stage("training")
        if options.sensitivity:
            settled = next(entry for entry in entries if entry.name == "fusion").options
            grid.extend(
                sensitivity(
                    probed,
                    splits.train.judged,
                    splits.validation.judged,
                    options.shape,
                    settled,
                    options.grid,
                    device=embedded.backbone.device,
                    state=state,
                    told=tqdm.write,
                )
            )
            clock.stage("sensitivity")

    found = run_fold(
        embedded,
        embedded.corpus.fold,
        options,
        reads=reads,
        probes=options.probes or options.out / "probes",
        state=state,
        only=options.ablation.systems,
        before_test=before_test,
        told=tqdm.write,
    )
    told = sentences(found.judged["test"], found.head)
    table = write_tables(found, embedded, grid, options, told)
    clock.stage("test and tables")
    others = []
    for fold in options.folds:
        tqdm.write(f"document split {fold}")
        other = run_fold(
            embedded, fold, options, reads=reads, state=state / f"fold-{fold}", only=FOLD_ROWS, told=tqdm.write
        )
        others.append(other)
        told += [f"document split {fold}: {sentences(other.judged['test'], other.head)[0]}", *other.caution]
    if options.folds:
        told += write_folds([found, *others], embedded, options)
        clock.stage("other document splits")
    told += [*found.caution, *embedded.notes()]
    facts = embedded.facts() | {
        **found.splits["test"].facts(),
        "train": found.splits["train"].facts(),
        "validation": found.splits["validation"].facts(),
        "test_reads": reads,
        "head": found.head,
        "selected_layers": list(found.probed.selected),
        "sentences": told,
    }
    content = write_run(options.out, "miner_diag.fusion", options, clock, **facts)
    forget_states(options.out)
    corpus = found.corpus
    print(f"{embedded.backbone.name} on {corpus.name}, test: {corpus.form} queries, fold {corpus.fold}")
    shown = table[table["split"] == "test"]
    print(
        shown[list(TERMINAL)].rename(columns=TERMINAL).to_string(index=False, na_rep="", float_format="{:.4f}".format)
    )
    for line in (*told, *skipped_lines(corpus.skipped)):
        print(line)
    print(f"{content['seconds']:.0f} s, {content['peak_memory_mb']:.0f} MB; tables and figures are in {options.out}")


def write_tables(
    found: Fold, embedded: Embedded, grid: list[dict[str, Any]], options: FusionOptions, told: list[str]
) -> pd.DataFrame:
    """Write the fitted fusion, tables, records and figures; return the ablation."""
    out, backbone, corpus = options.out, embedded.backbone, found.corpus
    fusion, device = found.entry("fusion"), embedded.backbone.device
    best = max(fusion.runs, key=lambda fitted: fitted.score)
    score = next(j for j in found.judged["test"] if j.name == "fusion").ndcg
    best.system.save(
        out,
        backbone.key(),
        backbone_name=backbone.name,
        corpus=corpus.name,
        corpus_form=corpus.form,
        fold=corpus.fold,
        training=vars(fusion.options),
        shape=vars(options.shape),
        mask=vars(options.mask),
        seed=fusion.options.seed + fusion.runs.index(best),
        best_epoch=best.best_epoch,
        validation_ndcg_at_5=best.score,
        test_ndcg_at_5_of_all_seeds=vars(score),
        sentences=told,
    )
    table = ablation_table(found.judged, found.entries)
    heads = [entry for entry in found.entries if entry.name in ("backbone", *HEADS, "fusion", "fusion_mrl")]
    frames = {
        "ablation": table,
        "weights": weights_table(fusion),
        "seeds": seeds_table(found.entries, found.values["test"]),
        "training": curve_table(found.entries),
        "widths": width_table(heads, found.splits["test"].judged, device),
    }
    if grid:
        frames["sensitivity"] = pd.DataFrame(grid)
    for name, frame in frames.items():
        write_atomic(out / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    ids = {name: found.splits[name].judged.relevance.query_ids for name in found.values}
    write_records(
        out / "per_query.jsonl",
        per_query(found.values, ids, model=backbone.name, model_revision=backbone.revision, dataset=corpus.name),
    )
    title = f"{backbone.name} on {corpus.name}, {corpus.form} queries"
    test = found.splits["test"].facts()
    counts = f"{test['n_queries']} test queries of {test['n_documents']} documents, {options.ablation.n_seeds} seeds"
    figures = {
        "weights": weights_figure(frames["weights"], title=title),
        "ablation": ablation_figure(table, title=f"{title}\n{counts}"),
        "training": training_figure(frames["training"], ("fusion", found.head), title=title),
    }
    if grid:
        figures["sensitivity"] = sensitivity_figure(frames["sensitivity"], title=title)
    for name, figure in figures.items():
        with atomic_path(out / f"{name}.png") as path:
            figure.savefig(path, dpi=200)
    return table


def write_folds(found: Sequence[Fold], embedded: Embedded, options: FusionOptions) -> list[str]:
    """Write ``folds.csv``, each split by document, ``pooled.csv``, all together, and a figure; return what they say."""
    frames = []
    for fold in found:
        table = ablation_table({"test": fold.judged["test"]}, fold.entries)
        table = table[table["system"].isin(["backbone", *HEADS, "fusion"])].copy()
        base = table.loc[table["system"] == "backbone", "ndcg_at_5"].item()
        table.insert(0, "fold", fold.corpus.fold)
        table["role"] = ["fusion" if s == "fusion" else "head" if s == fold.head else "" for s in table["system"]]
        table["backbone_ndcg_at_5"] = base
        table["layers"] = " ".join(map(str, fold.probed.selected))
        for name in ("queries", "pages", "documents"):
            table[f"n_{name}"] = fold.splits["test"].facts()[f"n_{name}"]
        frames.append(table.drop(columns=["split", "what"]))
    whole = pd.concat(frames, ignore_index=True)
    write_atomic(options.out / "folds.csv", whole.to_csv(index=False, lineterminator="\n"))
    rng = np.random.default_rng(options.training.seed)
    # documents are the units only if they are in every split: one with few documents would be judged otherwise alone
    by_document = all(over_documents(fold.splits["test"].corpus, options.intervals_over)[0] for fold in found)
    judged = judge_pooled(
        [fold.pooled_part() for fold in found], rng, by_document=by_document, confidence=options.probe.confidence
    )
    together = pooled_table(judged)
    write_atomic(options.out / "pooled.csv", together.to_csv(index=False, lineterminator="\n"))
    corpus = embedded.corpus
    title = f"{embedded.backbone.name} on {corpus.name}, {corpus.form} queries"
    with atomic_path(options.out / "folds.png") as path:
        folds_figure(whole, together, title=title).savefig(path, dpi=200)
    n_documents = len({name for fold in found for name in fold.splits["test"].judged.documents})
    counts = f"{judged[0].ndcg.n} queries of {n_documents} documents"
    return sentences(judged, HEAD, f"the test documents of {len(found)} document splits together ({counts})")


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(FusionOptions, run, "fusion", args)


if __name__ == "__main__":
    main()
