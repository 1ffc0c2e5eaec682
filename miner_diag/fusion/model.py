"""Our form of the fusion: maps that are trained further, in one vector of the same size; and its merged form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from miner_diag.arrays import finite_array, real_array
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.form import FusionForm
from miner_diag.fusion.system import System, check_side
from miner_diag.probes.kinds import KINDS, Kind, unit
from miner_diag.probes.probe_stack import Probe, Side


class Fusion(FusionForm):
    """``e = normalize(sum_l a_l normalize(m_l * M_l h_l) + b)``: one vector [D] out of the selected layers.

    M_l is the layer's probe: a weight per neuron (base) or a matrix (normalized projection; its LayerNorm is part of
    M_l, see `projection_map`). The mask is applied before a layer's part is normalised, so that dropped neurons cost
    nothing at inference and the merged form is exact; MINER's text, as far as known, does not say which comes first.

    Parameters
    ----------
    layers : sequence of int [K]
        Selected layers, rising; the last is the backbone's final layer.
    kinds : sequence of str [K]
        "base" or "normalized_projection".
    maps : sequence of arrays
        For each layer [S, D] (base) or [S, D, D] (projection); S is 1 where queries and pages share it, else query,
        page.
    masks : ndarray [K, D]
        Bool, True where a neuron is kept; numbers are taken if each is exactly 0 or 1.
    layer_weights : ndarray [K]
        The weights a_l.
    bias : ndarray [D]
        The bias b.
    n_layers : int
        L, hidden states of the backbone.
    query_map : ndarray [K, D], optional
        G of the query-specific variant: a query adds ``G e`` to the layer weights, e being its final embedding.

    Raises
    ------
    FusionError
        If no layer is selected, there are more than L, they do not rise to the final one, shapes do not fit, a mask has
        a number between 0 and 1, or a number is not finite.
    """

    form = "trained_maps"

    def __init__(
        self,
        layers: Sequence[int],
        kinds: Sequence[Kind],
        maps: Sequence[np.ndarray],
        masks: np.ndarray,
        layer_weights: np.ndarray,
        bias: np.ndarray,
        *,
        n_layers: int,
        query_map: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.check_layers(layers, n_layers)
        masks = checked_masks(masks)
        maps = [finite_array(matrix, f"maps[{number}]", FusionError) for number, matrix in enumerate(maps)]
        layer_weights, bias = (
            finite_array(array, name, FusionError) for name, array in (("layer_weights", layer_weights), ("bias", bias))
        )
        width = masks.shape[-1]
        if not len(layers) == len(kinds) == len(maps) == len(masks) == len(layer_weights):
            raise FusionError(f"layers, kinds, maps, masks and layer_weights must be as many; got {len(layers)} layers")
        for kind, matrix in zip(kinds, maps, strict=True):
            expected = (width,) if kind == "base" else (width, width)
            if kind not in KINDS or matrix.shape[1:] != expected:
                raise FusionError(
                    f"a map of kind {kind!r} must be [S, {width}] or [S, {width}, {width}]; got {list(matrix.shape)}"
                )
        parts: dict[str, Any] = {"bias": (bias, (width,)), "query_map": (query_map, (len(layers), width))}
        for name, (array, shape) in parts.items():
            if array is not None and array.shape != shape:
                raise FusionError(f"{name} must be {list(shape)}; got {list(array.shape)}")
        if query_map is not None:
            finite_array(query_map, "query_map", FusionError)
        self.layers, self.kinds, self.n_layers, self.width = tuple(layers), tuple(kinds), n_layers, width
        self.maps = nn.ParameterList([parameter(matrix) for matrix in maps])
        self.layer_weights, self.bias = parameter(layer_weights), parameter(bias)
        self.masks: Tensor
        self.register_buffer("masks", torch.from_numpy(np.array(masks, dtype=np.float32)))
        self.query_map = None if query_map is None else parameter(query_map)

    @classmethod
    def identity(cls, n_layers: int, width: int) -> Fusion:
        """Return the fusion that is the backbone: final layer only, mask of ones, weight 1, no bias."""
        ones = np.ones((1, width), dtype=np.float32)
        kept, bias = ones.astype(bool), np.zeros(width)
        fusion = cls([n_layers - 1], ["base"], [ones], kept, np.ones(1), bias, n_layers=n_layers)
        return fusion.requires_grad_(False)

    @staticmethod
    def check_layers(layers: Sequence[int], n_layers: int) -> None:
        """Raise FusionError unless these are layers that the class may read."""
        check_layers(layers, n_layers)

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return the fused vectors [N, D], of length one, for the selected layers' states `vectors` [N, K, D]."""
        weights = self.layer_weights.expand(len(vectors), -1)  # [N, K]
        if self.query_map is not None and side == "query":
            weights = weights + unit(vectors[:, -1]) @ self.query_map.T
        fused = self.bias.expand(len(vectors), -1)
        for number, (kind, matrix) in enumerate(zip(self.kinds, self.maps, strict=True)):
            of_side = matrix[side_number(side, len(matrix))]
            states = unit(vectors[:, number])
            z = states * of_side if kind == "base" else states @ of_side.T
            fused = fused + weights[:, number, None] * unit(self.masks[number] * z)
        return unit(fused)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what is trained: matrices learn slowly ("maps"), the few other parameters fast ("weights")."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return {"maps": [p for p in trained if p.ndim == 3], "weights": [p for p in trained if p.ndim != 3]}

    def weights(self) -> np.ndarray:
        """Return the layer weights [K]."""
        array: np.ndarray = self.layer_weights.detach().cpu().numpy()
        return array

    def facts(self) -> dict[str, Any]:
        """Return layers and kinds."""
        return {"n_layers": self.n_layers, "layers": list(self.layers), "kinds": list(self.kinds)}

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Fusion:
        """Return the fusion of these facts and tensors."""
        maps = [tensors[f"maps.{number}"] for number in range(len(facts["layers"]))]
        return cls(
            facts["layers"],
            facts["kinds"],
            maps,
            tensors["masks"],
            tensors["layer_weights"],
            tensors["bias"],
            n_layers=facts["n_layers"],
            query_map=tensors.get("query_map"),
        )


