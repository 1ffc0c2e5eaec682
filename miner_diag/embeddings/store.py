"""Pooled vectors of all layers on disk: written whole or not at all, resumed, and refused when foreign or damaged.

A store is a folder. ``key.json`` is written first: everything that changes a number, and the items' ids.
``shard-00000.safetensors`` … hold a fixed set of items each. ``shards.json``, the shards' SHA-256, is written
last: where it stands, the store is whole. No time stamps: the same key and items give the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from miner_diag.files import canonical_json, sha256_bytes, sha256_file, write_atomic

FORMAT = 1
"""Raised when the layout of the files changes."""

KEY_FILE, INDEX_FILE = "key.json", "shards.json"


class StoreError(ValueError):
    """A store that cannot be used as asked."""


class UnfinishedStoreError(StoreError):
    """A folder without a whole store in it."""


class ForeignStoreError(StoreError):
    """A store of something else; `fields` names what differs."""

    def __init__(self, folder: Path, differences: Mapping[str, tuple[Any, Any]]) -> None:
        self.fields = tuple(differences)
        told = "; ".join(
            f"{name}: {_short(have)} there, {_short(want)} asked for" for name, (have, want) in differences.items()
        )
        super().__init__(
            f"{folder} holds embeddings of something else. Fields that differ: {told}. Choose another --out, or "
            "delete the folder"
        )


class DamagedStoreError(StoreError):
    """A store one of whose files is not what was written."""


class EmbeddingStore:
    """Reads a finished store; vectors are memory-mapped until they are asked for.

    Use :func:`open_store`, which checks the files first.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> None:
        self.folder = folder
        """Where it lies."""
        self.key: dict[str, str] = dict(header["key"])
        """Everything that changes a number."""
        self.ids: tuple[str, ...] = tuple(header["ids"])
        """Ids of the items, in the order they were given."""
        self.shape: tuple[int, int, int] = tuple(header["shape"])
        """(N, L, D)."""
        self.counts: dict[str, int] = dict(header["counts"])
        """What was noted of the items: how many were "empty", how many "truncated"."""
        self._shards = [_map_shard(folder / shard["file"]) for shard in shards]

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def layer_embeddings(self) -> np.ndarray:
        """All pooled vectors [N, L, D], float32, read into memory once; row i is item ``ids[i]``. Read-only."""
        whole = np.empty(self.shape, dtype=np.float32)
        for positions, vectors in self._shards:
            whole[positions] = vectors
        whole.setflags(write=False)
        return whole

    def layer(self, layer: int) -> np.ndarray:
        """Return one layer's vectors [N, D], float32, reading nothing else.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        if not 0 <= layer < self.shape[1]:
            raise ValueError(f"layer must be 0 … {self.shape[1] - 1}; got {layer}")
        whole = np.empty((self.shape[0], self.shape[2]), dtype=np.float32)
        for positions, vectors in self._shards:
            whole[positions] = vectors[:, layer]
        return whole

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return all layers [n, L, D], float32, of the items with these numbers, reading nothing else.

        Memory is that of the answer, however large the store is.

        Raises
        ------
        ValueError
            If a number is no item's.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise ValueError(f"rows must be 0 … {len(self) - 1}; got {rows.min()} … {rows.max()}")
        shards, places = self._where[0][rows], self._where[1][rows]
        found = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = self._shards[shard][1][places[here]]
        return found

    @cached_property
    def _where(self) -> tuple[np.ndarray, np.ndarray]:
        """Shard and place in it of every item."""
        shards, places = np.empty((2, len(self)), dtype=np.int64)
        for number, (positions, _) in enumerate(self._shards):
            shards[positions], places[positions] = number, np.arange(len(positions))
        return shards, places


def open_store(folder: Path | str, key: Mapping[str, str] | None = None, *, verify: bool = True) -> EmbeddingStore:
    """Open a finished store.

    Parameters
    ----------
    folder : path
        The store.
    key : mapping, optional
        What it must be the store of; not checked if not given.
    verify : bool
        Compare every shard's SHA-256 with the one noted when it was written.

    Raises
    ------
    UnfinishedStoreError
        If there is no store, or one whose run was stopped.
    ForeignStoreError
        If `key` differs; the message names the fields and both values.
    DamagedStoreError
        If a file is missing or its SHA-256 is wrong; the message names it.
    """
    folder = Path(folder)
    header = _read_header(folder)
    if header is None:
        raise UnfinishedStoreError(f"{folder} holds no embeddings ({KEY_FILE} is missing)")
    if key is not None:
        _refuse_foreign(folder, header["key"], key)
    if not (folder / INDEX_FILE).exists():
        raise UnfinishedStoreError(f"the run that fills {folder} has not finished; start it again, it resumes")
    index = _read_json(folder / INDEX_FILE)
    if verify:
        if index.get("key_sha256") != sha256_file(folder / KEY_FILE):
            raise _damaged(folder / KEY_FILE, "its sha256 is not the one noted")
        for shard in index["shards"]:
            path = folder / shard["file"]
            if not path.exists():
                raise _damaged(path, "it is missing")
            found = sha256_file(path)
            if found != shard["sha256"]:
                raise _damaged(path, f"its sha256 is {found}, noted was {shard['sha256']}")
    return EmbeddingStore(folder, header, index["shards"])


class StoreWriter:
    """Fills a store shard by shard; one that was begun with the same key and items is continued.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    key : mapping of str
        Everything that changes a number.
    ids : sequence of str [N]
        The items, in the order the store gives them back.
    shape : (N, L, D)
        Of the whole.
    counts : mapping of int, optional
        What is to be noted of the items.

    Raises
    ------
    ForeignStoreError
        If the folder was begun with another key.
    StoreError
        If it holds shards but no key, or the same key with other ids or another shape.
    """

    def __init__(
        self,
        folder: Path | str,
        key: Mapping[str, str],
        ids: Sequence[str],
        shape: tuple[int, int, int],
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.shape = shape
        self._key_digest = sha256_bytes(canonical_json(dict(key)).encode())
        header = {
            "format": FORMAT, "key": dict(key), "ids": list(ids), "shape": list(shape), "counts": dict(counts or {}),
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".*-*.*"):  # half a file of a killed run
            if leftover.name.startswith((".shard-", ".key-", ".shards-")):
                leftover.unlink()
        there = _read_header(self.folder)
        if there is None:
            if any(self.folder.glob("shard-*.safetensors")):
                raise StoreError(f"{self.folder} holds shards but no {KEY_FILE}, so nobody knows of what; delete it")
            write_atomic(self.folder / KEY_FILE, canonical_json(header) + "\n")
            return
        _refuse_foreign(self.folder, there["key"], key)
        if there != header:
            raise StoreError(f"{self.folder} has the same key but other items or another shape; delete the folder")

    def has(self, number: int, positions: Sequence[int]) -> bool:
        """Tell whether a shard is there from an earlier run, whole and of these items.

        Raises
        ------
        DamagedStoreError
            If a file of its name is there and is anything else.
        """
        path = self.folder / _shard_name(number)
        if not path.exists():
            return False
        content = path.read_bytes()
        try:
            tensors = load_safetensors(content)
            noted = json.loads(_safetensors_header(content)["__metadata__"]["miner_diag"])
            found = _payload_sha256(tensors["positions"], tensors["layer_embeddings"])
        except (SafetensorError, KeyError, ValueError, struct.error) as error:
            raise _damaged(path, f"it is no shard: {error}") from error
        if noted["sha256"] != found:
            raise _damaged(path, f"the sha256 of its vectors is {found}, noted was {noted['sha256']}")
        whose = noted["key"] == self._key_digest and tensors["positions"].tolist() == list(positions)
        if not whose or tensors["layer_embeddings"].shape != (len(positions), *self.shape[1:]):
            raise _damaged(path, "it holds other items than this store's")
        return True

    def write(self, number: int, positions: Sequence[int], vectors: np.ndarray) -> None:
        """Write one shard: `vectors` [n, L, D] float32 of the items at `positions`."""
        expected = (len(positions), *self.shape[1:])
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise ValueError(f"vectors must be float32 {expected}; got {vectors.dtype} {vectors.shape}")
        rows, vectors = np.asarray(positions, dtype=np.int64), np.ascontiguousarray(vectors)
        noted = canonical_json({"key": self._key_digest, "sha256": _payload_sha256(rows, vectors)})
        # One metadata entry: safetensors does not promise an order among several.
        content = save_safetensors({"positions": rows, "layer_embeddings": vectors}, metadata={"miner_diag": noted})
        write_atomic(self.folder / _shard_name(number), content)

    def finish(self, n_shards: int) -> EmbeddingStore:
        """Note every shard's SHA-256, which makes the store whole, and open it."""
        names = [_shard_name(number) for number in range(n_shards)]
        shards = [{"file": name, "sha256": sha256_file(self.folder / name)} for name in names]
        index = {"key_sha256": sha256_file(self.folder / KEY_FILE), "shards": shards}
        write_atomic(self.folder / INDEX_FILE, canonical_json(index) + "\n")
        return open_store(self.folder, verify=False)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _payload_sha256(positions: np.ndarray, vectors: np.ndarray) -> str:
    return sha256_bytes(positions.tobytes() + np.ascontiguousarray(vectors).tobytes())


