"""Which layers of a retriever are retrieval-aligned: what the command of this folder does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import LoadOptions
from miner_diag.cka.diagnosis import Rules, diagnose
from miner_diag.cka.distinct import notes_on
from miner_diag.cka.dual_encoder import diagnose_dual_encoder
from miner_diag.cka.dual_encoder_table import (
    cross_frame,
    dual_encoder_figure,
    dual_encoder_layer_table,
    dual_encoder_records,
    dual_encoder_sentences,
)
from miner_diag.cka.plots import cka_heat_map, layer_figure
from miner_diag.cka.streamed import diagnose_streamed
from miner_diag.cka.table import diagnosis_records, layer_table, page_matrix_frame, sentences
from miner_diag.command import command_line
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings import Embedded, StoreOptions, layer_bytes, open_corpus
from miner_diag.embeddings.bm25_reference import Bm25Reference, bm25_reference
from miner_diag.records import Record
from miner_diag.runs import RunFolder
from miner_diag.stats import Interval, StatisticsOptions
from miner_diag.tables import table_text, with_subject
from miner_diag.texts import inert


@dataclass(frozen=True)
class CKAOptions:
    """Diagnose a retriever's layers: CKA, alignment ratio and nDCG@5, with intervals, a table and two figures."""

    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=LoadOptions)
    """Which retriever."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    split: Literal["train", "validation", "test", "all"] = "validation"
    """The split whose queries and pages are measured."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where pooled layers are kept."""
    rules: Annotated[Rules, OmitArgPrefixes] = field(default_factory=Rules)
    """How numbers become verdicts."""
    statistics: Annotated[StatisticsOptions, OmitArgPrefixes] = field(default_factory=StatisticsOptions)
    """How intervals and tests are taken."""
    out: Path = Path("runs/cka")
    """The folder that is written to."""


@dataclass(frozen=True)
class Report:
    """What either kind of diagnosis leaves."""

    layers: pd.DataFrame
    """The table of layers."""
    shown: Mapping[str, str]
    """Columns of the table that fit a terminal, and their headings there."""
    matrix: pd.DataFrame
    """CKA of layers with layers."""
    matrix_name: str
    """Name of the file for the matrix."""
    records: list[Record]
    """Every number."""
    curves: Figure
    """The figure of the layers."""
    heat_map: Figure
    """The figure of the matrix."""
    sentences: tuple[str, ...]
    """What a person takes away."""
    notes: list[str]
    """What has no value, and why."""
    facts: dict[str, Any]
    """What ``run.json`` says beside all this."""


