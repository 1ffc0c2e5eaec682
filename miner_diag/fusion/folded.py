"""The fusion as it is served: weight, mask and map of each layer in one matrix, dropped rows left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miner_diag.fusion.model import Fusion, FusionError
from miner_diag.probes.stack import Side


@dataclass(frozen=True, eq=False)
class FoldedLayer:
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
class Folded:
    """A fusion folded for inference; equal to the unfolded one up to rounding."""

    layers: tuple[FoldedLayer, ...]
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


def fold(fusion: Fusion) -> Folded:
    """Fold a fusion.

    Raises
    ------
    FusionError
        If its layer weights depend on the query: those cannot be folded into a matrix.
    """
    if fusion.query_map is not None:
        raise FusionError("a query-specific fusion has no folded form; fold the fusion it started from")
    parts = []
    masks, weights = fusion.masks.numpy() > 0, fusion.layer_weights.detach().numpy()
    for number, layer in enumerate(fusion.layers):
        rows = np.flatnonzero(masks[number])
        if weights[number] != 0:
            matrix = np.ascontiguousarray(fusion.maps[number].detach().numpy()[:, rows])
            parts.append(FoldedLayer(layer, rows, matrix, float(weights[number])))
    return Folded(tuple(parts), fusion.bias.detach().numpy().copy(), fusion.n_layers)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
