"""The diagnosis of two towers as rows, sentences and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.cka.dual_encoder import SIDES, DualEncoderDiagnosis, DualEncoderLayer
from miner_diag.cka.plots import COLOURS, new_figure
from miner_diag.records import Record
from miner_diag.stats import Interval

COLUMNS = (
    "side",
    "layer",
    "relative_depth",
    "cka_final",
    "cka_final_null",
    "cosine_final",
    "alignment_ratio_final",
    "effective_rank",
    "anisotropy",
    "ndcg_at_5",
    "ndcg_at_5_low",
    "ndcg_at_5_high",
    "probe_kind",
    "above_null",
)
"""Columns of ``layers.csv`` for two towers: a row is a layer of one tower. nDCG@5 stands at the last layers alone."""


def dual_encoder_layer_table(diagnosis: DualEncoderDiagnosis) -> pd.DataFrame:
    """Return one row per layer of either tower with the columns `COLUMNS`."""
    rows = []
    for layer in diagnosis.layers:
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        row |= {name: interval.value for name, interval, _ in _measures(layer)}
        row |= {
            "side": layer.side,
            "layer": layer.layer,
            "relative_depth": layer.relative_depth,
            "cka_final_null": None if layer.to_final is None else layer.to_final.null.mean,
            "probe_kind": layer.probe_kind,
            "above_null": layer.above_null,
        }
        if layer.relative_depth == 1:
            ndcg = diagnosis.ndcg
            row |= {"ndcg_at_5": ndcg.value, "ndcg_at_5_low": ndcg.low, "ndcg_at_5_high": ndcg.high}
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
    widths: dict[str, int],
    seed: int,
) -> list[Record]:
    """Return every number as a record; the side is in the measure's name, and a pair names both of its layers."""
    common: dict[str, Any] = {"model": model, "model_revision": model_revision, "dataset": dataset, "split": split}
    estimator, records = diagnosis.rules.estimator, []
    for layer in diagnosis.layers:
        here = {**common, "layer": layer.layer, "d": widths[layer.side]}
        for name, interval, method in _measures(layer):
            of_cka = name.startswith(("cka", "alignment"))
            measure = name.replace("_final", f"_{layer.side}_final") if "_final" in name else f"{name}_{layer.side}"
            records.append(
                Record(
                    **here,
                    measure=measure,
                    method=method,
                    estimator=estimator if of_cka else None,
                    p_value=layer.to_final.null.p_value if name == "cka_final" and layer.to_final else None,
                    **_ends(interval),
                )
            )
    records.append(
        Record(**common, measure="ndcg_at_5", method="bootstrap over queries, BCa", seed=seed, **_ends(diagnosis.ndcg))
    )
    for i, query_layer in enumerate(diagnosis.usable["query"]):
        for j, page_layer in enumerate(diagnosis.usable["page"]):
            records.append(
                Record(
                    **common,
                    measure="cka_query_layer_page_layer",
                    layer=query_layer,
                    other_layer=page_layer,
                    estimator=estimator,
                    method="jackknife, Fisher's z",
                    **_ends(diagnosis.cross.interval(i, j)),
                )
            )
    records += [
        Record(**common, measure="ndcg_at_5", value=float(value), query_id=query_id)
        for query_id, value in zip(diagnosis.per_query.query_ids, diagnosis.per_query.values, strict=True)
    ]
    return records


def dual_encoder_sentences(diagnosis: DualEncoderDiagnosis) -> tuple[str, str]:
    """Return two sentences: what retrieves, and which probe each tower's layers need."""
    ndcg = diagnosis.ndcg
    first = (
        f"Two towers: nDCG@5 {ndcg.value:.3f} [{ndcg.low:.3f}, {ndcg.high:.3f}] of the last layers (n = "
        f"{diagnosis.n_queries} queries, {diagnosis.n_pages} pages; chance {diagnosis.chance:.3f}); inner layers of "
        "one tower share no space with the other, so they retrieve only behind a probe of each side."
    )
    told = []
    for side in SIDES:
        kinds = {kind: [layer.layer for layer in diagnosis.of(side) if layer.probe_kind == kind] for kind in _KINDS}
        told.append(
            f"{side} tower: base probe for {_numbers(kinds['base'])}, normalized projection for "
            f"{_numbers(kinds['normalized_projection'])}"
        )
    threshold = f"{diagnosis.rules.ratio_threshold:g}"
    return first, f"By the alignment ratio to each tower's last layer (threshold {threshold}), {'; '.join(told)}."


def dual_encoder_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw CKA and alignment ratio to the tower's last layer against relative depth, a curve a tower."""
    figure = new_figure(7.0, 5.6)
    axes = figure.subplots(2, 1, sharex=True)
    labels = {"cka_final": "CKA to the last layer", "alignment_ratio_final": "alignment ratio"}
    for ax, (column, label) in zip(axes, labels.items(), strict=True):
        for side in SIDES:
            rows = table[table["side"] == side]
            ax.plot(
                rows["relative_depth"], rows[column].astype(float), "o-", color=COLOURS[side], label=f"{side} tower"
            )
        ax.set_ylabel(label)
    axes[-1].set_xlabel("relative depth in the tower")
    axes[0].legend(frameon=False)
    axes[0].set_title(title, fontsize=10)
    return figure


_KINDS = ("base", "normalized_projection")


def _measures(layer: DualEncoderLayer) -> Iterator[tuple[str, Interval, str]]:
    view = layer.to_final
    if view is not None:
        yield "cka_final", view.cka, "jackknife, Fisher's z"
        if view.mean_cosine is not None:
            yield "cosine_final", view.mean_cosine, "Student"
        if view.alignment_ratio is not None:
            yield "alignment_ratio_final", view.alignment_ratio, "jackknife, Fieller"
    if layer.effective_rank is not None:
        yield "effective_rank", layer.effective_rank, "infinitesimal jackknife"
    if layer.anisotropy is not None:
        yield "anisotropy", layer.anisotropy, "jackknife"


def _ends(interval: Interval) -> dict[str, Any]:
    bounded = all(abs(end) < float("inf") for end in (interval.low, interval.high))
    return {
        "value": interval.value,
        "low": interval.low if bounded else None,
        "high": interval.high if bounded else None,
        "confidence": interval.confidence,
        "n": interval.n,
        "n_clusters": interval.n_clusters,
    }


def _numbers(layers: list[int]) -> str:
    return ", ".join(map(str, layers)) if layers else "none"
