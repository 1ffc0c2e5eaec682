"""The fusion that a run hands out, whichever form it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.form import FACTS
from miner_diag.fusion.miner import MergedMiner, MinerFusion
from miner_diag.fusion.model import Fusion, MergedFusion, merge

CLASSES: dict[str, type[Fusion] | type[MinerFusion]] = {form.form: form for form in (MinerFusion, Fusion)}
"""The name of a form -> its class."""


def load_fusion(folder: Path | str, backbone: Mapping[str, str] | None = None) -> Fusion | MinerFusion:
    """Read the fusion that ``python -m miner_diag.fusion`` handed out.

    Parameters
    ----------
    folder : path
        The run's folder.
    backbone : mapping, optional
        Key of the backbone that the fusion is wanted for, as ``Backbone.key()`` gives it.

    Raises
    ------
    FusionError
        If a file is missing or damaged, the fusion is of another backbone, or its form is unknown.
    """
    path = Path(folder) / FACTS
    try:
        form = json.loads(path.read_text(encoding="utf-8")).get("form", Fusion.form)
    except (OSError, ValueError, AttributeError):
        form = Fusion.form  # its own reader says what is wrong
    if form not in CLASSES:
        raise FusionError(f"{path} holds a fusion of the unknown form {form!r}; it was written by a later version")
    return CLASSES[form].load(folder, backbone)


def merge_for_serving(fusion: Fusion | MinerFusion) -> MergedFusion | MergedMiner:
    """Return a fusion as it is served: gates, masks and weights merged; the same vectors up to rounding."""
    return MergedMiner(fusion) if isinstance(fusion, MinerFusion) else merge(fusion)
