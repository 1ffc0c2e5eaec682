"""Putting an exported folder on a hub, when a user asks for it: never by itself."""

from __future__ import annotations

from pathlib import Path

from miner_diag.hub import HUB_ID, why_not_fetched
from miner_diag.serving.errors import ServingError
from miner_diag.serving.folder import FACTS


def push_folder(folder: Path | str, repo_id: str, *, private: bool = True) -> str:
    """Upload a saved retriever to a hub as one commit; return the address of the commit.

    Parameters
    ----------
    folder : path
        What ``save_pretrained`` or ``export --to hub`` wrote.
    repo_id : str
        owner/name; it is made if it is not there.
    private : bool
        Whether a repository that is made is seen by its owner alone.

    Raises
    ------
    ServingError
        If the folder holds no retriever, the name can be none of a hub, or the hub does not take it.
    """
    folder = Path(folder)
    if not (folder / FACTS).is_file():
        raise ServingError(f"{folder} holds no {FACTS}; make it with save_pretrained or the export to hub")
    if not HUB_ID.fullmatch(repo_id):
        raise ServingError(f"repo_id must be owner/name; got {repo_id!r}")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="miner_diag")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Add a retriever of miner_diag")
    except (HfHubHTTPError, OSError) as error:
        raise ServingError(f"{repo_id} was not uploaded ({why_not_fetched(error)})") from error
    return str(commit.commit_url)
