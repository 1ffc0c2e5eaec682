"""What the fusion is compared with: heads on the final layer alone, mixes of raw layers, and untrained combinations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from miner_diag.probes.kinds import unit
from miner_diag.probes.probe_stack import Side
from miner_diag.probes.retrieval_data import Vectors, rows_of

_BLOCK = 1024  # items read at once


class ResidualHead(nn.Module):
    """``normalize(M u + V gelu(U u) + b)`` on the final layer's unit vector u.

    V starts at zero: the hidden neurons add nothing before training, and with M at the identity it is the backbone.

    Parameters
    ----------
    n_layers, width : int
        Of the backbone.
    n_hidden : int
        Hidden neurons: they give the head as many parameters as the fusion it is held against.
    rng : Generator
        For U.
    start : ndarray [D, D], optional
        Where M starts; the identity if not given.
    """

    def __init__(
        self, n_layers: int, width: int, n_hidden: int, rng: np.random.Generator, start: np.ndarray | None = None
    ) -> None:
        super().__init__()
        self.layers = (n_layers - 1,)
        inner = rng.normal(size=(n_hidden, width)).astype(np.float32)
        self.straight = nn.Parameter(torch.eye(width) if start is None else torch.from_numpy(start.copy()))
        self.inner = nn.Parameter(torch.from_numpy(inner))
        self.outer = nn.Parameter(torch.zeros(width, n_hidden))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for the final layer's states [N, 1, D]."""
        states = unit(vectors[:, 0])
        bent = nn.functional.gelu(states @ self.inner.T) @ self.outer.T
        return unit(states @ self.straight.T + bent + self.bias)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning rate, as the fusion's."""
        return {"maps": [self.straight, self.inner, self.outer], "weights": [self.bias]}


class LayerMix(nn.Module):
    """A weighted sum of raw layers, without probes, masks or bias.

    Parameters
    ----------
    n_layers : int
        L, all of which are mixed.
    form : {"softmax", "ratio"}
        softmax: AllenNLP's scalar mix (Peters et al. 2018), weights softmax(w); its scale does not change a cosine and
        is left out. ratio: sentence-transformers' WeightedLayerPooling, weights w / sum(w), all 1 at the start.
    """

    def __init__(self, n_layers: int, form: Literal["softmax", "ratio"]) -> None:
        super().__init__()
        self.layers, self.form = tuple(range(n_layers)), form
        self.mix = nn.Parameter(torch.zeros(n_layers) if form == "softmax" else torch.ones(n_layers))

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for the states [N, L, D] of all layers."""
        weights = self.mix.softmax(0) if self.form == "softmax" else self.mix / self.mix.sum()
        return unit(torch.einsum("l,nld->nd", weights, vectors))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning rate, as the fusion's."""
        return {"maps": [], "weights": [self.mix]}


class MeanOfLast(nn.Module):
    """The mean of the last k layers, each at length one; nothing is trained."""

    def __init__(self, n_layers: int, k: int) -> None:
        super().__init__()
        self.layers = tuple(range(max(0, n_layers - k), n_layers))

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for those layers' states [N, k, D]."""
        return unit(unit(vectors).mean(dim=1))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return no parameters."""
        return {"maps": [], "weights": []}


class ConcatPca(nn.Module):
    """The layers side by side, each at length one, reduced to D by the principal axes of the training items.

    Parameters
    ----------
    layers : sequence of int
        Which.
    sides : sequence of vectors
        Training queries and pages, [N, L, D] each: axes and centre are theirs alone.
    """

    def __init__(self, layers: Sequence[int], sides: Sequence[Vectors]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.centre: Tensor
        self.axes: Tensor
        width = sides[0].shape[2]
        n, total = 0, np.zeros(len(self.layers) * width)
        crossed = np.zeros((len(total), len(total)))
        for vectors in sides:
            for first in range(0, vectors.shape[0], _BLOCK):
                rows = np.arange(first, min(first + _BLOCK, vectors.shape[0]))
                block = (
                    _side_by_side(torch.from_numpy(np.array(rows_of(vectors, rows)[:, self.layers]))).double().numpy()
                )
                n, total, crossed = n + len(rows), total + block.sum(axis=0), crossed + block.T @ block
        centre = total / n
        axes = np.linalg.eigh(crossed / n - np.outer(centre, centre))[1][:, ::-1][:, :width]
        self.register_buffer("centre", torch.from_numpy(centre.astype(np.float32)))
        self.register_buffer("axes", torch.from_numpy(np.ascontiguousarray(axes, dtype=np.float32)))

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for those layers' states [N, K, D]."""
        return unit((_side_by_side(vectors) - self.centre) @ self.axes)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return no parameters."""
        return {"maps": [], "weights": []}


def _side_by_side(vectors: Tensor) -> Tensor:
    return unit(vectors).flatten(1)
