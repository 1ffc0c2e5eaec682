"""Neuron masks: which output coordinates of a layer's probe go into the fused vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from miner_diag.arrays import finite_array, real_array
from miner_diag.probes.salience import check_share, neurons_for

Rule = Literal["adaptive", "cumulative", "fixed", "random", "none"]


@dataclass(frozen=True)
class MaskOptions:
    """Which neurons of an inner layer are kept; the final layer always keeps all of its own."""

    mask: Rule = "adaptive"
    """Which neurons are kept. adaptive keeps a share that grows with the layer's validation score. cumulative keeps as
    many as hold that share of the salience. fixed keeps the same share everywhere. random keeps the adaptive shares,
    but any neurons. none keeps all neurons."""
    min_share: float = 0.5
    """The share that is kept at the layer with the lowest score (adaptive, cumulative, random)."""
    max_share: float = 1.0
    """The share that is kept at the layer with the highest score (adaptive, cumulative, random)."""
    share: float = 0.5
    """The share that fixed keeps; the system fixed_mask of the ablation has it, too."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("min_share", "max_share", "share"):
            check_share(getattr(self, name), name)
        if self.min_share > self.max_share:
            raise ValueError(f"min_share must be at most max_share, {self.max_share}; got {self.min_share}")


def adaptive_shares(scores: np.ndarray, min_share: float, max_share: float) -> np.ndarray:
    """Return ``rho_l = rho_min + (rho_max - rho_min) * minmax(v_l)``, a share for each layer.

    Parameters
    ----------
    scores : ndarray [L]
        v_l, validation scores of the layers' probes. If all are equal nothing tells them apart: all get `max_share`.
    min_share, max_share : float
        The shares rho_min and rho_max.

    Examples
    --------
    >>> adaptive_shares(np.array([0.1, 0.2, 0.3]), 0.2, 1.0)
    array([0.2, 0.6, 1. ])
    """
    scores = real_array(scores, "scores").astype(np.float64)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError("scores must be finite: one validation score for each layer")
    for name, share in (("min_share", min_share), ("max_share", max_share)):
        check_share(share, name)
    if min_share > max_share:
        raise ValueError(f"min_share must be at most max_share, {max_share}; got {min_share}")
    spread = scores.max() - scores.min()
    position = (scores - scores.min()) / spread if spread > 0 else np.ones_like(scores)
    return min_share + (max_share - min_share) * position


def neuron_mask(salience: np.ndarray, share: float) -> np.ndarray:
    """Return bool [D], True for the ``round(share * D)`` most salient neurons, one at least; of equals the first.

    Examples
    --------
    >>> neuron_mask(np.array([0.1, 0.7, 0.2, 0.0]), 0.5)
    array([False,  True,  True, False])
    """
    check_share(share, "share")
    values = finite_array(salience, "salience")
    if values.ndim != 1:
        raise ValueError(f"salience must be [D], one number for each neuron; got {list(values.shape)}")
    return _first(np.argsort(-values, kind="stable"), round(share * len(values)))


def neuron_masks(
    salience: np.ndarray, scores: np.ndarray, options: MaskOptions, rng: np.random.Generator
) -> np.ndarray:
    """Return the masks bool [L, D] of all layers; the last is True everywhere.

    Parameters
    ----------
    salience : ndarray [L, D]
        Salience of the neurons for the kind of probe that each layer uses, at least 0.
    scores : ndarray [L]
        Validation scores of those probes.
    options : MaskOptions
        The rule.
    rng : Generator
        Generator for the random rule.

    Raises
    ------
    ValueError
        If shapes do not fit, or salience is negative or not finite.
    """
    salience = real_array(salience, "salience").astype(np.float64)
    if salience.ndim != 2 or salience.shape[:1] != np.shape(scores):
        raise ValueError(f"salience [L, D] and scores [L] must fit; got {salience.shape} and {np.shape(scores)}")
    if not np.isfinite(salience).all() or (salience < 0).any():
        raise ValueError("salience must be finite and at least 0")
    shares = adaptive_shares(scores, options.min_share, options.max_share)
    width = salience.shape[1]
    masks = np.ones(salience.shape, dtype=bool)
    for layer in range(len(salience) - 1):
        if options.mask == "adaptive":
            masks[layer] = neuron_mask(salience[layer], shares[layer])
        elif options.mask == "fixed":
            masks[layer] = neuron_mask(salience[layer], options.share)
        elif options.mask == "random":
            masks[layer] = _first(rng.permutation(width), round(shares[layer] * width))
        elif options.mask == "cumulative" and salience[layer].any():
            order = np.argsort(-salience[layer], kind="stable")
            masks[layer] = _first(order, neurons_for(salience[layer], shares[layer]))
    return masks


def _first(order: np.ndarray, n: int) -> np.ndarray:
    mask = np.zeros(len(order), dtype=bool)
    mask[order[: max(1, n)]] = True
    return mask
