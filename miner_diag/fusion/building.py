"""From fitted probes to a fusion before training: what it is built of, its maps, and its starting point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from miner_diag.fusion.masks import MaskOptions, neuron_masks
from miner_diag.fusion.model import Fusion, check_layers, projection_map
from miner_diag.fusion.whitening import whitening_map
from miner_diag.probes.fitted_probes import FittedProbes
from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.probes.probe_stack import ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData

Final = Literal["as_is", "gate", "projection"]
"""What the final layer passes on its way into the fusion."""

StartOfFinal = Literal["identity", "whitened"]
"""Where the final layer's matrix starts."""


@dataclass(frozen=True)
class FusionConfig:
    """What a fusion is built of."""

    final: Final = "projection"
    """What the final layer passes: nothing (as_is), a weight for each neuron (gate), or a matrix (projection)."""
    start: StartOfFinal = "whitened"
    """Where the final layer's matrix, and that of every head, starts: at the identity (the final layer itself, so that
    the fusion starts as the backbone) or whitened (by the covariance of training pages, without labels)."""
    shrinkage: float = 0.5
    """The shrinkage of that covariance: above 0 (nearly full whitening) to 1 (the identity)."""
    train_probes: bool = True
    """Train the probes of the inner layers further."""
    bias: bool = True
    """Learn the global bias."""
    inner_weight: float = 0.3
    """The sum of the inner layers' weights at the start, shared out evenly; the final layer's weight is 1. With 0 and
    start identity the fusion starts as the backbone itself."""

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.final not in ("as_is", "gate", "projection"):
            raise ValueError(f"final must be as_is, gate or projection; got {self.final!r}")
        if self.start not in ("identity", "whitened"):
            raise ValueError(f"start must be identity or whitened; got {self.start!r}")
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage must be above 0 and at most 1; got {self.shrinkage}")

    def final_map(self, train: RetrievalData) -> np.ndarray | None:
        """Return what the final layer's matrix starts from, [D, D]; None for the identity."""
        return whitening_map(train.pages, self.shrinkage) if self.start == "whitened" else None


def build_fusion(
    probes: FittedProbes,
    layers: tuple[int, ...],
    config: FusionConfig,
    mask: MaskOptions,
    rng: np.random.Generator,
    kinds: tuple[Kind, ...] | None = None,
    *,
    final_map: np.ndarray | None = None,
) -> Fusion:
    """Return a fusion before training; with `config.inner_weight` 0 and no `final_map` it is the backbone.

    Parameters
    ----------
    probes : FittedProbes
        Probes, their scores and salience.
    layers : tuple of int [K]
        Rising, the final layer last.
    config, mask : FusionConfig, MaskOptions
        What is trained, and which neurons are kept.
    rng : Generator
        Generator for random masks.
    kinds : tuple of str [L], optional
        The kind of probe for each layer, instead of the chosen ones.
    final_map : ndarray [D, D], optional
        Where the matrix of the final layer starts (`FusionConfig.final_map`); the identity if it is not given.
        Projections of inner layers, which were fitted to speak as the final layer does, pass through it.

    Raises
    ------
    FusionError
        If `layers` are not rising layers of the backbone that end with the final one.
    """
    check_layers(layers, probes.n_layers)
    kinds = kinds or probes.kinds
    width = probes.width
    kind_numbers = [KINDS.index(kind) for kind in kinds]
    every = np.arange(probes.n_layers)
    salience, scores = probes.salience[kind_numbers, every], probes.scores[kind_numbers, every]
    masks = neuron_masks(salience, scores, mask, rng)[list(layers)]
    maps = [_map_of(probes.stack, layer, kinds[layer], final_map) for layer in layers[:-1]]
    n_sides = len(probes.stack.gates[0])
    if config.final == "projection":
        start = np.eye(width, dtype=np.float32) if final_map is None else final_map
        maps.append(np.repeat(start[None], n_sides, axis=0))
    else:
        maps.append(np.ones((n_sides, width), dtype=np.float32))
    kinds_of_parts: list[Kind] = [kinds[layer] for layer in layers[:-1]]
    kinds_of_parts.append("normalized_projection" if config.final == "projection" else "base")
    weights = np.full(len(layers), config.inner_weight / max(1, len(layers) - 1), dtype=np.float32)
    weights[-1] = 1.0
    bias = np.zeros(width, dtype=np.float32)
    fusion = Fusion(layers, kinds_of_parts, maps, masks, weights, bias, n_layers=probes.n_layers)
    for number, matrix in enumerate(fusion.maps):
        is_final = number == len(layers) - 1
        matrix.requires_grad_(config.final != "as_is" if is_final else config.train_probes)
    fusion.bias.requires_grad_(config.bias)
    return fusion


def with_random_masks(fusion: Fusion, rng: np.random.Generator) -> Fusion:
    """Return the fusion with as many neurons kept in each inner layer, but any."""
    for number in range(len(fusion.layers) - 1):
        fusion.masks[number] = fusion.masks[number][torch.from_numpy(rng.permutation(fusion.width))]
    return fusion


def _map_of(stack: ProbeStack, layer: int, kind: Kind, final_map: np.ndarray | None) -> np.ndarray:
    probe = stack.probe(layer, kind)
    if kind == "base":
        return probe.weight
    matrix = projection_map(probe)
    if final_map is not None:
        matrix = final_map @ matrix
    # rows of length one on average, as those the final layer starts from: one learning rate for all
    return matrix / np.sqrt(np.square(matrix).sum(axis=(-1, -2), keepdims=True) / matrix.shape[-1])
