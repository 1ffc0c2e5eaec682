"""MINER's fusion as its authors' page draws it, and the one matrix that serves it.

``e = normalize(sum_l u_l * h_l + b)`` with a vector u_l in R^D for each layer and one vector b in R^D; ``h_l = m * x``
for a base layer, ``h_l = W~ (m * x)`` for a norm layer, x being the layer's pooled state and m the mask over its
neurons. Whether a probe's gate p stays inside h_l, and how u and b start, that page does not show: both are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from miner_diag.arrays import finite_array
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.form import FusionForm
from miner_diag.fusion.model import check_layers, checked_masks, parameter, side_number
from miner_diag.fusion.system import System
from miner_diag.probes.kinds import KINDS, Kind, unit
from miner_diag.probes.probe_stack import Side


class MinerFusion(FusionForm):
    """``e = normalize(sum_l u_l * h_l + b)``: one vector [D] out of the selected layers.

    Parameters
    ----------
    layers : sequence of int [K]
        Selected layers, rising; the last is the backbone's final layer.
    kinds : sequence of str [K]
        "base" or "normalized_projection".
    gates : ndarray [K, S, D]
        What multiplies a layer's neurons beside the mask: the probe's p, or ones. S is 1 where queries and pages share
        it, else query, page.
    maps : sequence [K]
        W~ [S, D, D] of a norm layer; None for a base layer.
    masks : ndarray [K, D]
        Bool, True where a neuron is kept.
    layer_vectors : ndarray [K, D] or [K, 1]
        The vectors u_l; with one number for each layer they are scalars, which is a variant of ours.
    bias : ndarray [D]
        The bias b.
    n_layers : int
        L, hidden states of the backbone.
    unit_input : bool
        Whether x is brought to unit length.
    pages_only : bool
        Whether a query stays what the backbone makes of it: its final state at unit length.

    Raises
    ------
    FusionError
        If no layer is selected, they do not rise to the final one, shapes do not fit, a mask has a number between 0 and
        1, or a number is not finite.
    """

    form = "miner"

    def __init__(
        self,
        layers: Sequence[int],
        kinds: Sequence[Kind],
        gates: np.ndarray,
        maps: Sequence[np.ndarray | None],
        masks: np.ndarray,
        layer_vectors: np.ndarray,
        bias: np.ndarray,
        *,
        n_layers: int,
        unit_input: bool = True,
        pages_only: bool = False,
    ) -> None:
        super().__init__()
        check_layers(layers, n_layers)
        masks = checked_masks(masks)
        width, n = masks.shape[1], len(layers)
        gates, layer_vectors, bias = (
            finite_array(array, name, FusionError)
            for array, name in ((gates, "gates"), (layer_vectors, "layer_vectors"), (bias, "bias"))
        )
        expected = {
            "masks": (masks, (n, width)),
            "layer_vectors": (layer_vectors, (n, 1 if layer_vectors.shape[-1:] == (1,) else width)),
            "bias": (bias, (width,)),
            "gates": (gates, (n, gates.shape[1] if gates.ndim == 3 and gates.shape[1] in (1, 2) else 1, width)),
        }
        for name, (array, shape) in expected.items():
            if array.shape != shape:
                raise FusionError(f"{name} must be {list(shape)}; got {list(array.shape)}")
        if not len(kinds) == len(maps) == n:
            raise FusionError(f"kinds and maps must be as many as layers, {n}; got {len(kinds)} and {len(maps)}")
        n_sides = gates.shape[1]
        for number, (kind, matrix) in enumerate(zip(kinds, maps, strict=True)):
            if kind not in KINDS or (matrix is None) != (kind == "base"):
                raise FusionError(f"layer {layers[number]} of kind {kind!r} must have a map unless it is base")
            if matrix is not None and finite_array(matrix, f"maps[{number}]", FusionError).shape != (
                n_sides,
                width,
                width,
            ):
                raise FusionError(
                    f"the map of layer {layers[number]} must be [{n_sides}, {width}, {width}]; got {list(matrix.shape)}"
                )
        self.layers, self.kinds, self.n_layers, self.width = tuple(layers), tuple(kinds), n_layers, width
        self.unit_input, self.pages_only = unit_input, pages_only
        self.gates: Tensor
        for name, array in (("gates", gates), ("masks", masks)):
            self.register_buffer(name, torch.from_numpy(np.array(array, dtype=np.float32, order="C")))
        held = [matrix for matrix in maps if matrix is not None]
        self.maps = parameter(np.stack(held) if held else np.zeros((0, n_sides, width, width)))
        self.maps.requires_grad_(False)  # the method trains u and b alone
        self.layer_vectors, self.bias = parameter(layer_vectors), parameter(bias)

    @property
    def norm_layers(self) -> list[int]:
        """Positions among `layers` of those with a map."""
        return [number for number, kind in enumerate(self.kinds) if kind != "base"]

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return the fused vectors [N, D], of length one, for the selected layers' states `vectors` [N, K, D]."""
        if self.pages_only and side == "query":
            return unit(vectors[:, -1])
        number = side_number(side, self.gates.shape[1])
        x = unit(vectors) if self.unit_input else vectors
        kept = x * (self.gates[:, number] * self.masks)
        fused = self.bias.expand(len(vectors), -1)
        maps = iter(self.maps[:, number])
        for place, kind in enumerate(self.kinds):
            h = kept[:, place] if kind == "base" else kept[:, place] @ next(maps).T
            fused = fused + self.layer_vectors[place] * h
        return unit(fused)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what is trained: u and b ("weights"), (K + 1) D numbers; in a variant of ours the maps, too."""
        trained = [part for part in self.parameters() if part.requires_grad]
        return {"maps": [p for p in trained if p is self.maps], "weights": [p for p in trained if p is not self.maps]}

    def weights(self) -> np.ndarray:
        """Return the root mean square [K] of each layer's vector u_l: 1 for the final layer before training."""
        squares: np.ndarray = self.layer_vectors.detach().cpu().double().square().mean(dim=1).sqrt().numpy()
        return squares

    def facts(self) -> dict[str, Any]:
        """Return layers, kinds, and how x and queries are treated."""
        return {
            "n_layers": self.n_layers,
            "layers": list(self.layers),
            "kinds": list(self.kinds),
            "unit_input": self.unit_input,
            "pages_only": self.pages_only,
        }

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> MinerFusion:
        """Return the fusion of these facts and tensors."""
        maps = iter(tensors["maps"])
        return cls(
            facts["layers"],
            facts["kinds"],
            tensors["gates"],
            [None if kind == "base" else next(maps) for kind in facts["kinds"]],
            tensors["masks"],
            tensors["layer_vectors"],
            tensors["bias"],
            n_layers=facts["n_layers"],
            unit_input=facts["unit_input"],
            pages_only=facts["pages_only"],
        )


