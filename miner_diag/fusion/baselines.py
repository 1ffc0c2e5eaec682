"""What the fusion is compared with: heads on the final layer alone, mixes of raw layers, single probes, a control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.model import Fusion
from miner_diag.fusion.system import System, check_side
from miner_diag.probes.kinds import Kind, base_probe, projection_probe, unit
from miner_diag.probes.probe_stack import Probe, Side
from miner_diag.probes.retrieval_data import Vectors, rows_of

_BLOCK = 1024  # items read at once


class FinalLayerHead(Fusion):
    """A head of a fusion's own form and size: each of its K parts reads the final layer."""

    @staticmethod
    def check_layers(layers: Sequence[int], n_layers: int) -> None:
        """Raise FusionError unless all layers are the final one."""
        if not len(layers) or set(layers) != {n_layers - 1}:
            raise FusionError(f"layers of a head must all be the final layer, {n_layers - 1}; got {list(layers)}")

    @classmethod
    def of(cls, fusion: Fusion, start: np.ndarray | None = None) -> FinalLayerHead:
        """Return the head of a fusion's form, with its masks, weights and choice of what is trained.

        Parameters
        ----------
        fusion : Fusion
            Before training.
        start : ndarray [D, D], optional
            Where every matrix starts; the fusion's own maps if it is not given.
        """
        maps = [matrix.detach().numpy() for matrix in fusion.maps]
        if start is not None:  # the fusion's maps are those of other layers; every part starts as the final one does
            maps = [np.repeat(start[None], len(matrix), axis=0) if matrix.ndim == 3 else matrix for matrix in maps]
        head = cls(
            (fusion.n_layers - 1,) * len(fusion.layers),
            fusion.kinds,
            maps,
            fusion.masks.numpy(),
            fusion.layer_weights.detach().numpy(),
            fusion.bias.detach().numpy(),
            n_layers=fusion.n_layers,
        )
        trained = {name: parameter.requires_grad for name, parameter in fusion.named_parameters()}
        for name, parameter in head.named_parameters():
            parameter.requires_grad_(trained[name])
        return head


class ResidualHead(System):
    """``normalize(M u + V gelu(U u) + b)`` on the final layer's unit vector u.

    V starts at zero: the hidden neurons add nothing before training, and with M at the identity it is the backbone.

    Parameters
    ----------
    n_layers, width : int
        Shape of the backbone.
    n_hidden : int
        Number of hidden neurons; it gives the head as many parameters as the fusion that it is compared with.
    rng : Generator
        Generator for U.
    start : ndarray [D, D], optional
        Where M starts; the identity if it is not given.
    """

    def __init__(
        self, n_layers: int, width: int, n_hidden: int, rng: np.random.Generator, start: np.ndarray | None = None
    ) -> None:
        super().__init__()
        self.layers, self.n_layers, self.width = (n_layers - 1,), n_layers, width
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
        """Return what is trained: matrices and the bias."""
        return {"maps": [self.straight, self.inner, self.outer], "weights": [self.bias]}

    def facts(self) -> dict[str, Any]:
        """Return the shape."""
        return {"n_layers": self.n_layers, "width": self.width, "n_hidden": len(self.inner)}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ResidualHead:
        """Return the head of these facts and tensors."""
        head = cls(facts["n_layers"], facts["width"], facts["n_hidden"], np.random.default_rng(0))
        _fill(head, tensors)
        return head


class LayerMix(System):
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
        self.layers, self.n_layers, self.width, self.form = tuple(range(n_layers)), n_layers, None, form
        self.mix = nn.Parameter(torch.zeros(n_layers) if form == "softmax" else torch.ones(n_layers))

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for the states [N, L, D] of all layers."""
        weights = self.mix.softmax(0) if self.form == "softmax" else self.mix / self.mix.sum()
        return unit(torch.einsum("l,nld->nd", weights, vectors))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what is trained: a number for each layer."""
        return {"maps": [], "weights": [self.mix]}

    def facts(self) -> dict[str, Any]:
        """Return the number of layers and the form."""
        return {"n_layers": self.n_layers, "form": self.form}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> LayerMix:
        """Return the mix of these facts and tensors."""
        mix = cls(facts["n_layers"], facts["form"])
        _fill(mix, tensors)
        return mix


class MeanOfLast(System):
    """The mean of the last k layers, each at length one; nothing is trained."""

    def __init__(self, n_layers: int, k: int) -> None:
        super().__init__()
        self.layers, self.n_layers, self.width = tuple(range(max(0, n_layers - k), n_layers)), n_layers, None

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for those layers' states [N, k, D]."""
        return unit(unit(vectors).mean(dim=1))

    def facts(self) -> dict[str, Any]:
        """Return how many layers there are and how many are taken."""
        return {"n_layers": self.n_layers, "k": len(self.layers)}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> MeanOfLast:
        """Return the mean of these facts; there are no tensors."""
        return cls(facts["n_layers"], facts["k"])


