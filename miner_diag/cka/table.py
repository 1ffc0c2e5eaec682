"""The diagnosis as rows: records with intervals, the table of layers, and two sentences to act on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from miner_diag.cka.alignment import Comparison
from miner_diag.cka.diagnosis import Diagnosis, LayerDiagnosis
from miner_diag.records import Record
from miner_diag.stats import Interval

COLUMNS = (
    "layer",
    "cka_page_final",
    "cka_query_final",
    "cosine_page_final",
    "cosine_query_final",
    "alignment_ratio_page_final",
    "alignment_ratio_query_final",
    "cka_query_page",
    "cosine_query_page",
    "alignment_ratio_query_page",
    "cka_query_page_null",
    "ndcg_at_5",
    "ndcg_at_5_low",
    "ndcg_at_5_high",
    "effective_rank_page",
    "anisotropy_page",
    "n_queries",
    "n_pages",
    "probe_kind",
    "retrieval_aligned",
)
"""Columns of ``layers.csv``; a cell is empty where the number does not exist."""

VIEWS = ("page_final", "query_final", "query_page")
"""What is compared: a layer with the final one over pages and over queries, and queries with their pages."""


def layer_table(diagnosis: Diagnosis) -> pd.DataFrame:
    """Return one row per layer with the columns `COLUMNS`."""
    rows = []
    for layer in diagnosis.layers:
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        row |= {name: interval.value for name, interval, _ in layer_measures(layer) if name in COLUMNS}
        row |= {
            "layer": layer.layer,
            "cka_query_page_null": None if layer.query_page is None else layer.query_page.null.mean,
            "ndcg_at_5_low": layer.ndcg.low,
            "ndcg_at_5_high": layer.ndcg.high,
            "n_queries": diagnosis.n_queries,
            "n_pages": diagnosis.n_pages,
            "probe_kind": layer.probe_kind,
            "retrieval_aligned": layer.retrieval_aligned,
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def layer_measures(layer: LayerDiagnosis) -> Iterator[tuple[str, Interval, str]]:
    """Yield (measure, interval, method) for every number of a layer that exists."""
    for view in VIEWS:
        comparison: Comparison | None = getattr(layer, view)
        if comparison is None:
            continue
        yield f"cka_{view}", comparison.cka, "jackknife, Fisher's z"
        if comparison.mean_cosine is not None:
            yield f"cosine_{view}", comparison.mean_cosine, "Student"
        if comparison.alignment_ratio is not None:
            yield f"alignment_ratio_{view}", comparison.alignment_ratio, "jackknife, Fieller"
    yield "ndcg_at_5", layer.ndcg, "bootstrap over queries, BCa"
    yield "ndcg_at_5_share_margin", layer.share_margin, "paired bootstrap over queries, BCa"
    if layer.effective_rank is not None:
        yield "effective_rank_page", layer.effective_rank, "infinitesimal jackknife"
    if layer.anisotropy is not None:
        yield "anisotropy_page", layer.anisotropy, "jackknife"


def diagnosis_records(
    diagnosis: Diagnosis, *, model: str, model_revision: str, dataset: str, split: str, width: int, seed: int
) -> list[Record]:
    """Return every number of the diagnosis as a record, nDCG@5 of every query and CKA of every pair of layers too."""
    common: dict[str, Any] = {"model": model, "model_revision": model_revision, "dataset": dataset, "split": split}
    common["d"] = width
    records = []
    estimator = diagnosis.rules.estimator
    for layer in diagnosis.layers:
        for name, interval, method in layer_measures(layer):
            bounded = np.isfinite([interval.low, interval.high]).all()
            records.append(
                Record(
                    **common,
                    measure=name,
                    value=interval.value,
                    layer=layer.layer,
                    n=interval.n,
                    n_clusters=interval.n_clusters,
                    low=interval.low if bounded else None,
                    high=interval.high if bounded else None,
                    confidence=interval.confidence,
                    method=method if bounded else f"{method}: unbounded",
                    estimator=estimator if name.startswith(("cka", "alignment")) else None,
                    p_value=_p_value(name, layer),
                    seed=seed if "bootstrap" in method else None,
                )
            )
        records += _null_records(layer, common, estimator)
        ties = Record(**common, measure="tie_rate_at_5", value=layer.tie_rate, layer=layer.layer, n=layer.ndcg.n)
        records.append(ties)
    records += _pair_records(diagnosis, common)
    for layer, result in zip(diagnosis.layers, diagnosis.per_query, strict=True):
        records += [
            Record(**common, measure="ndcg_at_5", value=float(value), layer=layer.layer, query_id=query_id)
            for query_id, value in zip(result.query_ids, result.values, strict=True)
        ]
    return records


def page_matrix_frame(diagnosis: Diagnosis) -> pd.DataFrame:
    """Return CKA between all pairs of layers over pages, layers as index and columns."""
    index = pd.Index(diagnosis.usable, name="layer")
    return pd.DataFrame(diagnosis.page_matrix.values, index=index, columns=list(diagnosis.usable))


def sentences(diagnosis: Diagnosis) -> tuple[str, str]:
    """Return two sentences a person can act on: which layers retrieve as they are, and which probe each needs."""
    return _alignment_sentence(diagnosis), _probe_sentence(diagnosis)


def _alignment_sentence(diagnosis: Diagnosis) -> str:
    final, rules = diagnosis.layers[-1], diagnosis.rules
    inner = [layer for layer in diagnosis.layers[:-1] if layer.retrieval_aligned]
    told = f"nDCG@5 {_with_ends(final.ndcg)} at the final layer {final.layer}"
    told += f" (n = {diagnosis.n_queries} queries, {diagnosis.n_pages} pages)"
    if not final.retrieval_aligned:
        above = "is not above chance" if final.ndcg.low <= diagnosis.chance else "has no CKA above its null"
        told = f"The final layer itself {above}: {told}, chance {diagnosis.chance:.3f}"
        others = (
            f"; retrieval-aligned by its measure: {_numbers(inner)}"
            if inner
            else "; no inner layer can be judged by it"
        )
        return f"{told}{others}."
    share = f"{rules.aligned_share:.0%} of the final layer's nDCG@5 beyond the {rules.confidence:.0%} interval"
    if inner:
        first = f"Retrieval-aligned besides the last: {_numbers(inner)}, each with more than {share}"
    else:
        first = "No inner layer is retrieval-aligned as it is"
        weak = [layer for layer in diagnosis.layers[:-1] if layer.share_margin.low <= 0]
        unshown = [layer for layer in diagnosis.layers[:-1] if layer.share_margin.low > 0]
        reasons = [f"{_numbers(weak)} {_verb(weak, 'does', 'do')} not show more than {share}"] if weak else []
        if unshown:
            reasons.append(f"{_numbers(unshown)} {_verb(unshown, 'does', 'do')}, but without a CKA above its null")
        first += f": {'; '.join(reasons)}" if reasons else ""
    if diagnosis.layers[:-1]:
        best = max(diagnosis.layers[:-1], key=lambda layer: layer.ndcg.value)
        first += f". {told}; the best inner layer is {best.layer} with {_with_ends(best.ndcg)}"
    return f"{first}."


def _probe_sentence(diagnosis: Diagnosis) -> str:
    rules = diagnosis.rules
    base = [layer for layer in diagnosis.layers if layer.probe_kind == "base"]
    projection = [layer for layer in diagnosis.layers if layer.probe_kind == "normalized_projection"]
    unsure = [layer for layer in diagnosis.layers[:-1] if layer.probe_kind is not None and not layer.kind_is_sure]
    told = (
        f"By the alignment ratio to the final layer on pages (threshold {rules.ratio_threshold:g}) a base probe is "
        f"enough for {_numbers(base)} and a normalized projection is needed for {_numbers(projection)}"
    )
    return f"{told}; undecided at {rules.confidence:.0%}: {_numbers(unsure) if unsure else 'none'}."


def _with_ends(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _verb(layers: Sequence[LayerDiagnosis], one: str, many: str) -> str:
    return one if len(layers) == 1 else many


def _numbers(layers: Sequence[LayerDiagnosis]) -> str:
    if not layers:
        return "no layer"
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(str(layer.layer) for layer in layers)


def _p_value(name: str, layer: LayerDiagnosis) -> float | None:
    view = name.removeprefix("cka_")
    comparison = getattr(layer, view, None) if name.startswith("cka_") else None
    return None if comparison is None else comparison.null.p_value


def _null_records(layer: LayerDiagnosis, common: dict[str, Any], estimator: str) -> Iterator[Record]:
    for view in VIEWS:
        comparison: Comparison | None = getattr(layer, view)
        if comparison is None:
            continue
        here = {**common, "layer": layer.layer, "n": comparison.n, "estimator": estimator}
        null = comparison.null
        method, level = "mean over all permutations, exact; high is the 95th percentile", null.upper
        if estimator != "debiased":  # the percentile is that of the debiased estimate, another scale
            method, level = "mean over all permutations, exact", None
        yield Record(**here, measure=f"cka_{view}_null", value=null.mean, high=level, method=method)
        if comparison.outliers is not None:
            method = "most influential 1 % of the items left out"
            yield Record(**here, measure=f"cka_{view}_without_outliers", value=comparison.outliers.value, method=method)


def _pair_records(diagnosis: Diagnosis, common: dict[str, Any]) -> Iterator[Record]:
    matrix, usable = diagnosis.page_matrix, diagnosis.usable
    for i, layer in enumerate(usable):
        here = {**common, "layer": layer, "estimator": matrix.estimator, "method": "jackknife, Fisher's z"}
        for j, other in enumerate(usable[:i]):
            yield Record(**here, measure="cka_page", other_layer=other, **_ends(matrix.interval(i, j)))
        of_unit_rows = diagnosis.unit_rows.interval(i, 0)
        yield Record(**here, measure="cka_page_final_unit_rows", **_ends(of_unit_rows))
    pairs = [(layer.layer, layer.query_page.cka) for layer in diagnosis.layers if layer.query_page is not None]
    largest = max((cka.value for _, cka in pairs), default=0.0)
    if largest > 0:
        here = {**common, "estimator": matrix.estimator, "method": "over the largest of all layers"}
        for number, cka in pairs:
            yield Record(**here, measure="cka_query_page_relative", layer=number, value=cka.value / largest, n=cka.n)


def _ends(interval: Interval) -> dict[str, Any]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "confidence": interval.confidence,
        "n": interval.n,
        "n_clusters": interval.n_clusters,
    }
