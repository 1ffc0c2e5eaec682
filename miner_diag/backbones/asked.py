"""What a user asks of a checkpoint that looks at pages, in one place for all families."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from miner_diag.backbones.base import Pooling
from miner_diag.backbones.pictures import PagePictures


@dataclass(frozen=True)
class Asked:
    """A checkpoint's folder and the options that hold for it."""

    folder: Path
    """config.json, weights, tokenizer, image processor; or an adapter."""
    name: str
    """As it is called in tables."""
    pictures: PagePictures = field(default_factory=lambda: PagePictures(None))
    """Draws the pages."""
    pooling: Pooling | None = None
    """Overrules the family's."""
    device: str = "auto"
    """"auto", "cpu", "cuda" or "cuda:N"."""
    dtype: str = "auto"
    """"auto" (bfloat16 on a GPU, float32 elsewhere), "float32" or "bfloat16"."""
    max_tokens: int | None = None
    """Overrules the limit of queries."""
    max_pixels: int | None = None
    """Overrules the family's pixel budget of a page."""
    query_prompt: str | None = None
    """Overrules the family's prompt of queries."""
    page_prompt: str | None = None
    """Overrules the family's prompt of pages."""
    base_model: Path | None = None
    """Folder of the model an adapter belongs to."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings along."""
    progress: bool = True
    """Show bars."""
