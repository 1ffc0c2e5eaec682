"""One fusion, fitted: what a user calls who wants the vector and not the ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.systems import Probed, Shape, build_fusion
from miner_diag.fusion.train import Trained, TrainingOptions, train
from miner_diag.probes.data import Judged


def fit_fusion(
    train_split: Judged,
    validation: Judged,
    probed: Probed,
    training: TrainingOptions | None = None,
    *,
    layers: tuple[int, ...] | None = None,
    shape: Shape | None = None,
    mask: MaskOptions | None = None,
    device: Any = "cpu",
    state: Path | None = None,
    progress: bool = False,
) -> Trained:
    """Fit a fusion of the selected layers on cached vectors.

    Parameters
    ----------
    train_split, validation : Judged
        What it is fitted to, and what decides when to stop.
    probed : Probed
        Probes, their scores, salience and selection.
    training : TrainingOptions, optional
        The defaults if not given.
    layers : tuple of int, optional
        Instead of the selected ones; rising, the final layer last.
    shape, mask : Shape, MaskOptions, optional
        What is trained, and which neurons are kept.
    device : str
        Where.
    state : path, optional
        File from which a stopped training goes on.
    progress : bool
        Show a bar after two seconds.

    Returns
    -------
    Trained
        `system` is the fusion at its best epoch; where training did not help it is what it started from.

    Raises
    ------
    FusionError
        If the layers cannot be fused, or training fails; see `build_fusion` and `train`.
    """
    training = training or TrainingOptions()
    shape = shape or Shape()
    fusion = build_fusion(
        probed,
        probed.selected if layers is None else layers,
        shape,
        mask or MaskOptions(),
        np.random.default_rng([training.seed, 1]),
        final_map=shape.final_map(train_split),
    )
    return train(fusion, train_split, validation, training, device=device, state=state, progress=progress)
