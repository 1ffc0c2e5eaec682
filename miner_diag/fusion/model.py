"""The fusion: chosen layers, masked and weighted, in one vector of the same size; and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from torch import Tensor, nn

from miner_diag.files import sha256_bytes, write_atomic
from miner_diag.probes.kinds import KINDS, Kind, unit
from miner_diag.probes.probe_stack import Probe, Side, differences

FORMAT = 1
"""Raised when the layout of the files changes."""
TENSORS, FACTS = "fusion.safetensors", "fusion.json"


class FusionError(ValueError):
    """A fusion that cannot be built, trained, read or used as asked."""


class Fusion(nn.Module):
    """``e = normalize(sum_l a_l normalize(m_l * M_l h_l) + b)``: one vector [D] out of the selected layers.

    M_l is the layer's probe: a weight per neuron (base) or a matrix (normalized projection; its LayerNorm is part of
    M_l, see `projection_map`). The mask is applied before a layer's part is normalised, so that dropped neurons cost
    nothing at inference and the folded form is exact; MINER's text, as far as known, does not say which comes first.

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
        Bool, True where a neuron is kept.
    layer_weights : ndarray [K]
        a_l.
    bias : ndarray [D]
        b.
    n_layers : int
        L, hidden states of the backbone.
    query_map : ndarray [K, D], optional
        G of the query-specific variant: a query adds ``G e`` to the layer weights, e being its final embedding.

    Raises
    ------
    FusionError
        If no layer is selected, there are more than L, they do not rise to the final one, or shapes do not fit.
    """

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
        check_layers(layers, n_layers)
        width = masks.shape[-1]
        if not len(layers) == len(kinds) == len(maps) == len(masks) == len(layer_weights):
            raise FusionError(f"layers, kinds, maps, masks and layer_weights must be as many; got {len(layers)} layers")
        for kind, matrix in zip(kinds, maps, strict=True):
            wanted = (width,) if kind == "base" else (width, width)
            if kind not in KINDS or matrix.shape[1:] != wanted:
                raise FusionError(
                    f"a map of kind {kind!r} must be [S, {width}] or [S, {width}, {width}]; got {list(matrix.shape)}"
                )
        parts: dict[str, Any] = {"bias": (bias, (width,)), "query_map": (query_map, (len(layers), width))}
        for name, (array, expected) in parts.items():
            if array is not None and array.shape != expected:
                raise FusionError(f"{name} must be {list(expected)}; got {list(array.shape)}")
        self.layers, self.kinds, self.n_layers, self.width = tuple(layers), tuple(kinds), n_layers, width
        self.maps = nn.ParameterList([_parameter(matrix) for matrix in maps])
        self.layer_weights, self.bias = _parameter(layer_weights), _parameter(bias)
        self.masks: Tensor
        self.register_buffer("masks", torch.from_numpy(np.array(masks, dtype=np.float32)))
        self.query_map = None if query_map is None else _parameter(query_map)

    @classmethod
    def identity(cls, n_layers: int, width: int) -> Fusion:
        """Return the fusion that is the backbone: final layer only, mask of ones, weight 1, no bias."""
        ones = np.ones((1, width), dtype=np.float32)
        kept, bias = ones.astype(bool), np.zeros(width)
        fusion = cls([n_layers - 1], ["base"], [ones], kept, np.ones(1), bias, n_layers=n_layers)
        return fusion.requires_grad_(False)

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return the fused vectors [N, D], of length one, for the selected layers' states `vectors` [N, K, D]."""
        weights = self.layer_weights.expand(len(vectors), -1)  # [N, K]
        if self.query_map is not None and side == "query":
            weights = weights + unit(vectors[:, -1]) @ self.query_map.T
        fused = self.bias.expand(len(vectors), -1)
        for number, (kind, matrix) in enumerate(zip(self.kinds, self.maps, strict=True)):
            mine = matrix[0 if len(matrix) == 1 or side == "query" else 1]
            states = unit(vectors[:, number])
            z = states * mine if kind == "base" else states @ mine.T
            fused = fused + weights[:, number, None] * unit(self.masks[number] * z)
        return unit(fused)

    def apply_to(self, layer_embeddings: np.ndarray, side: Side = "page") -> np.ndarray:
        """Return the fused vectors [N, D] float32 of pooled states of all layers [N, L, D].

        Raises
        ------
        FusionError
            If the number of layers or the width is another.
        """
        if layer_embeddings.shape[1:] != (self.n_layers, self.width):
            raise FusionError(
                f"layer_embeddings must be [N, {self.n_layers}, {self.width}]; got {list(layer_embeddings.shape)}"
            )
        states = np.ascontiguousarray(layer_embeddings[:, self.layers], dtype=np.float32)
        with torch.no_grad():
            return self(torch.from_numpy(states), side).numpy()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that learn slowly ("maps": matrices) and those that learn fast ("weights": the few others)."""
        learned = [p for p in self.parameters() if p.requires_grad]
        return {"maps": [p for p in learned if p.ndim == 3], "weights": [p for p in learned if p.ndim != 3]}

    def save(self, folder: Path | str, backbone: Mapping[str, str], **facts: Any) -> None:
        """Write ``fusion.safetensors`` and ``fusion.json`` (backbone, layers, shares, weights and `facts`)."""
        folder = Path(folder)
        arrays = {name: p.detach().cpu().numpy() for name, p in self.named_parameters()}
        arrays["masks"] = self.masks.cpu().numpy().astype(bool)
        content = save_safetensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        write_atomic(folder / TENSORS, content)
        told = {
            "format": FORMAT,
            "sha256": sha256_bytes(content),
            "backbone": dict(backbone),
            "n_layers": self.n_layers,
            "width": self.width,
            "layers": self.layers,
            "kinds": self.kinds,
            "kept_shares": [float(share) for share in arrays["masks"].mean(axis=1)],
            "layer_weights": [float(weight) for weight in arrays["layer_weights"]],
            **facts,
        }
        write_atomic(folder / FACTS, json.dumps(told, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: Path | str, backbone: Mapping[str, str] | None = None) -> Fusion:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : path
            Where the two files lie.
        backbone : mapping, optional
            Key of the backbone it is wanted for, as ``Backbone.key()`` gives it; not checked if not given.

        Raises
        ------
        FusionError
            If a file is missing or damaged, or the fusion is of another backbone; the fields that differ are named.
        """
        folder = Path(folder)
        for name in (FACTS, TENSORS):
            if not (folder / name).exists():
                raise FusionError(f"{folder / name} is not there; fit a fusion with python -m miner_diag.fusion")
        content = (folder / TENSORS).read_bytes()
        try:
            told = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            found, layers, n_layers = told["backbone"], told["layers"], told["n_layers"]
            kinds, digest = told["kinds"], told["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise FusionError(f"{folder / FACTS} is damaged: {error}; fit again") from error
        if told.get("format") != FORMAT:
            raise FusionError(
                f"{folder} has fusion format {told.get('format')}, this version reads {FORMAT}; fit again"
            )
        if digest != sha256_bytes(content):
            raise FusionError(f"{folder / TENSORS} is not the file that {FACTS} was written with; fit again")
        if backbone is not None:
            listed = differences(found, backbone)
            if listed:
                raise FusionError(f"{folder} holds a fusion of another backbone. Fields that differ: {listed}")
        try:
            arrays = load_safetensors(content)
            maps = [arrays[f"maps.{number}"] for number in range(len(layers))]
            parts = arrays["masks"], arrays["layer_weights"], arrays["bias"]
        except (SafetensorError, KeyError) as error:
            raise FusionError(f"{folder / TENSORS} holds no fusion: {error}") from error
        return cls(layers, kinds, maps, *parts, n_layers=n_layers, query_map=arrays.get("query_map"))


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


def _parameter(array: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array, dtype=np.float32)))
