"""Under which licence a backbone's weights stand, as far as the package knows."""

from __future__ import annotations

from pathlib import Path

from miner_diag.backbones.known import known_model
from miner_diag.backbones.packaged import packaged_model
from miner_diag.backbones.page_text import MINILM_LICENCE

OF_MINILM = ("page-text", "page-vision")
"""Embedded retrievers whose layers are those of MiniLM."""


def licence_of(model: str) -> str:
    """Return the licence of an embedded retriever or a known checkpoint, by name, hub id or folder; "" if not known."""
    if model in OF_MINILM:
        return MINILM_LICENCE
    if model == "page-text-bge":
        return packaged_model(model).licence
    folder = Path(model).expanduser()
    known = known_model(folder.resolve().name if folder.is_dir() else model)
    return "" if known is None else known.licence
