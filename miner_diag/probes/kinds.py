"""The two kinds of probe as functions of tensors; leading dimensions are layers, so all layers are one product."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Kind = Literal["base", "normalized_projection"]

KINDS: tuple[Kind, ...] = ("base", "normalized_projection")
"""In the order in which arrays of both kinds hold them."""


def unit(vectors: Tensor) -> Tensor:
    """Return the vectors at length one; a zero vector stays zero."""
    return functional.normalize(vectors, dim=-1)


def base_probe(gate: Tensor, vectors: Tensor) -> Tensor:
    """Return ``normalize(g * normalize(h))``: a weight for each neuron, in the layer's own coordinates.

    Parameters
    ----------
    gate : Tensor [..., D]
        g, one weight per neuron.
    vectors : Tensor [..., N, D]
        h, pooled states.
    """
    return unit(gate.unsqueeze(-2) * unit(vectors))


def projection_probe(weight: Tensor, vectors: Tensor) -> Tensor:
    """Return ``normalize(W LayerNorm(h))``: new coordinates, each a mixture of all neurons.

    LayerNorm has no weights of its own (W would take them in), and because the result is normalised its division by the
    deviation changes nothing either: what it does here is to take each vector's mean over neurons out.

    Parameters
    ----------
    weight : Tensor [..., D, D]
        W, a row per output coordinate.
    vectors : Tensor [..., N, D]
        h, pooled states.
    """
    return unit(functional.layer_norm(vectors, vectors.shape[-1:]) @ weight.transpose(-1, -2))


def both_probes(gate: Tensor, weight: Tensor, vectors: Tensor, *, fixed: bool = False) -> Tensor:
    """Return the outputs [2, ..., N, D] of both kinds, in the order of `KINDS`; twice the vectors if `fixed`."""
    if fixed:
        return torch.stack([unit(vectors)] * 2)
    return torch.stack([base_probe(gate, vectors), projection_probe(weight, vectors)])
