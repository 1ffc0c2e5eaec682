"""The diagnosis as rows: records with intervals, the table of layers, and two sentences to act on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from miner_diag.cka.alignment import Comparison
from miner_diag.cka.diagnosis import Diagnosis, LayerDiagnosis
from miner_diag.cka.hsic import check_estimator
from miner_diag.embeddings.bm25_reference import COLUMNS as BM25_COLUMNS
from miner_diag.embeddings.bm25_reference import Bm25Reference
from miner_diag.records import Record
from miner_diag.stats import Interval

COLUMNS = (
    "layer",
    "cka_page_final",
    "cka_page_final_low",
    "cka_page_final_high",
    "cka_query_final",
    "cka_query_final_low",
    "cka_query_final_high",
    "cosine_page_final",
    "cosine_query_final",
    "alignment_ratio_page_final",
    "alignment_ratio_page_final_low",
    "alignment_ratio_page_final_high",
    "alignment_ratio_query_final",
    "alignment_ratio_query_final_low",
    "alignment_ratio_query_final_high",
    "cka_query_page",
    "cka_query_page_low",
    "cka_query_page_high",
    "cka_query_page_null_p95",
    "cka_query_page_null_mean",
    "cka_query_page_p",
    "cosine_query_page",
    "alignment_ratio_query_page",
    "alignment_ratio_query_page_low",
    "alignment_ratio_query_page_high",
    "ndcg_at_5",
    "ndcg_at_5_low",
    "ndcg_at_5_high",
    "chance_ndcg_at_5",
    *BM25_COLUMNS,
    "effective_rank_page",
    "anisotropy_page",
    "n_queries",
    "n_pages",
    "n_queries_in_cka",
    "n_pages_in_cka",
    "n_pairs_in_cka",
    "n_documents",
    "effective_documents",
    "probe_kind",
    "retrieval_aligned",
)
"""Columns of ``layers.csv``; a cell is empty where the number does not exist, and the ends of an interval are empty
where it is unbounded. The null is CKA with pairs broken: its 95th percentile and p value before Holm's adjustment. Its
mean is given for the biased estimator (that of the debiased one is 0), whose 95th percentile is not known. Items of
equal input enter CKA, alignment ratio, effective rank and anisotropy once, those of which nothing was read not at all:
n_queries_in_cka and n_pages_in_cka are left, and n_pairs_in_cka pairs of a query with its page. Documents are those
with queries, and are empty where intervals are over single items."""

VIEWS = {"page_final": "page", "query_final": "query", "query_page": None}
"""What is compared, and its side: a layer with the final one over pages and over queries, queries with their pages."""

SIDES = {**VIEWS, "effective_rank_page": "page", "anisotropy_page": "page"}
"""The side of each measure of one side, by its name without "cka", "cosine" or "alignment_ratio"."""


def layer_table(diagnosis: Diagnosis, reference: Bm25Reference | None = None) -> pd.DataFrame:
    """Return one row per layer with the columns `COLUMNS`; BM25's numbers are in every row."""
    rows = []
    for layer in diagnosis.layers:
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        row |= measure_cells(((name, interval) for name, interval, _ in layer_measures(layer)), COLUMNS)
        row |= null_cells(layer.query_page, "query_page", diagnosis.rules.estimator)
        row |= measure_cells(reference.measures() if reference else (), BM25_COLUMNS)
        row |= {
            "layer": layer.layer,
            "chance_ndcg_at_5": diagnosis.chance,
            "n_queries": diagnosis.n_queries,
            "n_pages": diagnosis.n_pages,
            "n_queries_in_cka": len(diagnosis.measured.queries),
            "n_pages_in_cka": len(diagnosis.measured.pages),
            "n_pairs_in_cka": diagnosis.n_pairs,
            "n_documents": layer.ndcg.n_clusters,
            "effective_documents": layer.ndcg.effective_clusters,
            "probe_kind": layer.probe_kind,
            "retrieval_aligned": layer.retrieval_aligned,
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def layer_measures(layer: LayerDiagnosis) -> Iterator[tuple[str, Interval, str]]:
    """Yield (measure, interval, method) for every number of a layer that exists."""
    for view in VIEWS:
        comparison: Comparison | None = getattr(layer, view)
        if comparison is not None:
            yield from comparison_measures(comparison, view)
    yield "ndcg_at_5", layer.ndcg, "bootstrap over queries, BCa"
    yield "ndcg_at_5_share_margin", layer.share_margin, "paired bootstrap over queries, BCa"
    if layer.effective_rank is not None:
        yield "effective_rank_page", layer.effective_rank, "infinitesimal jackknife"
    if layer.anisotropy is not None:
        yield "anisotropy_page", layer.anisotropy, "jackknife"


def comparison_measures(comparison: Comparison, view: str) -> Iterator[tuple[str, Interval, str]]:
    """Yield (measure, interval, method) for CKA, mean cosine and alignment ratio of two views, where they exist."""
    blocks = " over blocks of rows" if comparison.route == "streaming" else ""
    yield f"cka_{view}", comparison.cka, f"jackknife{blocks}, Fisher's z"
    if comparison.mean_cosine is not None:
        yield f"cosine_{view}", comparison.mean_cosine, f"Student{blocks}"
    if comparison.alignment_ratio is not None:
        yield f"alignment_ratio_{view}", comparison.alignment_ratio, f"jackknife{blocks}, Fieller"


def measure_cells(measures: Iterable[tuple[str, Interval]], columns: Collection[str]) -> dict[str, float | None]:
    """Return the cells of named intervals: value, low and high, where there are such columns."""
    cells: dict[str, float | None] = {}
    for name, interval in measures:
        cells |= {name: interval.value} | {f"{name}_{end}": value for end, value in interval.ends().items()}
    return {column: value for column, value in cells.items() if column in columns}


def null_cells(comparison: Comparison | None, view: str, estimator: str) -> dict[str, float]:
    """Return the cells of the null of a CKA: the level that is known, and the p value; none where there is no CKA."""
    if comparison is None:
        return {}
    level = f"cka_{view}_null_{'p95' if estimator == 'debiased' else 'mean'}"
    return {level: null_level(comparison, estimator), f"cka_{view}_p": comparison.null.p_value}


def null_level(comparison: Comparison, estimator: str) -> float:
    """Return the level that figures draw for a null: its 95th percentile, or its mean for the biased estimator."""
    check_estimator(estimator)
    return comparison.null.upper if estimator == "debiased" else comparison.null.mean


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
            records.append(
                Record(
                    **common,
                    **interval.record_fields(method),
                    measure=name,
                    side=_side(name),
                    layer=layer.layer,
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
    aligned = [layer for layer in diagnosis.layers[:-1] if layer.retrieval_aligned]
    at_the_end = f"nDCG@5 {with_ends(final.ndcg)} at the final layer {final.layer}"
    at_the_end += f" (n = {diagnosis.n_queries} queries, {diagnosis.n_pages} pages)"
    if not final.retrieval_aligned:
        reason = "is not above chance" if final.ndcg.low <= diagnosis.chance else "has no CKA above its null"
        others = (
            f"; retrieval-aligned by its measure: {_numbers(aligned)}"
            if aligned
            else "; no inner layer can be measured by it"
        )
        return f"The final layer itself {reason}: {at_the_end}, chance {diagnosis.chance:.3f}{others}."
    share = f"{rules.aligned_share:.0%} of the final layer's nDCG@5 beyond the {diagnosis.confidence:.0%} interval"
    if aligned:
        sentence = f"Retrieval-aligned besides the last: {_numbers(aligned)}, each with more than {share}"
    else:
        sentence = "No inner layer is retrieval-aligned as it is"
        weak = [layer for layer in diagnosis.layers[:-1] if layer.share_margin.low <= 0]
        unshown = [layer for layer in diagnosis.layers[:-1] if layer.share_margin.low > 0]
        reasons = [f"{_numbers(weak)} {_verb(weak, 'does', 'do')} not show more than {share}"] if weak else []
        if unshown:
            reasons.append(f"{_numbers(unshown)} {_verb(unshown, 'does', 'do')}, but without a CKA above its null")
        sentence += f": {'; '.join(reasons)}" if reasons else ""
    if diagnosis.layers[:-1]:
        best = max(diagnosis.layers[:-1], key=lambda layer: layer.ndcg.value)
        sentence += f". {at_the_end}; the best inner layer is {best.layer} with {with_ends(best.ndcg)}"
    return f"{sentence}."


def _probe_sentence(diagnosis: Diagnosis) -> str:
    rules = diagnosis.rules
    base = [layer for layer in diagnosis.layers if layer.probe_kind == "base"]
    projection = [layer for layer in diagnosis.layers if layer.probe_kind == "normalized_projection"]
    unsure = [layer for layer in diagnosis.layers[:-1] if layer.probe_kind is not None and not layer.kind_is_sure]
    return (
        f"By the alignment ratio to the final layer on pages (threshold {rules.ratio_threshold:g}) a base probe is "
        f"enough for {_numbers(base)} and a normalized projection is needed for {_numbers(projection)}; undecided at "
        f"{diagnosis.confidence:.0%}: {_numbers(unsure) if unsure else 'none'}."
    )


def with_ends(interval: Interval) -> str:
    """Return value and ends to three digits, as sentences show them."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _verb(layers: Sequence[LayerDiagnosis], one: str, many: str) -> str:
    return one if len(layers) == 1 else many


def _numbers(layers: Sequence[LayerDiagnosis]) -> str:
    if not layers:
        return "no layer"
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(str(layer.layer) for layer in layers)


def _side(name: str) -> str | None:
    for prefix in ("cka_", "cosine_", "alignment_ratio_"):
        name = name.removeprefix(prefix)
    return SIDES.get(name)


def _p_value(name: str, layer: LayerDiagnosis) -> float | None:
    view = name.removeprefix("cka_")
    comparison = getattr(layer, view, None) if name.startswith("cka_") else None
    return None if comparison is None else comparison.null.p_value


def _null_records(layer: LayerDiagnosis, common: dict[str, Any], estimator: str) -> Iterator[Record]:
    for view, side in VIEWS.items():
        comparison: Comparison | None = getattr(layer, view)
        if comparison is None:
            continue
        fields = {**common, "layer": layer.layer, "n": comparison.n, "estimator": estimator, "side": side}
        null = comparison.null
        level: float | None = null.upper
        method = "mean over all permutations, exact; high is the 95th percentile"
        if estimator != "debiased":  # the percentile is that of the debiased estimate, another scale
            method, level = "mean over all permutations, exact", None
        yield Record(**fields, measure=f"cka_{view}_null", value=null.mean, high=level, method=method)
        if comparison.outliers is not None:
            method, value = "most influential 1 % of the items left out", comparison.outliers.value
            yield Record(**fields, measure=f"cka_{view}_without_outliers", value=value, method=method)


def _pair_records(diagnosis: Diagnosis, common: dict[str, Any]) -> Iterator[Record]:
    matrix, unit_rows, usable = diagnosis.page_matrix, diagnosis.unit_rows, diagnosis.usable
    method = "jackknife, Fisher's z"
    for i, layer in enumerate(usable):
        fields = {**common, "layer": layer, "estimator": matrix.estimator, "side": "page"}
        for j, other in enumerate(usable[:i]):
            number: dict[str, Any] = {"value": float(matrix.values[i, j]), "n": matrix.n}
            if matrix.low is not None:
                number = matrix.interval(i, j).record_fields(method)
            yield Record(**fields, **number, measure="cka_page", other_layer=other)
        if unit_rows is not None:
            number = unit_rows.interval(i, 0).record_fields(method)
            yield Record(**fields, **number, measure="cka_page_final_unit_rows")
    pairs = [(layer.layer, layer.query_page.cka) for layer in diagnosis.layers if layer.query_page is not None]
    largest = max((cka.value for _, cka in pairs), default=0.0)
    if largest > 0:
        fields = {**common, "estimator": matrix.estimator, "method": "over the largest of all layers"}
        for layer, cka in pairs:
            yield Record(**fields, measure="cka_query_page_relative", layer=layer, value=cka.value / largest, n=cka.n)
