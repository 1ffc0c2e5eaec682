"""From a hub id to a local folder: the pinned revision, fetched once by huggingface_hub, or a clear sentence."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from miner_diag.backbones.errors import UnknownBackboneError
from miner_diag.hub import COMMIT, HUB_ID, why_not_fetched

logger = logging.getLogger(__name__)

REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][A-Za-z0-9_./-]{0,249}")
"""A commit hash, or the name of a branch or tag; it becomes part of a URL and of a path in the hub's cache."""

SETTINGS = ["*.json"]
"""The files that say what a checkpoint is."""
FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
"""The files of a checkpoint that are fetched; Python files only where remote code is trusted."""
LEFT_OUT = ["onnx/*", "openvino/*", "*.gguf"]
"""Other formats of the same weights."""


@dataclass(frozen=True)
class Source:
    """Where a checkpoint's files come from: a local folder, or a repository of the hub at one revision."""

    name: str
    """The name that tables give to the retriever."""
    settings: Path
    """The folder that holds its configurations; of a hub id, perhaps nothing else yet."""
    hub_id: str = ""
    """owner/name; "" for a local folder."""
    revision: str | None = None
    """The commit hash that is fetched."""

    def fetch(self, *, trust_remote_code: bool = False) -> Path:
        """Return the folder with all files, fetched where they are not here yet."""
        if not self.hub_id:
            return self.settings
        return fetch(self.hub_id, self.revision, trust_remote_code=trust_remote_code)


def looks_like_hub_id(model: str) -> bool:
    """Tell whether a name could be a hub id: one slash, and no path."""
    return HUB_ID.fullmatch(model) is not None


def find_source(model: str, revision: str | None = None) -> Source | None:
    """Return where a model's files come from, its configurations fetched; None if it is no folder and no hub id.

    Parameters
    ----------
    model : str
        A local folder or a hub id.
    revision : str, optional
        The commit hash of a hub id.

    Raises
    ------
    UnknownBackboneError
        If a hub id's files cannot be fetched.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Source(folder.resolve().name, folder)
    if not looks_like_hub_id(model):
        return None
    settings = fetch(model, revision, settings_only=True)
    if revision is None and COMMIT.fullmatch(settings.name):
        revision = settings.name  # the weights must be those of the same commit
    return Source(model.rsplit("/", 1)[-1], settings, model, revision)


def fetch(hub_id: str, revision: str | None, *, settings_only: bool = False, trust_remote_code: bool = False) -> Path:
    """Return the folder of a checkpoint in huggingface_hub's cache, fetching what is not there yet.

    Parameters
    ----------
    hub_id : str
        owner/name.
    revision : str, optional
        Commit hash; without one the repository's newest is taken, with a warning that names it.
    settings_only : bool
        Fetch the configurations alone.
    trust_remote_code : bool
        Fetch Python files too.

    Raises
    ------
    UnknownBackboneError
        If it is not in the cache and no hub answers, or the hub does not have it; says how to pass a folder.
    """
    if not looks_like_hub_id(hub_id):
        raise UnknownBackboneError(f"{hub_id!r} is no hub id; expected owner/name")
    if revision is not None and not REVISION.fullmatch(revision):
        raise UnknownBackboneError(
            f"revision {revision!r} of {hub_id} can't be one; expected a commit hash, or the name of a branch or tag"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    files = SETTINGS if settings_only else [*FILES, *(["*.py"] if trust_remote_code else [])]
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, ignore_patterns=LEFT_OUT, allow_patterns=files))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        at = f" --revision {revision}" if revision else ""
        raise UnknownBackboneError(
            f"{hub_id} is not a local folder, not in the hub's cache, and cannot be fetched "
            f"({why_not_fetched(error)}). Without a hub, fetch it where there is one (hf download {hub_id}{at} "
            "--local-dir FOLDER), bring FOLDER here and pass its path instead"
        ) from error
    if revision is None:
        logger.warning(
            "%s has no pinned revision; its newest, %s, is used (pin it with --revision)", hub_id, folder.name
        )
    return folder
