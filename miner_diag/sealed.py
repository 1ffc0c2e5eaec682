"""Files that carry their own hash: what was changed after it was written is noticed when it is read back.

JSON files hold the hash of all their other fields in the field "facts_sha256". Files of tensors hold one over tensors
and facts in their header. A reader that gets a `DamagedError` says which file it was and what to do: a result is
refused, and what can be computed again is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_safetensors

from miner_diag.files import canonical_json, sha256_bytes, write_atomic

SEAL = "facts_sha256"
"""The field of a JSON object that holds the hash of all other fields."""

METADATA = "miner_diag"
"""The entry of a tensor file's header that holds its facts and the hash, "sha256", over them and the tensors."""


class DamagedError(ValueError):
    """A file that is not what was written; the text says why, the caller which file it is and what to do."""


class UnsealedError(DamagedError):
    """A file without a hash, as earlier versions wrote it."""

    def __init__(self) -> None:
        super().__init__("it has no hash of its content, as an earlier version wrote it")


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of facts, the field "facts_sha256" left out.

    Raises
    ------
    ValueError
        If they hold what JSON does not have.
    """
    kept = {name: value for name, value in facts.items() if name != SEAL}
    # file names may hold bytes that are no text, which Python reads as surrogates
    return sha256_bytes(canonical_json(kept).encode("utf-8", "surrogatepass"))


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as JSON gives them back (tuples are lists), with the field "facts_sha256"."""
    content = json.loads(json.dumps(dict(facts), allow_nan=False))
    return {**content, SEAL: digest_of(content)}


def check_seal(content: Any) -> dict[str, Any]:
    """Return facts that were read, if they are those that were written.

    Raises
    ------
    UnsealedError
        If they have no hash.
    DamagedError
        If they are no JSON object, or another one than was written.
    """
    if not isinstance(content, dict):
        raise DamagedError("it holds no JSON object")
    if SEAL not in content:
        raise UnsealedError
    try:
        found = digest_of(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(error)) from error
    if found != content[SEAL]:
        raise DamagedError("it was changed after it was written")
    return content


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON object with the field "facts_sha256".

    Raises
    ------
    DamagedError
        As in `check_seal`, or if it is not JSON.
    OSError
        If it cannot be opened.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(error)) from error
    return check_seal(content)


def write_tensors(path: Path | str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write arrays as safetensors, whole or not at all, with facts and the hash over both in the header.

    Parameters
    ----------
    path : path
        The file.
    arrays : mapping
        Names and arrays.
    facts : mapping
        Anything that JSON holds; no field may be called "sha256".
    """
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    noted = json.loads(canonical_json(dict(facts)))
    noted["sha256"] = _digest(noted, content)
    write_atomic(path, save_safetensors(content, metadata={METADATA: canonical_json(noted)}))


def read_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what :func:`write_tensors` wrote; return the facts and the arrays.

    Raises
    ------
    UnsealedError
        If the file has no hash.
    DamagedError
        If it is no file of tensors, or another one than was written.
    OSError
        If it cannot be opened.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            noted = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if not isinstance(noted, dict):
            raise DamagedError("its header holds no facts")
        if "sha256" not in noted:
            raise UnsealedError
        found, facts = noted.pop("sha256"), noted
        if _digest(facts, arrays) != found:
            raise DamagedError("it was changed after it was written")
    except (DamagedError, OSError):
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"it holds no tensors ({error})") from error
    return facts, arrays


def _digest(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    shapes = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
    digest = hashlib.sha256(canonical_json([facts, shapes]).encode("utf-8"))
    for name in sorted(arrays):
        rows: Any = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
        digest.update(rows)
    return digest.hexdigest()
