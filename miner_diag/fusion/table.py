"""Tables of the fusion: the ablation, its weights, seeds and widths, and the sentences a person takes away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from miner_diag.fusion.judge import SystemComparison
from miner_diag.fusion.result import TrainedSystem
from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.records import Record
from miner_diag.stats import Interval

TARGET = 0.045
"""MINER's headline, relative to the backbone's nDCG@5 ("up to 4.5 %"): published, not run here."""


def ablation_table(judged: Mapping[str, Sequence[SystemComparison]], entries: Sequence[TrainedSystem]) -> pd.DataFrame:
    """Return ``ablation.csv``: a row per split and system.

    Parameters
    ----------
    judged : dict
        Split -> its judgements.
    entries : sequence of TrainedSystem
        What was trained; systems without one (bounds) have empty cells.
    """
    known = {entry.name: entry for entry in entries}
    rows = []
    for split, found in judged.items():
        base = next(j for j in found if j.name == "backbone").ndcg.value
        for j in found:
            entry = known.get(j.name)
            rows.append(
                {
                    "system": j.name,
                    "split": split,
                    **_judged(j, base),
                    "n_parameters": None if entry is None else entry.n_parameters,
                    "seconds": None if entry is None else round(entry.seconds, 2),
                    "n_seeds": None if entry is None else len(entry.runs),
                    "what": "upper bound: uses the answers" if entry is None else entry.what,
                }
            )
    return pd.DataFrame(rows)


def _judged(j: SystemComparison, base: float) -> dict[str, Any]:
    """Return the columns of a judgement; `base` is the backbone's nDCG@5."""
    return {
        "ndcg_at_5": j.ndcg.value,
        "low": j.ndcg.low,
        "high": j.ndcg.high,
        **_difference("difference_to_backbone", "", j.to_backbone),
        "p_holm": j.p_backbone,
        "verdict": j.verdict,
        "relative": None if j.to_backbone is None else j.to_backbone.value / base,
        **_difference("difference_to_head", "head_", j.to_head),
        "head_p_holm": j.p_head,
        "head_verdict": j.verdict_to_head,
    }


def _difference(name: str, prefix: str, interval: Interval | None) -> dict[str, float | None]:
    ends = ("difference_low", "difference_high")
    if interval is None:
        return dict.fromkeys((name, *(prefix + end for end in ends)))
    return {name: interval.value, prefix + ends[0]: interval.low, prefix + ends[1]: interval.high}


def weights_table(fusion: TrainedSystem) -> pd.DataFrame:
    """Return ``weights.csv``: weight and kept neurons of each layer, for each seed."""
    rows = []
    for number, run in enumerate(fusion.runs):
        model = run.system
        masks = model.masks.numpy() > 0
        for place, layer in enumerate(model.layers):
            rows.append(
                {
                    "seed": fusion.options.seed + number,
                    "layer": layer,
                    "kind": model.kinds[place],
                    "weight": float(model.layer_weights[place]),
                    "kept_share": float(masks[place].mean()),
                    "kept_neurons": int(masks[place].sum()),
                }
            )
    return pd.DataFrame(rows)


def seeds_table(entries: Sequence[TrainedSystem], test: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return ``seeds.csv``: validation and test nDCG@5 of each training."""
    rows = []
    for entry in entries:
        for number, run in enumerate(entry.runs):
            rows.append(
                {
                    "system": entry.name,
                    "seed": entry.options.seed + number,
                    "validation_ndcg_at_5": run.score,
                    "test_ndcg_at_5": float(test[entry.name][number].mean()),
                    "best_epoch": run.best_epoch,
                    "epochs": len(run.loss),
                    "learning_rate": entry.options.learning_rate,
                    "weight_learning_rate": entry.options.weight_learning_rate,
                }
            )
    return pd.DataFrame(rows)


def curve_table(entries: Sequence[TrainedSystem]) -> pd.DataFrame:
    """Return ``training.csv``: validation nDCG@5 and loss after each epoch of each training."""
    rows = []
    for entry in entries:
        for number, run in enumerate(entry.runs):
            for epoch, score in enumerate(run.curve if len(run.curve) > 1 else ()):
                rows.append(
                    {
                        "system": entry.name,
                        "seed": entry.options.seed + number,
                        "epoch": epoch,
                        "validation_ndcg_at_5": score,
                        "loss": run.loss[epoch - 1] if epoch else None,
                    }
                )
    return pd.DataFrame(rows)


def width_table(entries: Sequence[TrainedSystem], judged: RetrievalData, device: Any = "cpu") -> pd.DataFrame:
    """Return ``widths.csv``: nDCG@5 of the first D, D/2, D/4 and D/8 coordinates, mean over seeds."""
    rows = []
    for entry in entries:
        for part in (1, 2, 4, 8):
            width = max(1, judged.width // part)
            found = entry.ndcg(judged, device, width)
            rows.append({"system": entry.name, "width": width, "share": 1 / part, "ndcg_at_5": float(found.mean())})
    return pd.DataFrame(rows)


def per_query(
    values: dict[str, dict[str, np.ndarray]], query_ids: dict[str, tuple[str, ...]], **common: Any
) -> Iterator[Record]:
    """Yield nDCG@5 of every query, mean over seeds, for each split and system."""
    for split, systems in values.items():
        for name, found in systems.items():
            for query_id, value in zip(query_ids[split], found.mean(axis=0), strict=True):
                yield Record(**common, split=split, measure=f"{name}_ndcg_at_5", value=float(value), query_id=query_id)


def pooled_table(judged: Sequence[SystemComparison]) -> pd.DataFrame:
    """Return ``pooled.csv``: backbone, head and fusion on the test documents of all document splits together."""
    base = next(j for j in judged if j.name == "backbone").ndcg.value
    rows = []
    for j in judged:
        rows.append(
            {
                "system": j.name,
                **_judged(j, base),
                "n_queries": j.ndcg.n,
                "n_documents": j.ndcg.n_clusters,
            }
        )
    return pd.DataFrame(rows)


def sentences(judged: Sequence[SystemComparison], head: str, where: str = "test") -> list[str]:
    """Return what the ablation says on test documents (`where` names them), in words."""
    found = {j.name: j for j in judged}
    backbone, fusion = found["backbone"], found["fusion"]
    assert fusion.to_backbone is not None and fusion.to_head is not None
    base = backbone.ndcg.value
    told = [
        f"{where}: backbone {backbone.ndcg}, fusion {fusion.ndcg}: {fusion.to_backbone.value:+.4f} "
        f"[{fusion.to_backbone.low:+.4f}, {fusion.to_backbone.high:+.4f}], {fusion.to_backbone.value / base:+.1%} "
        f"relative, p Holm {fusion.p_backbone:.3f}: {fusion.verdict}."
    ]
    beyond = fusion.to_head
    told.append(
        f"Beyond {head}, a head on the final layer alone with the same data and budget: {beyond.value:+.4f} "
        f"[{beyond.low:+.4f}, {beyond.high:+.4f}], p Holm {fusion.p_head:.3f}: {fusion.verdict_to_head}."
    )
    reached = fusion.verdict == "better" and fusion.verdict_to_head == "better"
    reached = reached and fusion.to_backbone.value >= TARGET * base
    told.append(
        f"Target (at least {TARGET:+.1%}, better than the backbone and than the head): "
        f"{'reached' if reached else 'not reached'} on {where}."
    )
    bound = found.get("oracle_layer")
    if bound is not None:
        told.append(f"An oracle that picks the best layer for each query would reach {bound.ndcg.value:.4f}.")
    return told
