"""``python -m miner_diag.cka``: which layers of a retriever are retrieval-aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from miner_diag.cka.diagnosis import Diagnosis, Rules, diagnose
from miner_diag.cka.dual_encoder import diagnose_dual_encoder
from miner_diag.cka.dual_encoder_table import (
    cross_frame,
    dual_encoder_figure,
    dual_encoder_layer_table,
    dual_encoder_records,
    dual_encoder_sentences,
)
from miner_diag.cka.hsic import Estimator
from miner_diag.cka.plots import cka_heat_map, layer_curves
from miner_diag.cka.table import diagnosis_records, layer_table, page_matrix_frame, sentences
from miner_diag.command import run_command
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings.job import Embedded, StoreOptions, embed
from miner_diag.files import atomic_path, write_atomic
from miner_diag.provenance import RunClock, write_run
from miner_diag.records import Record, records_to_frame, write_records


@dataclass(frozen=True)
class CKAOptions(StoreOptions):
    """Diagnose a retriever's layers: CKA, alignment ratio and nDCG@5, with intervals, a table and two figures."""

    out: Path = Path("runs/cka")
    """Folder that is written to; a run that was stopped is taken up there."""
    ratio_threshold: float = 0.5
    """Alignment ratio to the final layer (pages) from which on a base probe is taken to be enough."""
    aligned_share: float = 0.5
    """A retrieval-aligned layer keeps more than this share of the final layer's nDCG@5, beyond its interval."""
    estimator: Estimator = "debiased"
    """Of CKA; biased rises with width / items."""
    intervals_over: Literal["auto", "items", "documents"] = "auto"
    """What intervals are over: whole documents (pages and queries of a document are alike, so these hold for other
    documents too), or single items (these hold for these documents only); auto takes documents from 6 on."""
    confidence: float = 0.95
    """Nominal coverage of the intervals."""
    seed: int = 0
    """Of the bootstrap."""


TERMINAL = {
    "layer": "layer",
    "cka_page_final": "CKA page-final",
    "alignment_ratio_page_final": "AR page-final",
    "cka_query_final": "CKA query-final",
    "cka_query_page": "CKA query-page",
    "ndcg_at_5": "nDCG@5",
    "ndcg_at_5_low": "low",
    "ndcg_at_5_high": "high",
    "probe_kind": "probe",
    "retrieval_aligned": "aligned",
}
"""Columns of ``layers.csv`` that fit a terminal, and their headings there."""


def run(options: CKAOptions) -> None:
    """Run the command."""
    clock = RunClock()
    rules = Rules(options.ratio_threshold, options.aligned_share, options.confidence, options.estimator)
    embedded = embed(options, options.out / "embeddings", clock)
    by_document, caution = over_documents(embedded.corpus, options.intervals_over)
    if not embedded.backbone.shared_layers:
        run_towers(options, embedded, rules, by_document, caution, clock)
        return
    diagnosis = diagnose_embedded(embedded, rules, by_document, options.seed)
    clock.stage("diagnosis")
    table = write_tables(diagnosis, embedded, options)
    clock.stage("write")
    notes = [note for layer in diagnosis.layers for note in layer.notes] + embedded.notes() + caution
    told = sentences(diagnosis)
    facts = embedded.facts() | {
        "n_pairs": diagnosis.n_pairs,
        "chance_ndcg_at_5": diagnosis.chance,
        "cka_route": diagnosis.page_matrix.route,
        "cka_dtype": diagnosis.page_matrix.dtype,
        "cka_device": diagnosis.page_matrix.device,
        "rules": vars(rules),
        "intervals_over": "documents" if by_document else "items",
        "sentences": told,
        "notes": notes,
    }
    content = write_run(options.out, "miner_diag.cka", options, clock, **facts)
    corpus = embedded.corpus
    print(f"{embedded.backbone.name} on {corpus.name}, {corpus.part}: {corpus.form} queries, fold {corpus.fold}")
    shown = table[list(TERMINAL)].rename(columns=TERMINAL)
    print(shown.to_string(index=False, na_rep="", float_format="{:.3f}".format))
    for line in (*told, *notes, *skipped_lines(corpus.skipped)):
        print(line)
    print(f"{content['seconds']:.0f} s, {content['peak_memory_mb']:.0f} MB; tables and figures are in {options.out}")


