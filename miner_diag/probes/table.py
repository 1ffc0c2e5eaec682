"""A study as rows: the table of probes, records with intervals, the selection, and sentences to act on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from miner_diag.cka.table import measure_cells
from miner_diag.embeddings.bm25_reference import COLUMNS as BM25_COLUMNS
from miner_diag.embeddings.bm25_reference import Bm25Reference
from miner_diag.probes.compare_kinds import THRESHOLDS, RuleScore, best_threshold, left_out_hits, score_rule
from miner_diag.probes.controls import Control
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.salience import concentration, neurons_for
from miner_diag.probes.select import SelectionRule
from miner_diag.probes.study import Study, ratio_of
from miner_diag.records import Record
from miner_diag.stats import Interval

COLUMNS = (
    "layer",
    "kind",
    "raw_ndcg_at_5",
    "validation_ndcg_at_5",
    "low",
    "high",
    "difference_to_other_kind",
    "difference_low",
    "difference_high",
    "p_holm",
    "alignment_ratio_page_final",
    "alignment_ratio_query_page",
    "alignment_ratio_page_final_centred",
    "alignment_ratio_query_page_centred",
    "predicted_kind",
    "chosen_kind",
    "selected",
    "selection_frequency",
    "kept_neurons_90",
    *BM25_COLUMNS,
)
"""The columns of ``probes.csv``; a cell is empty where the number does not exist, as that of a centred ratio of a dual
encoder. The table of a dual encoder's query encoder has alignment_ratio_query_final instead of
alignment_ratio_page_final."""

MEASURE = "ndcg_at_5"
"""The measure of the records that hold nDCG@5 of a probe ("base", "normalized_projection") or of the layer as it is
("raw"); these names stand in the field `system`."""


def probe_table(study: Study, reference: Bm25Reference | None = None) -> pd.DataFrame:
    """Return one row per layer and kind with the columns `COLUMNS`; BM25's numbers are in every row."""
    of_bm25 = measure_cells(reference.measures() if reference else (), BM25_COLUMNS)
    rows = []
    for layer, verdict in enumerate(study.verdicts):
        for number, kind in enumerate(KINDS):
            ndcg, benefit, sign = study.ndcg[number][layer], verdict.benefit, 1 if number else -1
            ends = sorted((sign * benefit.low, sign * benefit.high))
            values = study.salience[number][layer]
            rows.append(
                {
                    "layer": layer,
                    "kind": kind,
                    "raw_ndcg_at_5": study.raw[layer].value,
                    "validation_ndcg_at_5": ndcg.value,
                    "low": ndcg.low,
                    "high": ndcg.high,
                    "difference_to_other_kind": sign * benefit.value,
                    "difference_low": ends[0],
                    "difference_high": ends[1],
                    "p_holm": verdict.p_holm,
                    **{name: values[layer] for name, values in study.readings.items()},
                    "predicted_kind": study.predicted[layer],
                    "chosen_kind": verdict.chosen,
                    "selected": layer in study.selected,
                    "selection_frequency": float(study.stability.frequency[layer]),
                    "kept_neurons_90": neurons_for(values) if values.any() else None,
                    **of_bm25,
                }
            )
    columns = [study.ratio_name if name == "alignment_ratio_page_final" else name for name in COLUMNS]
    return pd.DataFrame(rows, columns=columns)


def concentration_frame(study: Study) -> pd.DataFrame:
    """Return share of salience against share of neurons, long: kind, layer, neurons, salience."""
    parts = []
    for kind, layers in zip(KINDS, study.salience, strict=True):
        for layer, values in enumerate(layers):
            if values.any():
                share = [(number + 1) / len(values) for number in range(len(values))]
                part = {"kind": kind, "layer": layer, "neurons": share, "salience": concentration(values)}
                parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def rule_table(study: Study) -> pd.DataFrame:
    """Return how well each threshold of each reading of the alignment ratio names the preferred kind.

    The rows are over all layers and over inner ones. The final layer's ratio to itself is 1 by construction, so every
    threshold up to 1 names base there.
    """
    rows = []
    for reading, ratios in study.readings.items():
        for which, stop in (("all", len(study.verdicts)), ("inner", len(study.verdicts) - 1)):
            for threshold in THRESHOLDS:
                score = score_rule(ratios[:stop], study.verdicts[:stop], threshold)
                rows.append(
                    {
                        "reading": reading,
                        "layers": which,
                        "threshold": threshold,
                        "hits": score.hits,
                        "decided_layers": score.n,
                        "mean_ndcg_lost": score.loss,
                    }
                )
    return pd.DataFrame(rows)


