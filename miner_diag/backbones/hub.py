"""From a hub id to a local folder: the pinned revision, fetched once by huggingface_hub, or a clear sentence."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from miner_diag.backbones.base import UnknownBackboneError

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""owner/name."""

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
"""Files of a checkpoint that are fetched; Python files only where remote code is trusted."""
UNWANTED = ["onnx/*", "openvino/*", "*.gguf"]


def looks_like_hub_id(model: str) -> bool:
    """Tell whether a name could be a hub id: one slash, and no path."""
    return HUB_ID.fullmatch(model) is not None


def fetch(hub_id: str, revision: str | None, *, trust_remote_code: bool = False) -> Path:
    """Return the folder of a checkpoint in huggingface_hub's cache, fetching what is not there yet.

    Parameters
    ----------
    hub_id : str
        owner/name.
    revision : str, optional
        Commit hash; without one the repository's newest is taken, with a warning that names it.
    trust_remote_code : bool
        Fetch Python files too.

    Raises
    ------
    UnknownBackboneError
        If it is not in the cache and no hub answers, or the hub does not have it; says how to pass a folder.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                hub_id,
                revision=revision,
                ignore_patterns=UNWANTED,
                allow_patterns=[*WANTED, *(["*.py"] if trust_remote_code else [])],
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        at = f" --revision {revision}" if revision else ""
        raise UnknownBackboneError(
            f"{hub_id} is not a local folder, not in the hub's cache, and cannot be fetched "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). Without a hub, fetch it where there is "
            f"one (hf download {hub_id}{at} --local-dir FOLDER), bring FOLDER here and pass its path instead"
        ) from error
    if revision is None:
        logger.warning(
            "%s has no pinned revision; its newest, %s, is used (pin it with --revision)", hub_id, folder.name
        )
    return folder
