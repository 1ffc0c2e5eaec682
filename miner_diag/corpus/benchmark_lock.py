"""The lock of a benchmark's data set: what its rows were when it was first loaded from a hub.

A commit cannot change, so rows that differ at a later load were damaged or altered on the way or on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from miner_diag.corpus.core import CorpusError
from miner_diag.files import PlaceError, cache_folder, canonical_json, sha256_bytes, write_atomic
from miner_diag.sealed import DamagedError, read_sealed, sealed

FORMAT = 1
"""The number of the layout of the file."""


def lock_path(name: str, revision: str) -> Path:
    """Return where the lock of a data set at a commit lies."""
    return cache_folder() / "locks" / f"{name}-{revision[:12]}.json"


def rows_sha256(rows: Iterable[Any]) -> str:
    """Return the SHA-256 over rows, in their order."""
    return sha256_bytes("\n".join(map(canonical_json, rows)).encode("utf-8", "surrogatepass"))


def check_lock(path: Path, facts: dict[str, Any], *, write: bool) -> None:
    """Compare what was read with the lock; where there is none, write it if asked.

    Parameters
    ----------
    path : path
        What `lock_path` returned.
    facts : dict
        What must be the same at every load.
    write : bool
        Whether a lock that is not there is made.

    Raises
    ------
    CorpusError
        If something differs, or the lock was changed after it was written; says what to delete.
    PlaceError
        If it cannot be read or written. It is an OSError.
    """
    facts = {"format": FORMAT, **facts}
    try:
        noted = read_sealed(path)
    except FileNotFoundError:
        if write:
            write_atomic(path, json.dumps(sealed(facts), indent=2) + "\n")
        return
    except DamagedError as error:
        raise CorpusError(
            f"{path}, which says what this data set was at its first load, is damaged: {error}. Delete it if you trust "
            "the data; it is made anew"
        ) from None
    except OSError as error:
        raise PlaceError(path, error, "read") from error
    stated = json.loads(json.dumps(facts))
    if changed := [name for name in stated if noted.get(name) != stated[name]]:
        listed = "; ".join(f"{name} was {noted.get(name)}, is {stated[name]}" for name in changed)
        raise CorpusError(
            f"data set {facts['name']} is not what it was when it was first loaded from the hub: {listed}. Its files "
            f"were damaged or altered: fetch them anew (delete {cache_folder() / 'datasets'}, and the data set in the "
            f"hub's cache), or delete {path} if the data set of now is the right one"
        )
