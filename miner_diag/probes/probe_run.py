"""A probe run as a whole: the study of two splits, and the files that it leaves, whichever command asks for it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.cka.distinct import notes_on
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings.bm25_reference import bm25_reference
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.plots import probe_curves, ratio_against_benefit, salience_curves
from miner_diag.probes.splits import Splits
from miner_diag.probes.study import Study, StudyOptions, run_study
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
from miner_diag.runs import RunFolder
from miner_diag.sealed import write_tensors
from miner_diag.stats import StatisticsOptions

DUAL_ENCODER = (
    "This is a dual encoder: these are layers of its {side} encoder, each probed against the final embedding of the "
    "other encoder, which stays as it is; no layer of one encoder is paired with a layer of the other."
)
"""The sentence that a run over one half of a dual encoder closes with."""


def study_splits(
    splits: Splits,
    options: StudyOptions,
    statistics: StatisticsOptions,
    *,
    n_seeds: int,
    controls: bool,
    progress: bool = True,
) -> Study:
    """Run the whole stage on two splits of an embedded corpus; parameters are those of `run_study`."""
    corpus, backbone = splits.validation.corpus, splits.validation.embedded.backbone
    stores = splits.validation.embedded.stores
    by_document, _ = over_documents(corpus, statistics.intervals_over)
    return run_study(
        splits.train.data,
        splits.validation.data,
        options,
        statistics,
        n_seeds=n_seeds,
        controls=controls,
        query_inputs=stores.queries.inputs,
        page_inputs=stores.pages.inputs,
        by_document=by_document,
        backbone=backbone.key(),
        shared_layers=backbone.shared_layers,
        device=backbone.device,
        progress=progress,
    )


def write_probe_run(
    run: RunFolder,
    result: Study,
    splits: Splits,
    options: StudyOptions,
    statistics: StatisticsOptions,
    *,
    next_command: str = "",
) -> None:
    """Write probes, salience, selection, tables, records, figures and ``run.json``, and print the closing lines.

    Parameters
    ----------
    run : RunFolder
        Where to write.
    result : Study
        What `study_splits` returned.
    splits, options, statistics
        What it was given.
    next_command : str
        What the user would type next.
    """
    validation, backbone = splits.validation, splits.validation.embedded.backbone
    corpus = validation.corpus
    by_document, cautions = over_documents(corpus, statistics.intervals_over)
    reference = bm25_reference(validation.embedded, statistics, by_document=by_document)
    run.stage("bm25")
    result.fits[0].stack.save(run.folder / "probes.safetensors")
    write_tensors(run.folder / "salience.safetensors", dict(zip(KINDS, result.salience, strict=True)), {})
    run.json("selection", selection_facts(result, options.selection))
    records = study_records(
        result,
        model=backbone.name,
        model_revision=backbone.revision,
        dataset=corpus.name,
        split=corpus.part,
        width=validation.data.width,
        seed=statistics.seed,
        query_ids=validation.data.relevance.query_ids,
    )
    records += reference.records(dataset=corpus.name, split=corpus.part, seed=statistics.seed)
    run.records(records)
    table, concentrated = probe_table(result, reference), concentration_frame(result)
    run.table("probes", table)
    run.table("rule", rule_table(result))
    run.table("controls", control_table(result))
    run.table("concentration", concentrated)
    for name, figure in _figures(result, splits, options, table, concentrated).items():
        run.figure(name, figure)
    run.stage("write")
    lines = sentences(result, options.ratio_threshold)
    if result.side is not None:
        lines.insert(0, DUAL_ENCODER.format(side=result.side))
    notes = [*splits.notes(), *notes_on(result.queries, result.pages), *cautions, _masked(result)]
    lines += [*reference.lines(), *notes, *skipped_lines(corpus.skipped)]
    run.finish(facts=_facts(result, splits, options), lines=lines, next_command=next_command)


def _facts(result: Study, splits: Splits, options: StudyOptions) -> dict[str, Any]:
    first = result.fits[0]
    return (
        splits.validation.embedded.facts()
        | splits.validation.facts()
        | {
            "side": result.side,
            "train": splits.train.facts(),
            "n_steps": first.n_steps,
            "n_false_negatives_masked": first.n_masked,
            "n_negatives": first.n_negatives,
            "n_seeds": len(result.fits),
            "epochs": [len(fit.loss) for fit in result.fits],
            "best_epoch": first.best_epoch.tolist(),
            "intervals_over": "items" if result.raw[0].n_clusters is None else "documents",
            "chance_ndcg_at_5": result.chance,
            "n_queries_in_cka": len(result.queries),
            "n_pages_in_cka": len(result.pages),
            "alignment_ratio_as_predictor": rule_facts(result, options.ratio_threshold),
        }
    )


def _figures(
    result: Study, splits: Splits, options: StudyOptions, table: pd.DataFrame, concentrated: pd.DataFrame
) -> dict[str, Figure]:
    corpus, interval = splits.validation.corpus, result.raw[0]
    title = f"{splits.validation.embedded.backbone.name} on {corpus.name} ({corpus.part}), {corpus.form} queries"
    title += "" if result.side is None else f", {result.side} encoder"
    n_pairs = len(splits.train.data.pairs[0])
    counts = f"{n_pairs} training pairs, {len(corpus.queries)} queries, {len(corpus.pages)} pages"
    over = "single queries" if interval.n_clusters is None else f"{interval.n_clusters} documents"
    ax = probe_curves(
        table, chance=result.chance, title=f"{title}\n{counts}, {interval.confidence:.0%} intervals over {over}"
    )
    curves = ax.get_figure(root=True)
    assert isinstance(curves, Figure)
    return {
        "probes": curves,
        "salience": salience_curves(concentrated, title=title),
        "ratio": ratio_against_benefit(table, threshold=options.ratio_threshold, title=title),
    }


def _masked(result: Study) -> str:
    first = result.fits[0]
    n_cells = first.n_negatives + first.n_masked
    return (
        f"{first.n_masked} of {n_cells} cells in batches ({first.n_masked / max(1, n_cells):.2%}) were false negatives "
        "(the page, or one that looks the same, answers the query) and were masked"
    )