def control_table(study: Study) -> pd.DataFrame:
    """Return the controls: shuffled pairs, and probes on the embedding layer alone beside those of the final layer."""
    rows = [
        {
            "control": c.name,
            "kind": c.kind,
            "layer": c.layer,
            "ndcg_at_5": c.ndcg.value,
            "low": c.ndcg.low,
            "high": c.ndcg.high,
        }
        | (
            {}
            if c.over_start is None
            else {
                "over_start": c.over_start.value,
                "over_start_low": c.over_start.low,
                "over_start_high": c.over_start.high,
            }
        )
        for c in study.controls
    ]
    for name, layer in (("embedding_layer_alone", 0), ("final_layer_alone", len(study.verdicts) - 1)):
        for number, kind in enumerate(KINDS):
            ndcg = study.ndcg[number][layer]
            rows.append(
                {
                    "control": name,
                    "kind": kind,
                    "layer": layer,
                    "ndcg_at_5": ndcg.value,
                    "low": ndcg.low,
                    "high": ndcg.high,
                }
            )
    frame = pd.DataFrame(rows)
    frame["chance"] = study.chance
    return frame


def selection_facts(study: Study, rule: SelectionRule) -> dict[str, Any]:
    """Return what ``selection.json`` holds."""
    random = study.random_selection
    final = len(study.verdicts) - 1
    alone = study.ndcg[KINDS.index(study.verdicts[final].chosen)][final]
    return {
        "rule": rule.rule,
        "top_k": rule.top_k,
        "delta": rule.delta,
        "min_gain": rule.min_gain,
        "selected_layers": list(study.selected),
        "kinds": [study.verdicts[layer].chosen for layer in study.selected],
        "chosen_kinds_of_all_layers": [verdict.chosen for verdict in study.verdicts],
        "fused_validation_ndcg_at_5": vars(study.fused),
        "final_layer_validation_ndcg_at_5": vars(alone),
        "selection_frequency": study.stability.frequency.tolist(),
        "same_set_share": study.stability.exact,
        "resamples": study.stability.n_resamples,
        "seeds": study.stability.n_seeds,
        "selected_by_seed": [list(layers) for layers in study.stability.by_seed],
        "random_labels": None if random is None else vars(random),
        "caution": "layers, kinds and best epochs were chosen on the same validation queries as these scores, which "
        "are therefore too good; only another split can say by how much",
    }


def study_records(
    study: Study,
    *,
    model: str,
    model_revision: str,
    dataset: str,
    split: str,
    width: int,
    seed: int,
    query_ids: tuple[str, ...],
) -> list[Record]:
    """Return every number as a record, nDCG@5 of every query at every layer too.

    Parameters
    ----------
    study : Study
        What was found out.
    model, model_revision, dataset, split : str
        What it was found out about.
    width : int
        D, the number of neurons of a layer.
    seed : int
        Seed of bootstrap, permutations and the first training.
    query_ids : tuple [Q] of str
        Ids of the validation queries.
    """
    common: dict[str, Any] = {
        "model": model,
        "model_revision": model_revision,
        "dataset": dataset,
        "split": split,
        "side": study.side,
        "d": width,
        "seed": seed,
    }
    records = [Record(**common, **fields) for fields in _summaries(study)]
    per_query = {"raw": study.raw_per_query}
    per_query |= {kind: study.fits[0].ndcg[number] for number, kind in enumerate(KINDS)}
    for system, values in per_query.items():
        for layer, row in enumerate(values):
            records += [
                Record(**common, system=system, measure=MEASURE, value=float(value), layer=layer, query_id=query_id)
                for query_id, value in zip(query_ids, row, strict=True)
            ]
    return records


def _summaries(study: Study) -> Iterator[dict[str, Any]]:
    over = "queries" if study.raw[0].n_clusters is None else "documents"
    bootstrap = f"bootstrap over {over}, BCa"
    for layer, verdict in enumerate(study.verdicts):
        systems: list[tuple[str, Interval]] = [("raw", study.raw[layer])]
        systems += [(kind, study.ndcg[number][layer]) for number, kind in enumerate(KINDS)]
        for system, interval in systems:
            yield {"system": system, "measure": MEASURE, "layer": layer, **interval.record_fields(bootstrap)}
        yield {
            "measure": "projection_benefit",
            "layer": layer,
            **verdict.benefit.record_fields(f"paired {bootstrap}; permutation, Holm"),
            "p_value": verdict.p_holm,
        }
        for measure, view in (
            (study.ratio_name, study.page_final[layer]),
            ("alignment_ratio_query_page", study.query_page[layer]),
        ):
            ratio = ratio_of(view)
            if view is not None and ratio is not None:
                yield {"measure": measure, "layer": layer, "value": ratio, "n": view.n, "estimator": view.estimator}
        yield {"measure": "selection_frequency", "layer": layer, "value": float(study.stability.frequency[layer])}
        for number, kind in enumerate(KINDS):
            yield {
                "system": kind,
                "measure": "best_epoch",
                "layer": layer,
                "value": float(study.fits[0].best_epoch[number, layer]),
            }
    for correlation in study.correlations:
        yield {
            "measure": f"spearman_{correlation.predictor}",
            **correlation.rho.record_fields(f"bootstrap over {over}, percentile; p over orders of the layers"),
            "p_value": correlation.p_value,
        }
    for control in study.controls:
        probe = {"system": control.kind, "layer": control.layer}
        yield {**probe, "measure": f"{control.name}_{MEASURE}", **control.ndcg.record_fields(bootstrap)}
        if control.over_start is not None:
            yield {
                **probe,
                "measure": f"{control.name}_over_start",
                **control.over_start.record_fields(f"paired {bootstrap}"),
            }
    yield {"system": "selected_layers", "measure": MEASURE, **study.fused.record_fields(bootstrap)}
    yield {"measure": "chance_ndcg_at_5", "value": study.chance}