SHARED_SHOWN = {
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
DUAL_ENCODER_SHOWN = {
    "side": "side",
    "layer": "layer",
    "cka_final": "CKA final",
    "alignment_ratio_final": "AR final",
    "effective_rank": "effective rank",
    "ndcg_at_5": "nDCG@5",
    "probe_kind": "probe",
}


def run(options: CKAOptions) -> None:
    """Run the command."""
    folder = RunFolder(options.out, "miner_diag.cka", options)
    embedded_corpus = open_corpus(options.load, options.data, options.store, folder, split=options.split)
    embedded = embedded_corpus.take(options.data.part_of(embedded_corpus.corpus, options.split))
    by_document, cautions = over_documents(embedded.corpus, options.statistics.intervals_over)
    backbone, corpus = embedded.backbone, embedded.corpus
    facts = embedded.facts()
    folder.stage("noise floor")
    reference = bm25_reference(embedded, options.statistics, by_document=by_document)
    folder.stage("bm25")
    make_report = shared_layer_report if backbone.shared_layers else dual_encoder_report
    report = make_report(embedded, options, by_document, reference)
    folder.stage("diagnosis")
    folder.table("layers", report.layers)
    folder.table(report.matrix_name, report.matrix, index=True)
    of_bm25 = reference.records(dataset=corpus.name, split=corpus.part, seed=options.statistics.seed)
    folder.records([*report.records, *of_bm25])
    folder.figure("layers", report.curves)
    folder.figure("cka_matrix", report.heat_map)
    folder.stage("write")
    kind = "" if backbone.shared_layers else "; dual encoder"
    heading = f"{backbone.name} on {corpus.name}, {corpus.part}: {corpus.form} queries, fold {corpus.fold}{kind}"
    print(inert(heading))
    shown = report.layers[list(report.shown)].rename(columns=dict(report.shown))
    print(table_text(shown, index=False, na_rep="", float_format="{:.3f}".format))
    notes = report.notes + embedded.notes() + cautions
    facts |= report.facts | {"intervals_over": "documents" if by_document else "items", "notes": notes}
    folder.finish(
        facts=facts,
        lines=[*report.sentences, *reference.lines(), *notes, *skipped_lines(corpus.skipped)],
        next_command=command_line("probes", options.load, options.data, options.store),
    )


def shared_layer_report(embedded: Embedded, options: CKAOptions, by_document: bool, reference: Bm25Reference) -> Report:
    """Diagnose a retriever whose queries and pages pass the same layers; large layers are read block by block."""
    stores, backbone, corpus = embedded.stores, embedded.backbone, embedded.corpus
    common = item_facts(embedded, by_document)
    common |= {"rules": options.rules, "confidence": options.statistics.confidence}
    common["rng"] = np.random.default_rng(options.statistics.seed)
    if max(layer_bytes(store.shape) for store in (stores.queries, stores.pages)) > options.store.memory_gb * 1e9:
        diagnosis = diagnose_streamed(stores.queries, stores.pages, **common, memory_gb=options.store.memory_gb)
    else:
        diagnosis = diagnose(
            stores.queries.layer_embeddings, stores.pages.layer_embeddings, **common, device=str(backbone.device)
        )
    matrix, estimator = page_matrix_frame(diagnosis), options.rules.estimator
    table = with_subject(layer_table(diagnosis, reference), **_subject(embedded, options))
    heat_map_title = f"{backbone.name}, pages of {corpus.name} ({corpus.part}), n = {len(diagnosis.measured.pages)}"
    page_matrix = diagnosis.page_matrix
    absent = [diagnosis.measured.absent] if diagnosis.measured.absent else []
    return Report(
        layers=table,
        shown=SHARED_SHOWN,
        matrix=matrix,
        matrix_name="cka_matrix_page",
        records=diagnosis_records(diagnosis, **_names(embedded), width=backbone.width, seed=options.statistics.seed),
        curves=layer_figure(table),
        heat_map=_heat_map(matrix, estimator, heat_map_title),
        sentences=sentences(diagnosis),
        notes=[note for layer in diagnosis.layers for note in layer.notes]
        + notes_on(diagnosis.measured.queries, diagnosis.measured.pages)
        + absent,
        facts=_facts(diagnosis.n_pairs, diagnosis.chance, diagnosis.layers[-1].ndcg)
        | {"cka_route": page_matrix.route, "cka_dtype": page_matrix.dtype, "cka_device": page_matrix.device},
    )


def dual_encoder_report(embedded: Embedded, options: CKAOptions, by_document: bool, reference: Bm25Reference) -> Report:
    """Diagnose a dual encoder: each encoder by itself, never layer l of one with layer l of the other.

    Raises
    ------
    ValueError
        If a side is larger than the memory that is allowed: this diagnosis holds both sides whole.
    """
    stores, backbone = embedded.stores, embedded.backbone
    for side, store in (("queries", stores.queries), ("pages", stores.pages)):
        size = layer_bytes(store.shape) / 1e9
        if size > options.store.memory_gb:
            raise ValueError(
                f"the layers of the {side} take {size:.1f} GB and --memory-gb is {options.store.memory_gb:g}; the "
                "diagnosis of a dual encoder holds them whole. Raise --memory-gb or lower --limit"
            )
    diagnosis = diagnose_dual_encoder(
        stores.queries.layer_embeddings,
        stores.pages.layer_embeddings,
        **item_facts(embedded, by_document),
        rules=options.rules,
        confidence=options.statistics.confidence,
        rng=np.random.default_rng(options.statistics.seed),
        device=str(backbone.device),
    )
    table = with_subject(dual_encoder_layer_table(diagnosis, reference), **_subject(embedded, options))
    cross = cross_frame(diagnosis)
    heat_map = _heat_map(cross, options.rules.estimator, f"{_title(embedded)}\nqueries and their pages")
    heat_map.axes[0].set(xlabel="layer of the page encoder", ylabel="layer of the query encoder")
    widths = {side: backbone.layer_shape(side)[1] for side in ("query", "page")}
    return Report(
        layers=table,
        shown=DUAL_ENCODER_SHOWN,
        matrix=cross,
        matrix_name="cka_matrix_query_page",
        records=dual_encoder_records(diagnosis, **_names(embedded), widths=widths, seed=options.statistics.seed),
        curves=dual_encoder_figure(table),
        heat_map=heat_map,
        sentences=dual_encoder_sentences(diagnosis),
        notes=[f"{layer.side} encoder, layer {layer.layer}: {layer.note}" for layer in diagnosis.layers if layer.note]
        + notes_on(diagnosis.queries, diagnosis.pages),
        facts=_facts(diagnosis.n_pairs, diagnosis.chance, diagnosis.ndcg) | {"dual_encoder": True},
    )


def item_facts(embedded: Embedded, by_document: bool) -> dict[str, Any]:
    """Return what a diagnosis is told of queries and pages beside their layers."""
    corpus, stores = embedded.corpus, embedded.stores
    index = {page.page_id: number for number, page in enumerate(corpus.pages)}
    gold = [{index[name]: grade for name, grade in corpus.qrels[query.query_id].items()} for query in corpus.queries]
    return {
        "gold": gold,
        "query_ids": stores.queries.ids,
        "page_ids": stores.pages.ids,
        "query_inputs": stores.queries.inputs,
        "page_inputs": stores.pages.inputs,
        "query_documents": [query.doc_id for query in corpus.queries] if by_document else None,
        "page_documents": [page.doc_id for page in corpus.pages] if by_document else None,
        "ignore_self": corpus.ignore_self,
    }


def _names(embedded: Embedded) -> dict[str, str]:
    backbone, corpus = embedded.backbone, embedded.corpus
    return {
        "model": backbone.name,
        "model_revision": backbone.revision,
        "dataset": corpus.name,
        "split": corpus.part,
    }


def _title(embedded: Embedded) -> str:
    corpus = embedded.corpus
    return f"{embedded.backbone.name} on {corpus.name} ({corpus.part}), {corpus.form} queries"


def _subject(embedded: Embedded, options: CKAOptions) -> dict[str, Any]:
    """Return the columns that say what a table is of, and by which rules."""
    corpus, rules = embedded.corpus, options.rules
    return {
        "data": corpus.name,
        "queries": corpus.form,
        "split": corpus.part,
        "model": embedded.backbone.name,
        "estimator": rules.estimator,
        "ratio_threshold": rules.ratio_threshold,
        "confidence": options.statistics.confidence,
    }


def _facts(n_pairs: int, chance: float, ndcg: Interval) -> dict[str, Any]:
    return {
        "n_pairs": n_pairs,
        "chance_ndcg_at_5": chance,
        "n_documents": ndcg.n_clusters,
        "effective_documents": ndcg.effective_clusters,
    }


def _heat_map(matrix: pd.DataFrame, estimator: str, title: str) -> Figure:
    figure = cka_heat_map(matrix, estimator=estimator, title=title).get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure
