"""Folders of shards: written whole or not at all, resumed, and refused when foreign or damaged.

``key.json`` is written first: everything that changes a number, and the items' ids. ``shard-00000.safetensors`` … hold
a fixed set of items each. ``shards.json``, the shards' SHA-256, is written last: where it stands, the store is whole.
No time stamps: the same key and items give the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from miner_diag.files import canonical_json, sha256_bytes, sha256_file, write_atomic

FORMAT = 1
"""Raised when the layout of the files changes."""

KEY_FILE, INDEX_FILE = "key.json", "shards.json"

_DTYPES = {"F16": np.float16, "F32": np.float32, "I64": np.int64}


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


class Layout(NamedTuple):
    """What kind of store a folder is: the fields of its header, the tensors of its shards."""

    kind: str | None
    """Stands in the header as "kind"; None for pooled layers, whose header has had no such field."""
    fields: tuple[str, ...]
    """Fields the header has beside "format", "key" and "ids"."""
    tensors: tuple[str, ...]
    """Names of a shard's tensors beside "positions", in the order in which they are hashed."""


class ShardWriter:
    """Fills a store shard by shard; one that was begun with the same key and items is continued.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    layout : Layout
        What is written.
    key : mapping of str
        Everything that changes a number.
    ids : sequence of str [N]
        The items, in the order the store gives them back.
    fields : mapping
        The layout's fields of the header.
    tidy : bool
        Whether to remove what a killed run left half-written; False where another process may be writing.

    Raises
    ------
    ForeignStoreError
        If the folder was begun with another key.
    StoreError
        If it holds shards but no key, another kind of store, or the same key with other ids or fields.
    """

    def __init__(
        self,
        folder: Path | str,
        layout: Layout,
        key: Mapping[str, str],
        ids: Sequence[str],
        fields: Mapping[str, Any],
        *,
        tidy: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self._layout = layout
        self._key_digest = sha256_bytes(canonical_json(dict(key)).encode())
        header = {"format": FORMAT, "key": dict(key), "ids": list(ids), **fields}
        if layout.kind is not None:
            header["kind"] = layout.kind
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".*-*.*") if tidy else ():  # half a file of a killed run
            if leftover.name.startswith((".shard-", ".key-", ".shards-")):
                leftover.unlink()
        there = _read_header(self.folder, layout)
        if there is None:
            if any(self.folder.glob("shard-*.safetensors")):
                raise StoreError(f"{self.folder} holds shards but no {KEY_FILE}, so nobody knows of what; delete it")
            write_atomic(self.folder / KEY_FILE, canonical_json(header) + "\n")
            return
        _refuse_foreign(self.folder, there["key"], key)
        if there != header:
            raise StoreError(f"{self.folder} has the same key but other items or another shape; delete the folder")

    def fits(self, positions: Sequence[int], tensors: Mapping[str, np.ndarray]) -> bool:
        """Tell whether the tensors can be those of the items at `positions`; for each kind of store to say."""
        raise NotImplementedError

    def has(self, number: int, positions: Sequence[int]) -> bool:
        """Tell whether a shard is there from an earlier run, whole and of these items.

        Raises
        ------
        DamagedStoreError
            If a file of its name is there and is anything else.
        """
        path = self.folder / shard_name(number)
        if not path.exists():
            return False
        content = path.read_bytes()
        try:
            tensors = load_safetensors(content)
            noted = json.loads(_safetensors_header(content)["__metadata__"]["miner_diag"])
            found = self._payload_sha256(tensors)
        except (SafetensorError, KeyError, ValueError, struct.error) as error:
            raise damaged(path, f"it is no shard: {error}") from error
        if noted["sha256"] != found:
            raise damaged(path, f"the sha256 of its vectors is {found}, noted was {noted['sha256']}")
        whose = noted["key"] == self._key_digest and tensors["positions"].tolist() == list(positions)
        if not whose or not self.fits(positions, tensors):
            raise damaged(path, "it holds other items than this store's")
        return True

    def write_tensors(self, number: int, positions: Sequence[int], tensors: Mapping[str, np.ndarray]) -> None:
        """Write one shard: the layout's tensors of the items at `positions`."""
        content = {"positions": np.asarray(positions, dtype=np.int64)}
        content |= {name: np.ascontiguousarray(tensors[name]) for name in self._layout.tensors}
        noted = canonical_json({"key": self._key_digest, "sha256": self._payload_sha256(content)})
        # One metadata entry: safetensors does not promise an order among several.
        write_atomic(self.folder / shard_name(number), save_safetensors(content, metadata={"miner_diag": noted}))

    def write_index(self, n_shards: int) -> None:
        """Note every shard's SHA-256, which makes the store whole."""
        names = [shard_name(number) for number in range(n_shards)]
        shards = [{"file": name, "sha256": sha256_file(self.folder / name)} for name in names]
        index = {"key_sha256": sha256_file(self.folder / KEY_FILE), "shards": shards}
        write_atomic(self.folder / INDEX_FILE, canonical_json(index) + "\n")

    def _payload_sha256(self, tensors: Mapping[str, np.ndarray]) -> str:
        return sha256_bytes(b"".join(tensors[name].tobytes() for name in ("positions", *self._layout.tensors)))


