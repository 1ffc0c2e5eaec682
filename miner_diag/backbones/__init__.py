"""Frozen pretrained retrievers behind one protocol; the only importers of transformers.

Importing this loads no model library; :func:`load_backbone` does.
"""

from miner_diag.backbones.base import (
    Backbone,
    BackboneError,
    CheckpointError,
    Encoded,
    Pooling,
    Side,
    UnknownBackboneError,
)
from miner_diag.backbones.registry import EMBEDDED, load_backbone

__all__ = [
    "EMBEDDED",
    "Backbone",
    "BackboneError",
    "CheckpointError",
    "Encoded",
    "Pooling",
    "Side",
    "UnknownBackboneError",
    "load_backbone",
]
