"""A fused retriever and its backbone's own embedding out of one forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miner_diag.corpus.core import Page
from miner_diag.fusion.baselines import OneLayer
from miner_diag.fusion.system import Side, System
from miner_diag.serving.retriever import BACKBONE, FusedRetriever

FUSED = "fused"
"""What the vectors of a system of a fusion run are called in an index."""


class Joined(System):
    """The vectors of several systems one behind the other; each layer is pooled once.

    Parameters
    ----------
    systems : sequence of System
        Systems over the layers of one backbone.
    """

    def __init__(self, systems: Sequence[System]) -> None:
        super().__init__()
        self.systems = torch.nn.ModuleList(systems)
        self.layers = tuple(sorted({layer for system in systems for layer in system.layers}))
        self.n_layers, self.width = systems[0].n_layers, systems[0].width
        self._places = [[self.layers.index(layer) for layer in system.layers] for system in systems]

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, the widths of all] for the states [N, K, D] of `layers`."""
        parts = zip(self.systems, self._places, strict=True)
        return torch.cat([system(vectors[:, places], side) for system, places in parts], dim=1)

    def facts(self) -> dict[str, Any]:
        """Return nothing: it is made anew of its systems, and not saved."""
        return {}


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Retrievers over one loaded backbone; the first is the one that is asked for."""

    retrievers: dict[str, FusedRetriever]
    """"fused" and "backbone", or "backbone" alone."""
    joined: FusedRetriever
    """Gives the vectors of all, one behind the other."""

    @classmethod
    def of(cls, retriever: FusedRetriever) -> SideBySide:
        """Return a retriever with its backbone's own embedding beside it, if it is not that itself."""
        if retriever.system_name == BACKBONE:
            return cls({BACKBONE: retriever}, retriever)
        n_layers = retriever.backbone.layer_shape("page")[0]
        own = retriever.beside(OneLayer(n_layers - 1, n_layers, retriever.width), BACKBONE)
        joined = retriever.beside(Joined([retriever.served, own.served]), f"{retriever.system_name}-and-{BACKBONE}")
        return cls({FUSED: retriever, BACKBONE: own}, joined)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Name -> what makes it this model."""
        return {name: retriever.fingerprint for name, retriever in self.retrievers.items()}

    @property
    def widths(self) -> dict[str, int]:
        """Name -> the width of its vectors."""
        return {name: retriever.width for name, retriever in self.retrievers.items()}

    def encode_pages(
        self, pages: Sequence[Page], render: Callable[[str, int], Any]
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the vectors [P, D] of each retriever by name, and what was noticed of each page."""
        encoded = self.joined.encode_pages(pages, render=render, progress=False)
        return self._apart(encoded.vectors), encoded.notes

    def encode_query(self, text: str) -> dict[str, np.ndarray]:
        """Return the vector [D] of each retriever by name."""
        return {name: rows[0] for name, rows in self._apart(self.joined.encode_queries([text])).items()}

    def _apart(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum(list(self.widths.values()))[:-1]
        parts = zip(self.retrievers, np.split(vectors, ends, axis=1), strict=True)
        return {name: np.ascontiguousarray(part) for name, part in parts}