def open_shards(
    folder: Path | str, layout: Layout, key: Mapping[str, str] | None = None, *, verify: bool = True
) -> tuple[dict[str, Any], list[Path]]:
    """Check a finished store; return its header and its shards' paths.

    Parameters
    ----------
    folder : path
        The store.
    layout : Layout
        What kind of store it must be.
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
    header = _read_header(folder, layout)
    if header is None:
        raise UnfinishedStoreError(f"{folder} holds no embeddings ({KEY_FILE} is missing)")
    if key is not None:
        _refuse_foreign(folder, header["key"], key)
    if not (folder / INDEX_FILE).exists():
        raise UnfinishedStoreError(f"the run that fills {folder} has not finished; start it again, it resumes")
    index = _read_json(folder / INDEX_FILE)
    if verify:
        if index.get("key_sha256") != sha256_file(folder / KEY_FILE):
            raise damaged(folder / KEY_FILE, "its sha256 is not the one noted")
        for shard in index["shards"]:
            path = folder / shard["file"]
            if not path.exists():
                raise damaged(path, "it is missing")
            found = sha256_file(path)
            if found != shard["sha256"]:
                raise damaged(path, f"its sha256 is {found}, noted was {shard['sha256']}")
    return header, [folder / shard["file"] for shard in index["shards"]]


def map_shard(path: Path) -> dict[str, np.ndarray]:
    """Return a shard's tensors by name, as memory maps; nothing but the file's header is read."""
    with path.open("rb") as handle:
        size = handle.read(8)
        header = json.loads(handle.read(struct.unpack("<Q", size)[0]))
    start = 8 + struct.unpack("<Q", size)[0]
    header.pop("__metadata__", None)
    return {
        name: np.memmap(
            path,
            dtype=_DTYPES[entry["dtype"]],
            mode="r",
            offset=start + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )
        for name, entry in header.items()
    }


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def damaged(path: Path, reason: str) -> DamagedStoreError:
    """Return the error of a file that is not what was written."""
    return DamagedStoreError(f"{path} is damaged: {reason}. Delete the folder {path.parent} and extract again")


def _safetensors_header(content: bytes) -> dict[str, Any]:
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])


def _read_header(folder: Path, layout: Layout) -> dict[str, Any] | None:
    path = folder / KEY_FILE
    if not path.exists():
        return None
    header = _read_json(path)
    if "format" in header and header.get("kind") != layout.kind:
        kinds = [kind or "pooled layers" for kind in (header.get("kind"), layout.kind)]
        raise StoreError(f"{folder} is a store of {kinds[0]}, not of {kinds[1]}; choose another folder")
    if not {"format", "key", "ids", *layout.fields} <= set(header):
        raise damaged(path, "fields are missing")
    if header["format"] != FORMAT:
        raise StoreError(f"{folder} has store format {header['format']}, this version reads {FORMAT}; extract again")
    return header


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise damaged(path, "it holds no JSON object")
    return content


def _refuse_foreign(folder: Path, have: Mapping[str, str], want: Mapping[str, str]) -> None:
    absent = "(absent)"
    names = sorted(set(have) | set(want))
    different = {n: (have.get(n, absent), want.get(n, absent)) for n in names if have.get(n) != want.get(n)}
    if different:
        raise ForeignStoreError(folder, different)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
