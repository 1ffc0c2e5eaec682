"""One fusion, fitted: what a user calls who wants the vector and not the ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.fusion.building import FusionConfig, build_fusion
from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.training import FusionTrainOptions, TrainedRun, train
from miner_diag.probes.fitted_probes import FittedProbes
from miner_diag.probes.retrieval_data import RetrievalData


def fit_fusion(
    train_split: RetrievalData,
    validation: RetrievalData,
    probes: FittedProbes,
    training: FusionTrainOptions | None = None,
    *,
    layers: tuple[int, ...] | None = None,
    config: FusionConfig | None = None,
    mask: MaskOptions | None = None,
    device: Any = "cpu",
    state: Path | None = None,
    progress: bool = False,
) -> TrainedRun:
    """Fit a fusion of the selected layers on cached vectors.

    Parameters
    ----------
    train_split, validation : RetrievalData
        What it is fitted to, and what decides when to stop.
    probes : FittedProbes
        Probes, their scores, salience and selection.
    training : FusionTrainOptions, optional
        How it is trained; the defaults are used if this is not given.
    layers : tuple of int, optional
        The layers to fuse instead of the selected ones; rising, the final layer last.
    config, mask : FusionConfig, MaskOptions, optional
        What is trained, and which neurons are kept.
    device : str
        Where to train.
    state : path, optional
        File from which a stopped training goes on.
    progress : bool
        Show a bar after two seconds.

    Returns
    -------
    TrainedRun
        `system` is the fusion at its best epoch; where training did not help it is what it started from.

    Raises
    ------
    FusionError
        If the layers cannot be fused, or training fails; see `build_fusion` and `train`.
    """
    training = training or FusionTrainOptions()
    config = config or FusionConfig()
    fusion = build_fusion(
        probes,
        probes.selected if layers is None else layers,
        config,
        mask or MaskOptions(),
        np.random.default_rng([training.seed, 1]),
        final_map=config.final_map(train_split),
    )
    return train(fusion, train_split, validation, training, device=device, state=state, progress=progress)
