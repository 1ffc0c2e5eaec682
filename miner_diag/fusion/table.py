"""Tables and records of a fusion run: weights, seeds, training curves, and validation nDCG@5 of every query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from miner_diag.fusion.form import FusionForm
from miner_diag.fusion.tuning import TrainedSystem
from miner_diag.probes.splits import Split
from miner_diag.records import Record

MEASURE = "ndcg_at_5"
"""What records call nDCG@5."""


def weights_table(fusion: TrainedSystem) -> pd.DataFrame:
    """Return ``weights.csv``: weight and kept neurons of each layer, for each seed.

    The weight of MINER's form is the root mean square of the layer's vector u_l.
    """
    rows = []
    for seed, run in zip(fusion.seeds, fusion.runs, strict=True):
        system = run.system
        assert isinstance(system, FusionForm)
        masks, layer_weights = system.masks.numpy() > 0, system.weights()
        for number, layer in enumerate(system.layers):
            rows.append(
                {
                    "seed": seed,
                    "layer": layer,
                    "kind": system.kinds[number],
                    "weight": float(layer_weights[number]),
                    "kept_share": float(masks[number].mean()),
                    "kept_neurons": int(masks[number].sum()),
                }
            )
    return pd.DataFrame(rows)


def seeds_table(systems: Sequence[TrainedSystem]) -> pd.DataFrame:
    """Return ``seeds.csv``: validation nDCG@5 of each training, and what validation chose for it."""
    rows = []
    for system in systems:
        is_trained = system.n_parameters > 0
        for seed, run in zip(system.seeds, system.runs, strict=True):
            rows.append(
                {
                    "system": system.name,
                    "role": system.role,
                    "seed": seed,
                    "validation_ndcg_at_5": run.score,
                    "best_epoch": run.best_epoch,
                    "epochs": len(run.loss),
                    "learning_rate": system.training.learning_rate if is_trained else None,
                    "weight_learning_rate": system.training.weight_learning_rate if is_trained else None,
                    "n_parameters": system.n_parameters,
                    "seconds": round(run.seconds, 2),
                }
            )
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def training_table(systems: Sequence[TrainedSystem]) -> pd.DataFrame:
    """Return ``training.csv``: validation nDCG@5 and loss after each epoch of each training."""
    rows = []
    for system in systems:
        for seed, run in zip(system.seeds, system.runs, strict=True):
            for epoch, score in enumerate(run.curve if len(run.curve) > 1 else ()):
                rows.append(
                    {
                        "system": system.name,
                        "seed": seed,
                        "epoch": epoch,
                        "validation_ndcg_at_5": score,
                        "loss": run.loss[epoch - 1] if epoch else None,
                    }
                )
    return pd.DataFrame(rows, columns=["system", "seed", "epoch", "validation_ndcg_at_5", "loss"])


def fusion_records(
    systems: Sequence[TrainedSystem], validation: Split, *, model: str, model_revision: str
) -> Iterator[Record]:
    """Yield nDCG@5 of every validation query for each system and seed, its mean, and the fusion's weights.

    Parameters
    ----------
    systems : sequence of TrainedSystem
        What was trained.
    validation : Split
        What it was evaluated on.
    model, model_revision : str
        The backbone.
    """
    corpus, query_ids = validation.corpus, validation.data.relevance.query_ids
    row = partial(Record, model=model, model_revision=model_revision, dataset=corpus.name, split=corpus.part)
    for system in systems:
        value = row(measure=MEASURE, system=system.name, value=0.0)
        yield replace(value, value=float(system.validation.mean()), n=len(query_ids))
        for seed, ndcg in zip(system.seeds, system.validation, strict=True):
            for query_id, of_query in zip(query_ids, ndcg, strict=True):
                yield replace(value, value=float(of_query), query_id=query_id, seed=seed)
        if system.role == "fusion":
            for weights in weights_table(system).to_dict("records"):
                part = replace(value, seed=int(weights["seed"]), layer=int(weights["layer"]))
                yield replace(part, measure="layer_weight", value=weights["weight"])
                yield replace(part, measure="kept_share", value=weights["kept_share"])