class MergedMiner(System):
    """MINER's fusion as it is served: ``e = normalize(sum of base layers + M x_kept + b)``.

    Gates, masks and u are merged into one matrix M over the kept neurons of all norm layers, and into a weight for each
    neuron of a base layer, whose neurons stay in place. Equal to the unmerged form up to rounding.

    Parameters
    ----------
    fusion : MinerFusion
        What is merged.
    """

    width: int

    def __init__(self, fusion: MinerFusion) -> None:
        super().__init__()
        self.layers, self.n_layers, self.width = fusion.layers, fusion.n_layers, fusion.width
        self.unit_input, self.pages_only = fusion.unit_input, fusion.pages_only
        n_sides = fusion.gates.shape[1]
        u = fusion.layer_vectors.detach().double().expand(-1, self.width)
        gates, masks = fusion.gates.double(), fusion.masks.double()
        base, columns, matrices = [], [], []
        norm = fusion.norm_layers
        for place in range(len(fusion.layers)):
            if place in norm:
                kept = torch.nonzero(masks[place]).flatten()
                columns.append(place * self.width + kept)
                w = fusion.maps[norm.index(place)].detach().double()  # [S, D, D]
                matrices.append((u[place][:, None] * w * gates[place][:, None])[:, :, kept])
            else:
                base.append(u[place] * gates[place] * masks[place])
        self.base_places = [place for place in range(len(fusion.layers)) if place not in norm]
        self.n_kept_of_base = int(masks[self.base_places].sum())  # those whose u is 0, as before training, too
        self.base: Tensor
        self.matrix: Tensor
        self.columns: Tensor
        self.bias: Tensor
        self.places: Tensor
        # a list would be made a tensor at each call
        self.register_buffer("places", torch.tensor(self.base_places, dtype=torch.int64))
        nothing = torch.zeros(n_sides, 0, self.width)  # where every layer is a norm layer
        self.register_buffer("base", torch.stack(base, dim=1).float() if base else nothing)  # [S, B, D]
        empty = torch.zeros(n_sides, self.width, 0, dtype=torch.float64)
        self.register_buffer("matrix", torch.cat(matrices, dim=2).float() if matrices else empty.float())
        self.register_buffer("columns", torch.cat(columns) if columns else torch.zeros(0, dtype=torch.int64))
        self.register_buffer("bias", fusion.bias.detach().clone())

    @property
    def multiply_adds(self) -> int:
        """How many multiply-adds an item costs, the lengths of its states not counted."""
        return self.matrix.shape[1] * self.matrix.shape[2] + self.n_kept_of_base

    @property
    def n_bytes(self) -> int:
        """How many bytes matrix, weights of kept neurons and bias take in float32, for both sides."""
        return 4 * (self.matrix.numel() + len(self.base) * self.n_kept_of_base + self.bias.numel())

    @torch.no_grad()
    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return the fused vectors [N, D], of length one, for the selected layers' states `vectors` [N, K, D]."""
        if self.pages_only and side == "query":
            return unit(vectors[:, -1])
        number = side_number(side, len(self.base))
        x = unit(vectors) if self.unit_input else vectors
        fused = (x.index_select(1, self.places) * self.base[number]).sum(dim=1) + self.bias
        if self.columns.numel():
            fused = torch.addmm(fused, x.flatten(1).index_select(1, self.columns), self.matrix[number].T)
        return unit(fused)
