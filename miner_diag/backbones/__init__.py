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
from miner_diag.backbones.late import LateBackbone
from miner_diag.backbones.options import KeptTokens, LoadOptions, Pooling, ReaderKind
from miner_diag.backbones.registry import EMBEDDED, RETRIEVERS, is_late, load_backbone, load_late_backbone

__all__ = [
    "EMBEDDED",
    "RETRIEVERS",
    "Backbone",
    "BackboneError",
    "CheckpointError",
    "Encoded",
    "KeptTokens",
    "LateBackbone",
    "LoadOptions",
    "Pooling",
    "ReaderKind",
    "Side",
    "UnknownBackboneError",
    "is_late",
    "load_backbone",
    "load_late_backbone",
]
