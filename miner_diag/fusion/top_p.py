"""Adaptive Top-P, MINER's mask: the fewest neurons that hold a share of a layer's saliency, which follows its score.

The rule is on the authors' page; how the share follows the score, its two ends and the floor are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner_diag.arrays import real_array
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.masks import adaptive_shares
from miner_diag.probes.salience import check_share, neurons_for


@dataclass(frozen=True)
class TopPOptions:
    """Which input neurons of a layer are kept; the final layer always keeps all of its own."""

    least_eta: float = 0.5
    """eta of the selected inner layer with the lowest validation nDCG@5: the share of its saliency that its kept
    neurons hold. It rises linearly with the score."""
    most_eta: float = 0.9
    """eta of the selected inner layer with the highest validation nDCG@5. A single inner layer has it."""
    floor: int = 16
    """The smallest number of neurons that a layer keeps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("least_eta", "most_eta"):
            check_share(getattr(self, name), name)
        if self.least_eta > self.most_eta:
            raise ValueError(f"least_eta must be at most most_eta, {self.most_eta}; got {self.least_eta}")
        if self.floor < 1:
            raise ValueError(f"floor must be at least 1; got {self.floor}")


def top_p_mask(saliency: np.ndarray, eta: float, floor: int = 1) -> np.ndarray:
    """Return bool [D], True for the smallest set of neurons that holds the share `eta` of the saliency.

    Parameters
    ----------
    saliency : ndarray [D]
        At least 0; of equal neurons the first is kept.
    eta : float
        Above 0, at most 1.
    floor : int
        The smallest number of neurons that is kept; all D if there are fewer.

    Raises
    ------
    FusionError
        If all neurons have saliency 0: then nothing says which to keep.
    ValueError
        If `eta` is out of range, or the saliency is negative or not finite.

    Examples
    --------
    >>> top_p_mask(np.array([0.1, 0.5, 0.0, 0.4]), 0.8)
    array([False,  True, False,  True])
    """
    values = real_array(saliency, "saliency").astype(np.float64)
    if values.size and not values.any():
        raise FusionError(
            "all neurons have saliency 0, so Top-P cannot say which to keep; lower the L1 weight of the probes"
        )
    kept = max(neurons_for(values, eta), min(floor, len(values)))
    mask = np.zeros(len(values), dtype=bool)
    mask[np.argsort(-values, kind="stable")[:kept]] = True
    return mask


def adaptive_etas(scores: np.ndarray, options: TopPOptions) -> np.ndarray:
    """Return eta [K - 1] of the selected inner layers, rising with their validation scores [K - 1]."""
    return adaptive_shares(scores, options.least_eta, options.most_eta) if len(scores) else np.zeros(0)