def _map_shard(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions [n], vectors [n, L, D]); the vectors are a memory map."""
    with path.open("rb") as handle:
        size = handle.read(8)
        header = json.loads(handle.read(struct.unpack("<Q", size)[0]))
    start = 8 + struct.unpack("<Q", size)[0]

    def tensor(name: str, dtype: type) -> np.ndarray:
        offset = start + header[name]["data_offsets"][0]
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=tuple(header[name]["shape"]))

    return np.array(tensor("positions", np.int64)), tensor("layer_embeddings", np.float32)


def _safetensors_header(content: bytes) -> dict[str, Any]:
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])


def _read_header(folder: Path) -> dict[str, Any] | None:
    path = folder / KEY_FILE
    if not path.exists():
        return None
    header = _read_json(path)
    if not {"format", "key", "ids", "shape", "counts"} <= set(header):
        raise _damaged(path, "fields are missing")
    if header["format"] != FORMAT:
        raise StoreError(f"{folder} has store format {header['format']}, this version reads {FORMAT}; extract again")
    return header


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no JSON object")
    return content


def _refuse_foreign(folder: Path, have: Mapping[str, str], want: Mapping[str, str]) -> None:
    absent = "(absent)"
    names = sorted(set(have) | set(want))
    different = {n: (have.get(n, absent), want.get(n, absent)) for n in names if have.get(n) != want.get(n)}
    if different:
        raise ForeignStoreError(folder, different)


def _damaged(path: Path, reason: str) -> DamagedStoreError:
    return DamagedStoreError(f"{path} is damaged: {reason}. Delete the folder {path.parent} and extract again")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