class ConcatPca(System):
    """Layers side by side, each at length one, reduced to D by principal axes; :meth:`fit` finds the axes.

    Parameters
    ----------
    layers : sequence of int [K]
        The layers that stand side by side.
    centre : ndarray [K D]
        The mean that is subtracted.
    axes : ndarray [K D, D]
        The axes, in columns.
    n_layers : int
        L, hidden states of the backbone.
    """

    def __init__(self, layers: Sequence[int], centre: np.ndarray, axes: np.ndarray, *, n_layers: int) -> None:
        super().__init__()
        self.layers, self.n_layers, self.width = tuple(layers), n_layers, axes.shape[1]
        self.centre: Tensor
        self.axes: Tensor
        self.register_buffer("centre", torch.from_numpy(np.array(centre, dtype=np.float32)))
        self.register_buffer("axes", torch.from_numpy(np.array(axes, dtype=np.float32, order="C")))

    @classmethod
    def fit(cls, layers: Sequence[int], sides: Sequence[Vectors]) -> ConcatPca:
        """Return the reduction to the principal axes of the training items.

        Parameters
        ----------
        layers : sequence of int
            The layers that stand side by side.
        sides : sequence of vectors
            Training queries and pages, [N, L, D] each: axes and centre are theirs alone.
        """
        layers = tuple(layers)
        _, n_layers, width = sides[0].shape
        n_items, total = 0, np.zeros(len(layers) * width)
        crossed = np.zeros((len(total), len(total)))
        for vectors in sides:
            for first in range(0, vectors.shape[0], _BLOCK):
                rows = np.arange(first, min(first + _BLOCK, vectors.shape[0]))
                states = torch.from_numpy(np.array(rows_of(vectors, rows)[:, layers]))
                block = _side_by_side(states).double().numpy()
                n_items, total, crossed = n_items + len(rows), total + block.sum(axis=0), crossed + block.T @ block
        centre = total / n_items
        axes = np.linalg.eigh(crossed / n_items - np.outer(centre, centre))[1][:, ::-1][:, :width]
        return cls(layers, centre, axes, n_layers=n_layers)

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for those layers' states [N, K, D]."""
        return unit((_side_by_side(vectors) - self.centre) @ self.axes)

    def facts(self) -> dict[str, Any]:
        """Return the layers."""
        return {"n_layers": self.n_layers, "layers": list(self.layers)}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ConcatPca:
        """Return the reduction of these facts and tensors."""
        return cls(facts["layers"], tensors["centre"], tensors["axes"], n_layers=facts["n_layers"])


class OneLayer(System):
    """One layer as it is, at length one; of the final layer that is the backbone's own embedding.

    Parameters
    ----------
    layer : int
        The layer.
    n_layers : int
        L, hidden states of the backbone.
    width : int
        How many coordinates an embedding has: a dual encoder's is filled with zeros to the width of its layers.
    """

    def __init__(self, layer: int, n_layers: int, width: int) -> None:
        super().__init__()
        if not 0 <= layer < n_layers:
            raise FusionError(f"layer must be one of the {n_layers} hidden states, 0 to {n_layers - 1}; got {layer}")
        self.layers, self.n_layers, self.width, self.n_coordinates = (layer,), n_layers, None, width

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for the layer's states [N, 1, D]."""
        return unit(vectors[:, 0, : self.n_coordinates])

    def facts(self) -> dict[str, Any]:
        """Return the layer, how many there are, and the width."""
        return {"layer": self.layers[0], "n_layers": self.n_layers, "width": self.n_coordinates}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> OneLayer:
        """Return the layer of these facts; there are no tensors."""
        return cls(facts["layer"], facts["n_layers"], facts["width"])


class SingleProbe(System):
    """One fitted probe, frozen.

    Parameters
    ----------
    probe : Probe
        The probe.
    n_layers : int
        L, hidden states of the backbone.
    """

    def __init__(self, probe: Probe, n_layers: int) -> None:
        super().__init__()
        self.layers, self.n_layers, self.width = (probe.layer,), n_layers, probe.weight.shape[-1]
        self.kind: Kind = probe.kind
        self.weight: Tensor
        self.register_buffer("weight", torch.from_numpy(np.array(probe.weight, dtype=np.float32)))

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for the layer's states [N, 1, D]."""
        check_side(side)
        weight = self.weight[0 if len(self.weight) == 1 or side == "query" else 1]
        return (base_probe if self.kind == "base" else projection_probe)(weight, vectors[:, 0])

    def facts(self) -> dict[str, Any]:
        """Return layer and kind."""
        return {"n_layers": self.n_layers, "layer": self.layers[0], "kind": self.kind}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> SingleProbe:
        """Return the probe of these facts and tensors."""
        return cls(Probe(facts["layer"], facts["kind"], tensors["weight"]), facts["n_layers"])


class ShuffledLayers(System):
    """A fusion whose inner layers are those of other items: what it gains is not owed to what they say.

    Parameters
    ----------
    fusion : Fusion
        Before training.
    seed : int
        Seed of the order, which differs between sides and is the same in each run.
    """

    width: int

    def __init__(self, fusion: Fusion, seed: int) -> None:
        super().__init__()
        self.fusion, self.seed = fusion, seed
        self.layers, self.n_layers, self.width = fusion.layers, fusion.n_layers, fusion.width

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D] for states [N, K, D], the inner ones dealt out anew among the N items."""
        # queries and pages get orders of their own, or pairs that stand in one order would stay pairs
        generator = torch.Generator().manual_seed(2 * (self.seed + len(vectors)) + (side == "query"))
        order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
        return self.fusion(torch.cat([vectors[order, :-1], vectors[:, -1:]], dim=1), side)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what is trained of the fusion."""
        return self.fusion.groups()

    def facts(self) -> dict[str, Any]:
        """Return the fusion's facts and the seed."""
        return {**self.fusion.facts(), "seed": self.seed}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ShuffledLayers:
        """Return the control of these facts and tensors."""
        own = {name.removeprefix("fusion."): tensor for name, tensor in tensors.items()}
        return cls(Fusion.restore(facts, own), facts["seed"])


def _side_by_side(vectors: Tensor) -> Tensor:
    return unit(vectors).flatten(1)


def _fill(system: System, tensors: Mapping[str, np.ndarray]) -> None:
    try:
        system.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise FusionError(f"tensors do not fit a {type(system).__name__}: {error}") from error