def rule_facts(study: Study, threshold: float) -> dict[str, Any]:
    """Return how well the alignment ratio predicts, for ``run.json``."""
    facts: dict[str, Any] = {}
    for which, stop in (("all_layers", len(study.verdicts)), ("inner_layers", len(study.verdicts) - 1)):
        ratios, verdicts = study.ratios[:stop], study.verdicts[:stop]
        hits, n = left_out_hits(ratios, verdicts)
        facts[which] = {
            "given": vars(score_rule(ratios, verdicts, threshold)),
            "best": vars(best_threshold(ratios, verdicts)),
            "left_out": {"hits": hits, "n": n},
        }
    facts["spearman"] = {
        correlation.predictor: {**vars(correlation.rho), "p": correlation.p_value} for correlation in study.correlations
    }
    return facts


def sentences(study: Study, threshold: float) -> list[str]:
    """Return what a person takes away: kinds, layers, and whether the alignment ratio could have told."""
    kinds = {kind: [v.layer for v in study.verdicts if v.preferred == kind] for kind in (*KINDS, None)}
    lines = [
        f"Validation prefers a normalized projection at {_layers(kinds['normalized_projection'])}, a base probe at "
        f"{_layers(kinds['base'])}, and can't tell them apart at {_layers(kinds[None])} (taken as base)."
    ]
    lines.append(
        f"Kept: {_layers(list(study.selected))}, summed scores {study.fused} nDCG@5; {study.stability.exact:.0%} of "
        f"{study.stability.n_resamples * study.stability.n_seeds} resamples keep the same set. Chosen and scored on "
        "the same queries, so this is too good."
    )
    given = score_rule(study.ratios, study.verdicts, threshold)
    best = best_threshold(study.ratios, study.verdicts)
    hits, n = left_out_hits(study.ratios, study.verdicts)
    lines.append(
        f"The alignment ratio names the preferred kind at {_of(given)} layers with threshold {threshold:g}, at "
        f"{_of(best)} with the best one ({best.threshold:g}, chosen on the same layers), at {hits} of {n} if each "
        "layer is left out of that choice."
    )
    for reading in list(study.readings)[1:]:
        ratios = study.readings[reading]
        if any(ratio is not None for ratio in ratios):
            other, (hits, n) = best_threshold(ratios, study.verdicts), left_out_hits(ratios, study.verdicts)
            lines.append(
                f"Another reading, {reading}: {_of(score_rule(ratios, study.verdicts, threshold))} with threshold "
                f"{threshold:g}, {_of(other)} with the best one ({other.threshold:g}), {hits} of {n} left out."
            )
    correlations = {correlation.predictor: correlation for correlation in study.correlations}
    of_ratio = correlations.get(study.ratio_name)
    if of_ratio is not None:
        verb = "agrees with" if of_ratio.rho.high < 0 and of_ratio.p_value < 0.05 else "does not establish"
        text = ", ".join(
            f"{c.predictor} {c.rho.value:+.2f} [{c.rho.low:+.2f}, {c.rho.high:+.2f}], p {c.p_value:.2g}"
            for c in study.correlations
        )
        lines.append(
            f"Spearman with the benefit of projection: {text}. This {verb} the paper's claim that layers of "
            "low ratio gain most."
        )
    lines += _control_sentences(study)
    if given.n and given.hits <= max(sum(v.preferred == kind for v in study.verdicts) for kind in KINDS):
        lines.append(
            "The alignment ratio names kinds no better than naming one kind for all layers: a poor predictor here."
        )
    return lines


def _control_sentences(study: Study) -> list[str]:
    by_name: dict[str, list[Control]] = {}
    for control in study.controls:
        by_name.setdefault(control.name, []).append(control)
    if not by_name:
        return []
    added = [(c, c.over_start) for c in by_name["shuffled_training"] if c.over_start is not None]
    gained = [c for c, over in added if over.low > 0]
    most, over = max(added, key=lambda pair: pair[1].value)
    broken, true, shuffled = (
        " to ".join(f"{end(c.ndcg.value for c in by_name[name]):.3f}" for end in (min, max))
        for name in ("shuffled_pairs", "unaligned_true", "unaligned_shuffled")
    )
    return [
        f"Controls (chance {study.chance:.3f}): probes fitted to and evaluated on shuffled pairs reach {broken}. From "
        f"a start that knows nothing, projections reach {true} with true pairs and {shuffled} with shuffled ones. "
        f"Fitted to shuffled and evaluated on true pairs, {len(gained)} of {len(added)} probes end above their start, "
        f"by at most {over} ({most.kind} of layer {most.layer}): that much needs no pairs."
    ]


def _of(score: RuleScore) -> str:
    return f"{score.hits} of {score.n}"


def _layers(layers: list[int]) -> str:
    if not layers:
        return "no layer"
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(str(layer) for layer in layers)
