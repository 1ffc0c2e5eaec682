"""How much the choices matter: kept share, number of layers and threshold of the alignment ratio, on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from miner_diag.fusion.building import build_fusion
from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.rows import Materials
from miner_diag.fusion.training import FusionTrainOptions, train
from miner_diag.probes.compare_kinds import predicted_kinds
from miner_diag.probes.retrieval_data import RetrievalData


@dataclass(frozen=True)
class SensitivityOptions:
    """What the sensitivity table tries, on validation, with the first seed."""

    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Kept shares of inner layers (the fixed rule)."""
    n_layers: tuple[int, ...] = (2, 3, 5)
    """Numbers of layers; the layers are those whose probes score best on validation. A number above that of the
    backbone's layers is left out."""
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Thresholds of the alignment ratio, which then names the kinds of probe."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("shares", "n_layers", "thresholds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one value; got none")
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"shares must be above 0 and at most 1; got {self.shares}")
        if max(self.n_layers) < 2:
            raise ValueError(f"n_layers must hold a number from 2 on, one layer is none to fuse; got {self.n_layers}")


def sensitivity_table(
    materials: Materials,
    validation: RetrievalData,
    training: FusionTrainOptions,
    options: SensitivityOptions,
    *,
    device: Any = "cpu",
    state: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Return ``sensitivity.csv``: validation nDCG@5 of a trained fusion for each share, number of layers and threshold.

    Parameters
    ----------
    materials : Materials
        What fusions are built from; the mask is that of the table.
    validation : RetrievalData
        What the fusions are evaluated on.
    training : FusionTrainOptions
        How they are trained.
    options : SensitivityOptions
        What is tried.
    device : str
        Where to train.
    state : path, optional
        Folder of the states of trainings.
    report : callable, optional
        Gets a line for each training.
    """
    probes = materials.probes
    best = sorted(range(materials.final), key=lambda layer: -probes.scores[:, layer].max())
    table: list[dict[str, Any]] = []
    scores: dict[tuple[Any, ...], float] = {}
    for threshold in options.thresholds:
        kinds = tuple(predicted_kinds(probes.ratios, threshold))
        for n_layers in (n for n in options.n_layers if 2 <= n <= probes.n_layers):
            layers = (*sorted(best[: n_layers - 1]), materials.final)
            for share in options.shares:
                # thresholds that name the same kinds give the same fusion, which is trained once
                cell = (layers, tuple(kinds[layer] for layer in layers[:-1]), share)
                if cell not in scores:
                    mask = MaskOptions(mask="fixed", share=share)
                    rng = np.random.default_rng(0)
                    start = materials.start
                    system = build_fusion(probes, layers, materials.config, mask, rng, kinds, final_map=start)
                    name = f"sensitivity-{threshold:g}-{n_layers}-{share:g}"
                    path = None if state is None else state / f"{name}.safetensors"
                    run = train(system, materials.train, validation, training, device=device, state=path, name=name)
                    scores[cell] = run.score
                    if report is not None:
                        report(f"share {share:g}, layers {layers}, threshold {threshold:g}: {scores[cell]:.4f}")
                table.append(
                    {
                        "kept_share": share,
                        "n_layers": n_layers,
                        "threshold": threshold,
                        "layers": " ".join(map(str, layers)),
                        "kinds": " ".join(cell[1]),
                        "validation_ndcg_at_5": scores[cell],
                    }
                )
    return pd.DataFrame(table)


def with_seed_noise(
    table: pd.DataFrame, *, share: float, n_layers: int, threshold: float, scores: Sequence[float]
) -> pd.DataFrame:
    """Return the table with the columns default, seed_sd and n_seeds, which tell a choice from the luck of a seed.

    Parameters
    ----------
    table : DataFrame
        As `sensitivity_table` returns it.
    share, n_layers, threshold
        The default cell; no row is marked where it is not in the table.
    scores : sequence [S] of float
        Validation nDCG@5 of the same system from S seeds; their standard deviation is seed_sd, empty for one seed.
    """
    default = table["kept_share"].eq(share) & table["n_layers"].eq(n_layers) & table["threshold"].eq(threshold)
    seed_sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return table.assign(default=default, seed_sd=seed_sd, n_seeds=len(scores))
