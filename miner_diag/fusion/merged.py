"""The fusion as it is served: weight, mask and map of each layer in one matrix, dropped rows left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner_diag.fusion.model import Fusion, FusionError
from miner_diag.probes.probe_stack import Side


@dataclass(frozen=True, eq=False)
class MergedLayer:
    """What one layer adds: ``normalize(matrix h) * weight`` at the coordinates `rows`."""

    layer: int
    """Which hidden state."""
    rows: np.ndarray
    """[k] int64, kept neurons."""
    matrix: np.ndarray
    """[S, k] (base) or [S, k, D] (projection), float32."""
    weight: float
    """a_l."""


@dataclass(frozen=True, eq=False)
class MergedFusion:
    """A fusion merged for inference; equal to the one with separate parts up to rounding."""

    layers: tuple[MergedLayer, ...]
    """The selected layers; those of weight 0 are left out."""
    bias: np.ndarray
    """[D] float32."""
    n_layers: int
    """L of the backbone."""

    @property
    def n_parameters(self) -> int:
        """Numbers that are kept for inference."""
        return sum(part.matrix.size + 1 for part in self.layers) + self.bias.size

    def apply_to(self, layer_embeddings: np.ndarray, side: Side = "page") -> np.ndarray:
        """Return the fused vectors [N, D] float32 of pooled states of all layers [N, L, D]; of length one."""
        if layer_embeddings.shape[1:] != (self.n_layers, len(self.bias)):
            raise FusionError(
                f"layer_embeddings must be [N, {self.n_layers}, {len(self.bias)}]; got {list(layer_embeddings.shape)}"
            )
        fused = np.repeat(self.bias[None], len(layer_embeddings), axis=0)
        for part in self.layers:
            mine = part.matrix[0 if len(part.matrix) == 1 or side == "query" else 1]
            states = layer_embeddings[:, part.layer].astype(np.float32)
            z = states[:, part.rows] * mine if mine.ndim == 1 else states @ mine.T
            fused[:, part.rows] += part.weight * _unit(z)
        return _unit(fused)


def merge(fusion: Fusion) -> MergedFusion:
    """Merge a fusion.

    Raises
    ------
    FusionError
        If its layer weights depend on the query: those cannot be merged into a matrix.
    """
    if fusion.query_map is not None:
        raise FusionError("a query-specific fusion has no merged form; merge the fusion it started from")
    parts = []
    masks, weights = fusion.masks.numpy() > 0, fusion.layer_weights.detach().numpy()
    for number, layer in enumerate(fusion.layers):
        rows = np.flatnonzero(masks[number])
        if weights[number] != 0:
            matrix = np.ascontiguousarray(fusion.maps[number].detach().numpy()[:, rows])
            parts.append(MergedLayer(layer, rows, matrix, float(weights[number])))
    return MergedFusion(tuple(parts), fusion.bias.detach().numpy().copy(), fusion.n_layers)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
