"""A probe run as a whole: the study of two splits, and the files that it leaves, whichever command asks for it."""

from __future__ import annotations

from typing import Any

from miner_diag.cka.distinct import notes_on
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings.bm25_reference import bm25_reference
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.plots import probe_figure, ratio_figure, salience_figure
from miner_diag.probes.ratio_table import ratio_table
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
from miner_diag.tables import with_subject

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
    named = _subject(result, splits)
    table = with_subject(probe_table(result, reference), **named, **_counts(result, splits), chance=result.chance)
    concentrated = with_subject(concentration_frame(result), **named)
    ratios = ratio_table(table)
    ratios = with_subject(ratios, **named, **_counts(result, splits), ratio_threshold=options.ratio_threshold)
    run.table("probes", table)
    run.table("ratio", ratios)
    run.table("rule", rule_table(result))
    run.table("controls", control_table(result))
    run.table("concentration", concentrated)
    run.figure("probes", probe_figure(table))
    run.figure("salience", salience_figure(concentrated))
    run.figure("ratio", ratio_figure(ratios))
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


def _subject(result: Study, splits: Splits) -> dict[str, str]:
    """Return the columns that say what a table is of; a dual encoder's encoder is named with its model."""
    corpus, model = splits.validation.corpus, splits.validation.embedded.backbone.name
    model += "" if result.side is None else f" ({result.side} encoder)"
    return {"data": corpus.name, "queries": corpus.form, "split": corpus.part, "model": model}


def _counts(result: Study, splits: Splits) -> dict[str, Any]:
    """Return the columns that say how much a table is of, and what its intervals are over."""
    corpus, interval = splits.validation.corpus, result.raw[0]
    return {
        "n_training_pairs": len(splits.train.data.pairs[0]),
        "n_queries": len(corpus.queries),
        "n_pages": len(corpus.pages),
        "n_documents": interval.n_clusters,
        "effective_documents": interval.effective_clusters,
        "confidence": interval.confidence,
    }


def _masked(result: Study) -> str:
    first = result.fits[0]
    n_cells = first.n_negatives + first.n_masked
    return (
        f"{first.n_masked} of {n_cells} cells in batches ({first.n_masked / max(1, n_cells):.2%}) were false negatives "
        "(the page, or one that looks the same, answers the query) and were masked"
    )
