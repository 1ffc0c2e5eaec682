"""The diagnosis of a dual encoder as rows, sentences and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.cka.dual_encoder import SIDES, DualEncoderDiagnosis, DualEncoderLayer
from miner_diag.cka.plots import COLOURS
from miner_diag.cka.table import comparison_measures, measure_cells, null_cells, with_ends
from miner_diag.embeddings.bm25_reference import COLUMNS as BM25_COLUMNS
from miner_diag.embeddings.bm25_reference import Bm25Reference
from miner_diag.figures import WIDTH, finish_figure, new_figure, only, shade, subject
from miner_diag.records import Record
from miner_diag.stats import Interval

COLUMNS = (
    "side",
    "layer",
    "relative_depth",
    "cka_final",
    "cka_final_low",
    "cka_final_high",
    "cka_final_null_p95",
    "cka_final_null_mean",
    "cka_final_p",
    "cosine_final",
    "alignment_ratio_final",
    "alignment_ratio_final_low",
    "alignment_ratio_final_high",
    "effective_rank",
    "anisotropy",
    "ndcg_at_5",
    "ndcg_at_5_low",
    "ndcg_at_5_high",
    "chance_ndcg_at_5",
    *BM25_COLUMNS,
    "n_items",
    "n_documents",
    "effective_documents",
    "probe_kind",
    "above_null",
)
"""Columns of ``layers.csv`` for a dual encoder: a row is a layer of one encoder. nDCG@5 is given at the last layers
alone, and so is that of BM25. Items and documents are those that the layer's CKA is over; the null is that of the
CKA."""


def dual_encoder_layer_table(diagnosis: DualEncoderDiagnosis, reference: Bm25Reference | None = None) -> pd.DataFrame:
    """Return one row per layer of either encoder with the columns `COLUMNS`."""
    rows = []
    for layer in diagnosis.layers:
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        measures = [(name, interval) for name, interval, _ in _measures(layer)]
        if layer.relative_depth == 1:
            measures += [("ndcg_at_5", diagnosis.ndcg), *(reference.measures() if reference else ())]
            row["chance_ndcg_at_5"] = diagnosis.chance
        row |= measure_cells(measures, COLUMNS)
        row |= null_cells(layer.to_final, "final", diagnosis.rules.estimator)
        if layer.to_final is not None:
            cka = layer.to_final.cka
            row |= {
                "n_items": cka.n,
                "n_documents": cka.n_clusters,
                "effective_documents": cka.effective_clusters,
            }
        row |= {
            "side": layer.side,
            "layer": layer.layer,
            "relative_depth": layer.relative_depth,
            "probe_kind": layer.probe_kind,
            "above_null": layer.above_null,
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def cross_frame(diagnosis: DualEncoderDiagnosis) -> pd.DataFrame:
    """Return CKA of every query layer (index) with every page layer (columns)."""
    index = pd.Index(diagnosis.usable["query"], name="query_layer")
    return pd.DataFrame(diagnosis.cross.values, index=index, columns=list(diagnosis.usable["page"]))


def dual_encoder_records(
    diagnosis: DualEncoderDiagnosis,
    *,
    model: str,
    model_revision: str,
    dataset: str,
    split: str,
    widths: Mapping[str, int],
    seed: int,
) -> list[Record]:
    """Return every number as a record with its side; a pair of layers names both of them."""
    common: dict[str, Any] = {"model": model, "model_revision": model_revision, "dataset": dataset, "split": split}
    estimator, records = diagnosis.rules.estimator, []
    for layer in diagnosis.layers:
        for name, interval, method in _measures(layer):
            of_cka = name.startswith(("cka", "alignment"))
            measure = name.replace("_final", f"_{layer.side}_final") if "_final" in name else f"{name}_{layer.side}"
            records.append(
                Record(
                    **common,
                    **interval.record_fields(method),
                    measure=measure,
                    side=layer.side,
                    layer=layer.layer,
                    d=widths[layer.side],
                    estimator=estimator if of_cka else None,
                    p_value=layer.to_final.null.p_value if name == "cka_final" and layer.to_final else None,
                )
            )
    ndcg = diagnosis.ndcg.record_fields("bootstrap over queries, BCa")
    records.append(Record(**common, **ndcg, measure="ndcg_at_5", seed=seed))
    for i, query_layer in enumerate(diagnosis.usable["query"]):
        for j, page_layer in enumerate(diagnosis.usable["page"]):
            records.append(
                Record(
                    **common,
                    **diagnosis.cross.interval(i, j).record_fields("jackknife, Fisher's z"),
                    measure="cka_query_layer_page_layer",
                    layer=query_layer,
                    other_layer=page_layer,
                    estimator=estimator,
                )
            )
    records += [
        Record(**common, measure="ndcg_at_5", value=float(value), query_id=query_id)
        for query_id, value in zip(diagnosis.per_query.query_ids, diagnosis.per_query.values, strict=True)
    ]
    return records


def dual_encoder_sentences(diagnosis: DualEncoderDiagnosis) -> tuple[str, str]:
    """Return two sentences: what retrieves, and which probe each encoder's layers need."""
    first = (
        f"Dual encoder: nDCG@5 {with_ends(diagnosis.ndcg)} of the last layers (n = {diagnosis.n_queries} queries, "
        f"{diagnosis.n_pages} pages; chance {diagnosis.chance:.3f}); inner layers of one encoder share no space with "
        "the other, so they retrieve only behind a probe of each side."
    )
    by_side = []
    for side in SIDES:
        kinds = {kind: [layer.layer for layer in diagnosis.of(side) if layer.probe_kind == kind] for kind in _KINDS}
        by_side.append(
            f"{side} encoder: base probe for {_numbers(kinds['base'])}, normalized projection for "
            f"{_numbers(kinds['normalized_projection'])}"
        )
    threshold = f"{diagnosis.rules.ratio_threshold:g}"
    return first, f"By the alignment ratio to each encoder's last layer (threshold {threshold}), {'; '.join(by_side)}."