class MergedLayer(nn.Module):
    """The part of one layer in a merged fusion: ``weight * normalize(matrix h)`` at the coordinates `rows`.

    Parameters
    ----------
    layer : int
        The hidden state that it reads.
    rows : ndarray [k]
        Coordinates of the neurons that are kept, rising.
    matrix : ndarray [S, D] or [S, D, D]
        The layer's map, a weight per neuron or a matrix; S is 1 where queries and pages share it, else query, page.
        Only the rows of kept neurons stay of a matrix. Weights of dropped neurons become 0 instead, which is as good:
        it takes longer to pick coordinates than to multiply by 0.
    weight : float
        The layer's weight a_l.
    """

    def __init__(self, layer: int, rows: np.ndarray, matrix: np.ndarray, weight: float) -> None:
        super().__init__()
        self.layer, self.weight, self.all_kept = layer, weight, len(rows) == matrix.shape[1]
        kept = np.zeros_like(matrix)
        kept[:, rows] = matrix[:, rows]
        self.rows: Tensor
        self.register_buffer("rows", torch.from_numpy(np.array(rows, dtype=np.int64)))
        self.matrix: Tensor
        merged = kept if matrix.ndim == 2 else matrix[:, rows]
        self.register_buffer("matrix", torch.from_numpy(np.array(merged, dtype=np.float32, order="C")))

    @property
    def n_kept(self) -> int:
        """How many numbers of kept neurons the map has."""
        n_sides, *_, width = self.matrix.shape
        return n_sides * len(self.rows) * (width if self.matrix.ndim == 3 else 1)

    def add_to(self, fused: Tensor, states: Tensor, side: Side) -> None:
        """Add the layer's part to the sum `fused` [N, D], for the layer's states [N, D]."""
        of_side = self.matrix[side_number(side, len(self.matrix))]
        z = functional.linear(states, of_side) if of_side.ndim == 2 else states * of_side
        scale = self.weight / z.norm(dim=1, keepdim=True).clamp_min(1e-12)
        if self.all_kept or of_side.ndim == 1:
            fused.addcmul_(z, scale)
        else:  # index_add_ reads and writes each sum once; fused[:, rows] += z copies it twice
            fused.index_add_(1, self.rows, z.mul_(scale))


