"""Files of the store: some items' vectors each, written whole or not at all, refused when damaged or foreign.

A shard is a safetensors file. Its one metadata entry says which items it holds, in which store it belongs, and the
SHA-256 over all of that and the vectors. There are no time stamps: the same items give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save as save_safetensors

from miner_diag.files import PlaceError, canonical_json, write_atomic

METADATA = "miner_diag"
"""The entry of a file's metadata. It is one: safetensors does not promise an order among several."""

SUFFIX = ".safetensors"

EMPTY, TRUNCATED = 1, 2
"""Bits of what is noted of an item: there was nothing to see, its end was cut off."""

_DTYPES: Mapping[str, np.dtype] = {"F16": np.dtype(np.float16), "F32": np.dtype(np.float32), "I64": np.dtype(np.int64)}

_verified: set[tuple[str, int, int]] = set()
"""Path, size and time of change of the files whose hash this process has checked or written."""


class StoreError(ValueError):
    """A store that cannot be used."""


class ForeignStoreError(StoreError):
    """A store of something else; `fields` names what differs."""

    def __init__(self, folder: Path, differences: Mapping[str, tuple[Any, Any]]) -> None:
        self.fields = tuple(differences)
        listed = "; ".join(
            f"{name}: {_short(have)} there, {_short(want)} needed" for name, (have, want) in differences.items()
        )
        super().__init__(
            f"{folder} holds embeddings of something else. Fields that differ: {listed}. Delete that folder, or name "
            "another one with --store"
        )


class DamagedStoreError(StoreError):
    """A file of a store that is not what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged: {reason}. Delete this file; what it held is embedded again when it is needed"
        )


class Kind(NamedTuple):
    """A kind of store."""

    name: str
    """What it keeps, as it stands in the key."""
    label: str
    """The same in one word, for the names of folders."""
    tensors: tuple[str, ...]
    """The tensors of a shard, in the order in which they are hashed."""
    shard_items: Mapping[str, int]
    """For each side, the largest number of items in a shard: what is prepared at once, and what a killed run loses."""


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard that was checked."""

    path: Path
    """The file."""
    name: str
    """The name that the plan gave it."""
    ids: tuple[str, ...]
    """The ids of its items."""
    tensors: Mapping[str, np.ndarray]
    """Its tensors, mapped: nothing is read until it is looked at."""


def write_shard(path: Path, kind: Kind, digest: str, ids: Sequence[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write a shard.

    Parameters
    ----------
    path : path
        The file; its stem is the shard's name.
    kind : Kind
        What kind of store it belongs to.
    digest : str
        The hash of the store's key.
    ids : sequence of str [n]
        The ids of its items.
    tensors : mapping
        The kind's tensors.
    """
    content = {name: np.ascontiguousarray(tensors[name]) for name in kind.tensors}
    described = {"store": digest, "shard": path.stem, "ids": list(ids)}
    sha256 = _start_hash(described, {name: (str(array.dtype), array.shape) for name, array in content.items()})
    for array in content.values():
        sha256.update(array.reshape(-1).view(np.uint8))
    noted = canonical_json({**described, "sha256": sha256.hexdigest()})
    write_atomic(path, save_safetensors(content, metadata={METADATA: noted}))
    _verified.add(_state(path))


def open_shard(path: Path, kind: Kind, digest: str) -> Shard:
    """Check a shard and map it; its hash is computed once in a process.

    Raises
    ------
    DamagedStoreError
        If it is not what was written, or belongs to another store or under another name.
    """
    header, start = read_header(path)
    try:
        noted = json.loads(header["__metadata__"][METADATA])
        recorded, described = noted.pop("sha256"), noted
        file = np.memmap(path, dtype=np.uint8, mode="r")[start:]
        tensors = {name: _tensor(file, header[name]) for name in kind.tensors}
        ids = tuple(described["ids"])
        rows = len(tensors["notes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedStoreError(path, f"it is no shard of {kind.name} ({error!r})") from error
    if len(file) != sum(array.nbytes for array in tensors.values()):
        raise DamagedStoreError(path, f"its {len(file)} bytes of vectors are not those that its header describes")
    state = _state(path)
    if state not in _verified:
        sha256 = _start_hash(described, {name: (str(array.dtype), array.shape) for name, array in tensors.items()})
        for array in tensors.values():
            sha256.update(array.reshape(-1).view(np.uint8))
        if sha256.hexdigest() != recorded:
            raise DamagedStoreError(path, f"its sha256 is {sha256.hexdigest()}, noted was {recorded}")
        _verified.add(state)
    if described["store"] != digest or described["shard"] != path.stem or len(ids) != rows:
        raise DamagedStoreError(path, "it holds other items than its name says, or those of another store")
    return Shard(path, path.stem, ids, tensors)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and where its tensors begin.

    Raises
    ------
    DamagedStoreError
        If it has none.
    """
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if 8 + length > path.stat().st_size:
                raise ValueError(f"its header would be {length} bytes long")
            header = json.loads(handle.read(length))
    except PermissionError as error:
        raise PlaceError(path, error, "read") from error
    except (OSError, ValueError, struct.error) as error:
        raise DamagedStoreError(path, str(error)) from error
    if not isinstance(header, dict):
        raise DamagedStoreError(path, "its header is no JSON object")
    return header, 8 + length


def described_items(path: Path) -> int:
    """Return the number of items that a shard says it holds; its vectors are not checked.

    Raises
    ------
    DamagedStoreError
        If its header cannot be read.
    """
    header, _ = read_header(path)
    try:
        return len(json.loads(header["__metadata__"][METADATA])["ids"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedStoreError(path, f"it is no shard ({error!r})") from error


def _start_hash(described: Mapping[str, Any], shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> Any:
    """Return a SHA-256 that has seen everything of a shard but its vectors."""
    return hashlib.sha256(canonical_json([described, {name: list(shape) for name, shape in shapes.items()}]).encode())


def _tensor(file: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Return a tensor as a view of the mapped file."""
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(file):
        raise ValueError(f"its tensors end at {end}, the file at {len(file)}")
    array: np.ndarray = file[start:end].view(_DTYPES[entry["dtype"]])
    return array.reshape(entry["shape"])


def _state(path: Path) -> tuple[str, int, int]:
    status = os.stat(path)
    return os.fspath(path.resolve()), status.st_size, status.st_mtime_ns


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
