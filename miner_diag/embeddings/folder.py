"""The folder of a store: one retriever's vectors of one side, shared by all commands and all data.

``key.json`` holds everything that changes a number, ``shards/`` the vectors, ``noise/`` the noise floors, and ``uses/``
names the data that the vectors are of.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.backbones.base import Side
from miner_diag.corpus.core import Corpus
from miner_diag.embeddings.shards import (
    SUFFIX,
    DamagedStoreError,
    ForeignStoreError,
    Kind,
    Shard,
    StoreError,
    open_shard,
    write_shard,
)
from miner_diag.files import PlaceError, canonical_json, sha256_bytes, write_atomic
from miner_diag.sealed import sealed
from miner_diag.version import __version__

FORMAT = 4
"""The number of the layout of the files. It is raised when the layout changes."""

KEY_FILE, SHARDS, NOISE, USES = "key.json", "shards", "noise", "uses"

LEFTOVER_SECONDS = 3600.0
"""A half-written file that nobody has changed for so long was left by a killed run."""


class StoreFolder:
    """The folder of one retriever's vectors of one side. It is made when it is opened for the first time.

    Parameters
    ----------
    root : path
        The folder of all stores.
    kind : Kind
        What is kept.
    side : {"query", "page"}
        The side of the retrieval.
    model : str
        The name of the retriever; the folder's name begins with it.
    key : mapping of str
        Everything that changes a number.
    fields : mapping
        What else ``key.json`` says of the vectors: how many layers, how wide.
    """

    def __init__(
        self, root: Path | str, kind: Kind, side: Side, model: str, key: Mapping[str, str], fields: Mapping[str, Any]
    ) -> None:
        self.kind, self.side = kind, side
        self.key = {**key, "side": side, "kind": kind.name, "package_version": __version__}
        self.digest = sha256_bytes(canonical_json(self.key).encode())
        self.header = {"format": FORMAT, "model": model, "key": self.key, **fields}
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[:60] or "model"
        self.path = Path(root) / f"{name}-{side}-{kind.label}-{self.digest[:12]}"

    def open(self) -> None:
        """Make the folder, or check that it is this store's; remove what killed runs have left half-written.

        Raises
        ------
        ForeignStoreError
            If it holds vectors with another key.
        StoreError
            If its format is another one, it has shards and no key, or the folder of all stores is a store itself.
        DamagedStoreError
            If its key cannot be read.
        """
        root, path = self.path.parent, self.path / KEY_FILE
        if (root / KEY_FILE).exists():
            raise StoreError(
                f"{root} is one store, not the folder that holds all of them; name another folder with --store"
            )
        if not path.exists():
            if self.present():
                raise StoreError(f"{self.path} holds shards but no {KEY_FILE}, so nobody knows of what; delete it")
            write_atomic(path, canonical_json(self.header) + "\n")
            return
        header = read_key(path)
        if header["format"] != FORMAT:
            raise StoreError(
                f"{self.path} has store format {header['format']}, this version reads {FORMAT}; delete that folder "
                f"(miner-diag store --store {root} --delete {self.path.name})"
            )
        refuse_foreign(self.path, header["key"], self.key)
        if header != self.header:
            raise StoreError(f"{self.path} has the same key but vectors of another shape; delete that folder")
        self._remove_leftovers()

    def present(self) -> set[str]:
        """Return the names of the shards that are there."""
        return {path.name.removesuffix(SUFFIX) for path in shard_files(self.path)}

    def write(self, name: str, ids: Sequence[str], tensors: Mapping[str, np.ndarray]) -> None:
        """Write a shard, whole or not at all."""
        write_shard(self._file(name), self.kind, self.digest, ids, tensors)

    def shard(self, name: str) -> Shard:
        """Return a shard, checked and mapped; raise DamagedStoreError if it is not what was written."""
        return open_shard(self._file(name), self.kind, self.digest)

    def note_use(self, corpus: Corpus) -> None:
        """Note that the vectors of a corpus are kept here, and that they were used now."""
        content = {"data": corpus.name, "form": corpus.form, "part": corpus.part}
        digest = sha256_bytes(canonical_json(content).encode())
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        noted = sealed({**content, "last_used": now})
        write_atomic(self.path / USES / f"{digest[:12]}.json", canonical_json(noted) + "\n")

    def _file(self, name: str) -> Path:
        return self.path / SHARDS / f"{name}{SUFFIX}"

    def _remove_leftovers(self) -> None:
        oldest = time.time() - LEFTOVER_SECONDS
        for folder in (self.path, self.path / SHARDS, self.path / NOISE, self.path / USES):
            for path in folder.glob(".*-*.*"):
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)


def shard_files(folder: Path) -> list[Path]:
    """Return the files of the shards in a store's folder, in the order of their names."""
    try:
        with os.scandir(folder / SHARDS) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(SUFFIX) and not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    return [folder / SHARDS / name for name in sorted(names)]


def read_key(path: Path) -> dict[str, Any]:
    """Read the ``key.json`` of a store of any format.

    Raises
    ------
    DamagedStoreError
        If it cannot be read or lacks a field.
    """
    header = read_json(path)
    if not {"format", "key"} <= set(header) or not isinstance(header["key"], dict):
        raise DamagedStoreError(path, "fields are missing")
    return header


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a store.

    Raises
    ------
    DamagedStoreError
        If it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise PlaceError(path, error, "read") from error
    except (OSError, ValueError) as error:
        raise DamagedStoreError(path, str(error)) from error
    if not isinstance(content, dict):
        raise DamagedStoreError(path, "it holds no JSON object")
    return content


def refuse_foreign(folder: Path, have: Mapping[str, str], want: Mapping[str, str]) -> None:
    """Check that two keys are the same.

    Raises
    ------
    ForeignStoreError
        If they are not; the fields that differ are named.
    """
    absent = "(absent)"
    names = sorted(set(have) | set(want))
    different = {n: (have.get(n, absent), want.get(n, absent)) for n in names if have.get(n) != want.get(n)}
    if different:
        raise ForeignStoreError(folder, different)
