"""Frozen pretrained retrievers behind one protocol; the only importers of transformers.

Importing this loads no model library; :func:`load_backbone` does.
"""

from miner_diag.backbones.base import (
    Backbone,
    BackboneError,
    CheckpointError,
    Encoded,
    Side,
    UnknownBackboneError,
)
from miner_diag.backbones.options import LoadOptions, Pooling
from miner_diag.backbones.registry import EMBEDDED, is_late, load_backbone, load_late_backbone

__all__ = [
    "EMBEDDED",
    "Backbone",
    "BackboneError",
    "CheckpointError",
    "Encoded",
    "LoadOptions",
    "Pooling",
    "Side",
    "UnknownBackboneError",
    "is_late",
    "load_backbone",
    "load_late_backbone",
]