def dual_encoder_figure(table: pd.DataFrame) -> Figure:
    """Draw CKA and alignment ratio to the encoder's last layer against relative depth, a column for each encoder.

    Parameters
    ----------
    table : DataFrame
        As `dual_encoder_layer_table` returns it, or as ``layers.csv`` is read back.
    """
    estimator = only(table, "estimator") or "debiased"
    figure = new_figure(WIDTH, 3.8)
    labels = {"cka_final": f"CKA ({estimator})", "alignment_ratio_final": "alignment ratio"}
    axes = figure.subplots(len(labels), len(SIDES), sharex=True, sharey="row")
    for of_measure, (column, label) in zip(axes, labels.items(), strict=True):
        values = table[column].astype(float)
        bottom, top = min(0.0, 1.2 * values.min()), 1.3 * max(0.8, values.max())
        of_measure[0].set_ylim(bottom, top)  # a wide interval must not flatten all
        for ax, side in zip(of_measure, SIDES, strict=True):
            rows = table[table["side"] == side]
            low, high = (rows[f"{column}_{end}"].astype(float) for end in ("low", "high"))
            shade(ax, rows["relative_depth"], low, high, COLOURS[side])
            ax.plot(rows["relative_depth"], rows[column].astype(float), "o-", color=COLOURS[side], markersize=4)
            ax.grid(axis="y", color="0.9", linewidth=0.7)
        of_measure[0].set_ylabel(label)
    for ax, side in zip(axes[0], SIDES, strict=True):
        ax.set_title(f"{side} encoder, {table['side'].eq(side).sum()} layers", color=COLOURS[side])
    for ax in axes[-1]:
        ax.set_xlabel("relative depth")
    title = f"What each layer shares with its encoder's last one\n{subject(table)}"
    per_side = [f"{side}: n = {_largest(table, side, 'n_items')}" for side in SIDES]
    confidence = only(table, "confidence")
    level = "Intervals" if confidence is None else f"{confidence:.0%} intervals"
    return finish_figure(figure, title, f"{'; '.join(per_side)}. {level} shaded; a triangle: cut by the panel.")


def _largest(table: pd.DataFrame, side: str, column: str) -> int:
    values = table.loc[table["side"] == side, column].astype(float)
    return 0 if values.isna().all() else int(values.max())


_KINDS = ("base", "normalized_projection")


def _measures(layer: DualEncoderLayer) -> Iterator[tuple[str, Interval, str]]:
    if layer.to_final is not None:
        yield from comparison_measures(layer.to_final, "final")
    if layer.effective_rank is not None:
        yield "effective_rank", layer.effective_rank, "infinitesimal jackknife"
    if layer.anisotropy is not None:
        yield "anisotropy", layer.anisotropy, "jackknife"


def _numbers(layers: list[int]) -> str:
    return ", ".join(map(str, layers)) if layers else "none"