def run_towers(
    options: CKAOptions, embedded: Embedded, rules: Rules, by_document: bool, caution: list[str], clock: RunClock
) -> None:
    """Diagnose a retriever of two towers: each by itself, never layer l of one with layer l of the other."""
    out, backbone, corpus = options.out, embedded.backbone, embedded.corpus
    diagnosis = diagnose_dual_encoder(
        embedded.stores.queries.layer_embeddings,
        embedded.stores.pages.layer_embeddings,
        **_described(embedded, by_document),
        rules=rules,
        rng=np.random.default_rng(options.seed),
        device=str(backbone.device),
    )
    clock.stage("diagnosis")
    table, cross = dual_encoder_layer_table(diagnosis), cross_frame(diagnosis)
    records = dual_encoder_records(
        diagnosis,
        model=backbone.name,
        model_revision=backbone.revision,
        dataset=corpus.name,
        split=corpus.part,
        widths={"query": backbone.layer_shape("query")[1], "page": backbone.layer_shape("page")[1]},
        seed=options.seed,
    )
    write_records(out / "records.jsonl", records)
    write_atomic(out / "layers.csv", table.to_csv(index=False, lineterminator="\n"))
    write_atomic(out / "cka_matrix_query_page.csv", cross.to_csv(lineterminator="\n"))
    title = f"{backbone.name} on {corpus.name} ({corpus.part}), {corpus.form} queries"
    with atomic_path(out / "layers.png") as path:
        dual_encoder_figure(table, title).savefig(path, dpi=200)
    ax = cka_heat_map(cross, estimator=options.estimator, title=f"{title}\nqueries and their pages")
    ax.set(xlabel="layer of the page tower", ylabel="layer of the query tower")
    heat_map = ax.get_figure(root=True)
    assert heat_map is not None
    with atomic_path(out / "cka_matrix.png") as path:
        heat_map.savefig(path, dpi=200)
    clock.stage("write")
    told = dual_encoder_sentences(diagnosis)
    notes = [f"{layer.side} tower, layer {layer.layer}: {layer.note}" for layer in diagnosis.layers if layer.note]
    notes += embedded.notes() + caution
    facts = embedded.facts() | {
        "two_towers": True,
        "n_pairs": diagnosis.n_pairs,
        "chance_ndcg_at_5": diagnosis.chance,
        "rules": vars(rules),
        "intervals_over": "documents" if by_document else "items",
        "sentences": told,
        "notes": notes,
    }
    content = write_run(out, "miner_diag.cka", options, clock, **facts)
    print(f"{backbone.name} on {corpus.name}, {corpus.part}: {corpus.form} queries, fold {corpus.fold}; two towers")
    shown = ["side", "layer", "cka_final", "alignment_ratio_final", "effective_rank", "ndcg_at_5", "probe_kind"]
    print(table[shown].to_string(index=False, na_rep="", float_format="{:.3f}".format))
    for line in (*told, *notes, *skipped_lines(corpus.skipped)):
        print(line)
    print(f"{content['seconds']:.0f} s, {content['peak_memory_mb']:.0f} MB; tables and figures are in {out}")


def diagnose_embedded(embedded: Embedded, rules: Rules, by_document: bool, seed: int) -> Diagnosis:
    """Diagnose an embedded corpus; `by_document` gives intervals over documents."""
    stores = embedded.stores
    return diagnose(
        stores.queries.layer_embeddings,
        stores.pages.layer_embeddings,
        **_described(embedded, by_document),
        rules=rules,
        rng=np.random.default_rng(seed),
        device=str(embedded.backbone.device),
    )


def _described(embedded: Embedded, by_document: bool) -> dict[str, Any]:
    """Return what a diagnosis is told of queries and pages beside their layers."""
    corpus, stores = embedded.corpus, embedded.stores
    index = {page.page_id: number for number, page in enumerate(corpus.pages)}
    gold = [{index[name]: grade for name, grade in corpus.qrels[query.query_id].items()} for query in corpus.queries]
    return {
        "gold": gold,
        "query_ids": stores.queries.ids,
        "page_ids": stores.pages.ids,
        "page_hashes": [page.page_hash for page in corpus.pages],
        "query_documents": [query.doc_id for query in corpus.queries] if by_document else None,
        "page_documents": [page.doc_id for page in corpus.pages] if by_document else None,
    }


def write_tables(diagnosis: Diagnosis, embedded: Embedded, options: CKAOptions) -> pd.DataFrame:
    """Write records, tables and figures into ``options.out``; return the table of layers."""
    out, backbone, corpus = options.out, embedded.backbone, embedded.corpus
    records = diagnosis_records(
        diagnosis,
        model=backbone.name,
        model_revision=backbone.revision,
        dataset=corpus.name,
        split=corpus.part,
        width=backbone.width,
        seed=options.seed,
    )
    table, matrix = layer_table(diagnosis), page_matrix_frame(diagnosis)
    write_records(out / "records.jsonl", records)
    write_atomic(out / "layers.csv", table.to_csv(index=False, lineterminator="\n"))
    write_atomic(out / "cka_matrix_page.csv", matrix.to_csv(lineterminator="\n"))
    title = f"{backbone.name} on {corpus.name} ({corpus.part}), {corpus.form} queries\n"
    over = diagnosis.layers[-1].ndcg.n_clusters
    title += f"{diagnosis.n_pages} pages, {diagnosis.n_queries} queries, {options.confidence:.0%} intervals over "
    title += "single items" if over is None else f"{over} documents"
    figure = layer_curves(
        curve_frame(records),
        [layer.probe_kind or "normalized_projection" for layer in diagnosis.layers],
        threshold=options.ratio_threshold,
        chance=diagnosis.chance,
        estimator=options.estimator,
        title=title,
    )
    with atomic_path(out / "layers.png") as path:
        figure.savefig(path, dpi=200)
    ax = cka_heat_map(
        matrix,
        estimator=options.estimator,
        title=f"{backbone.name}, pages of {corpus.name} ({corpus.part}), n = {len(corpus.pages)}",
    )
    heat_map = ax.get_figure(root=True)
    assert heat_map is not None
    with atomic_path(out / "cka_matrix.png") as path:
        heat_map.savefig(path, dpi=200)
    return table


def curve_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return the rows that the layer figure draws; of a null, the line is its 95th percentile where that is known."""
    frame = records_to_frame(records)
    frame = frame[frame["query_id"].isna() & frame["layer"].notna() & frame["other_layer"].isna()].copy()
    null = (frame["measure"] == "cka_query_page_null") & frame["high"].notna()
    frame.loc[null, "value"] = frame.loc[null, "high"]
    return frame


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(CKAOptions, run, "cka", args)


if __name__ == "__main__":
    main()