class MergedFusion(System):
    """A fusion as it is served: masks are merged into maps, so that the rows of dropped neurons are not computed.

    Equal to the fusion up to rounding, and applied in the same way. Layers of weight 0 are left out, and states are not
    brought to length one first, because each layer's part is.

    Parameters
    ----------
    parts : sequence of MergedLayer
        The layers whose weight is not 0.
    bias : ndarray [D]
        The bias b.
    n_layers : int
        L, hidden states of the backbone.
    """

    width: int

    def __init__(self, parts: Sequence[MergedLayer], bias: np.ndarray, *, n_layers: int) -> None:
        super().__init__()
        self.layers, self.n_layers, self.width = tuple(part.layer for part in parts), n_layers, len(bias)
        self.parts = nn.ModuleList(parts)
        self.bias: Tensor
        self.register_buffer("bias", torch.from_numpy(np.array(bias, dtype=np.float32)))

    @property
    def n_kept(self) -> int:
        """How many numbers are kept for inference: maps, a weight for each layer, and the bias."""
        return sum(part.n_kept + 1 for part in self.parts if isinstance(part, MergedLayer)) + self.bias.numel()

    @torch.no_grad()
    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return the fused vectors [N, D], of length one, for the states [N, K, D] of `layers`."""
        fused = self.bias.repeat(vectors.shape[0], 1)  # len() would be a constant in an exported graph
        for number, part in enumerate(self.parts):
            assert isinstance(part, MergedLayer)
            part.add_to(fused, vectors[:, number], side)
        return unit(fused)


def merge(fusion: Fusion) -> MergedFusion:
    """Merge a fusion's masks into its maps.

    Raises
    ------
    FusionError
        If its layer weights depend on the query: those cannot be merged.
    """
    if fusion.query_map is not None:
        raise FusionError("a query-specific fusion has no merged form; merge the fusion it started from")
    parts = []
    masks, weights = fusion.masks.cpu().numpy() > 0, fusion.layer_weights.detach().cpu().numpy()
    for number, layer in enumerate(fusion.layers):
        rows = np.flatnonzero(masks[number])
        if weights[number] != 0:
            matrix = fusion.maps[number].detach().cpu().numpy()
            parts.append(MergedLayer(layer, rows, matrix, float(weights[number])))
    return MergedFusion(parts, fusion.bias.detach().cpu().numpy(), n_layers=fusion.n_layers)


def check_layers(layers: Sequence[int], n_layers: int) -> None:
    """Raise FusionError unless `layers` rise, lie in 0 … L - 1 and end with the final one."""
    if not len(layers):
        raise FusionError("layers must hold at least the final layer; got none. Select layers with miner_diag.probes")
    if len(layers) > n_layers:
        raise FusionError(f"layers must be at most {n_layers}, as many as the backbone has; got {len(layers)}")
    if list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] != n_layers - 1:
        raise FusionError(f"layers must rise, each once, up to the final layer {n_layers - 1}; got {list(layers)}")


def projection_map(probe: Probe) -> np.ndarray:
    """Return M [S, D, D] of a normalized projection: ``normalize(M h)`` is what the probe gives.

    ``W LayerNorm(h)`` points where ``W (h - mean of h)`` points, which is linear in h: M is W with the mean of each row
    taken out of it.
    """
    return probe.weight - probe.weight.mean(axis=-1, keepdims=True)


def side_number(side: Side, n_sides: int) -> int:
    """Return which of the `n_sides` maps of a layer a side passes: queries the first, pages the last."""
    check_side(side)
    return 0 if n_sides == 1 or side == "query" else 1


def checked_masks(masks: np.ndarray) -> np.ndarray:
    """Return masks [K, D] as bool; raise FusionError unless every number is exactly 0 or 1."""
    array = real_array(masks, "masks", FusionError, kinds="fiub")
    kept = array == 1
    if array.ndim != 2 or not (kept | (array == 0)).all():
        got = f"shape {list(array.shape)}" if array.ndim != 2 else f"the number {array[~kept & (array != 0)][0]}"
        raise FusionError(
            f"masks must be [K, D], true and false or exactly 1 and 0: a neuron is kept or it is not; got {got}"
        )
    return kept


def parameter(array: np.ndarray) -> nn.Parameter:
    """Return an array as a float32 parameter."""
    return nn.Parameter(torch.from_numpy(np.array(array, dtype=np.float32, order="C")))
