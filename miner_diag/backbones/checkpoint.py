"""A checkpoint that is to be loaded: its folder, and what the user says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from miner_diag.backbones.options import LoadOptions, LongPages
from miner_diag.backbones.pictures import PagePictures


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a retriever is made from."""

    folder: Path
    """The folder with config.json, weights, tokenizer and image processor, or with an adapter."""
    name: str
    """What tables call the retriever."""
    options: LoadOptions = field(default_factory=LoadOptions)
    """What overrules the checkpoint's own settings."""
    pictures: PagePictures = field(default_factory=lambda: PagePictures(None))
    """Draws the pages."""
    base_model: Path | None = None
    """The folder of the model that an adapter belongs to; None for a whole model."""
    long_pages: LongPages = "truncate"
    """What the retriever does with long pages and queries where the options do not say."""
    progress: bool = True
    """Whether bars are shown."""
