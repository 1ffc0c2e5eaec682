"""What a folder of stores holds, and how a store is deleted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd

from miner_diag.embeddings.folder import FORMAT, KEY_FILE, USES, read_json, read_key, shard_files
from miner_diag.embeddings.shards import DamagedStoreError, StoreError, described_items
from miner_diag.files import PlaceError
from miner_diag.sealed import DamagedError, check_seal

DELETED = ".deleted-"
"""The prefix of a folder that is being deleted."""


@dataclass(frozen=True)
class KeptStore:
    """One store: the vectors of one side by one retriever."""

    name: str
    """The name of its folder."""
    model: str
    """The name of the retriever."""
    revision: str
    """What pins the retriever's weights."""
    side: str
    """"query" or "page"."""
    kind: str
    """"pooled layers" or "token vectors"."""
    items: int
    """The number of items."""
    layers: int | None
    """The number of layers; None for token vectors."""
    kept: int | None
    """The number of vectors that are kept of an item, where it is not that of the layers: inner layers are kept under
    both poolings of a retriever that reads one token."""
    width: int | None
    """The width of a vector."""
    size: int
    """The bytes that it takes on disk."""
    data: tuple[str, ...]
    """The data sets that it was used for, with their form and part."""
    last_used: str
    """When it was last used (UTC)."""
    problems: tuple[str, ...] = ()
    """Sentences on what cannot be used of it."""

    @property
    def shape(self) -> str:
        """Layers x width, as a person reads it."""
        if self.width is None:
            return "?"
        if self.layers is None:
            return f"tokens x {self.width}"
        more = "" if self.kept is None else f" + {self.kept - self.layers}"
        return f"{self.layers}{more} x {self.width}"


def list_stores(root: Path | str) -> list[KeptStore]:
    """Return every store in a folder, by name; what was being deleted when a run was killed is removed.

    Parameters
    ----------
    root : path
        The folder of all stores; it may be absent.

    Raises
    ------
    StoreError
        If `root` is one store itself, or no folder.
    """
    root = _checked(root)
    if not root.exists():
        return []
    for folder in root.glob(f"{DELETED}*"):
        shutil.rmtree(folder)
    return [_read(folder) for folder in sorted(root.iterdir()) if _is_store(folder)]


def delete_stores(root: Path | str, names: Sequence[str]) -> list[KeptStore]:
    """Delete stores; all names are checked before anything is deleted.

    Parameters
    ----------
    root : path
        The folder of all stores.
    names : sequence of str
        The names of the stores' folders.

    Returns
    -------
    list of KeptStore
        What was deleted.

    Raises
    ------
    StoreError
        If a name is not that of a folder right in `root`, or that folder is not a store.
    """
    root = _checked(root)
    stores = []
    for name in dict.fromkeys(names):
        folder = root / name
        if name in ("", ".", "..") or Path(name).name != name:
            raise StoreError(f"name must be that of a folder in {root}, as miner-diag store lists it; got {name!r}")
        if folder.is_symlink() or not folder.is_dir():
            known = ", ".join(store.name for store in list_stores(root)) or "nothing"
            raise StoreError(f"{root} holds no store {name!r}; it holds {known}")
        if not _is_store(folder):
            raise StoreError(f"{folder} is not a store (it has no {KEY_FILE}), so it is not deleted")
        stores.append(_read(folder))
    for store in stores:
        # It is gone at once: a run that is killed here leaves no half of a store.
        doomed = Path(tempfile.mkdtemp(prefix=DELETED, dir=root))
        (root / store.name).rename(doomed / store.name)
        shutil.rmtree(doomed)
    return stores


def store_table(stores: Sequence[KeptStore]) -> pd.DataFrame:
    """Return the list as a person reads it, a store a row."""
    return pd.DataFrame(
        {
            "name": store.name,
            "model": store.model,
            "revision": store.revision.removeprefix("sha256:")[:8],
            "side": store.side,
            "items": store.items,
            "layers x width": store.shape,
            "MB": round(store.size / 1e6, 1),
            "last used (UTC)": store.last_used[:16].replace("T", " "),
            "data": "; ".join(store.data),
        }
        for store in stores
    )


def _checked(root: Path | str) -> Path:
    root = Path(root)
    if (root / KEY_FILE).exists():
        raise StoreError(f"{root} is one store, not the folder that holds all of them; pass {root.parent} with --store")
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root} is no folder; --store names the folder in which all commands keep embeddings")
    return root


def _is_store(folder: Path) -> bool:
    return not folder.is_symlink() and folder.is_dir() and (folder / KEY_FILE).is_file()


def _read(folder: Path) -> KeptStore:
    """Return what is known of a store; what cannot be read of it is a problem that is named, not an error."""
    path = folder / KEY_FILE
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    size = sum(file.stat().st_size for file in files)
    changed = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
    problems: list[str] = []
    try:
        header = read_key(path)
    except (DamagedStoreError, PlaceError) as error:
        return KeptStore(folder.name, "?", "?", "?", "?", 0, None, None, None, size, (), changed, (str(error),))
    key = header["key"]
    model, revision = str(header.get("model", key.get("backbone", "?"))), str(key.get("backbone_revision", "?"))
    side, kind = str(key.get("side", "?")), str(key.get("kind", header.get("kind", "pooled layers")))
    if header["format"] != FORMAT:
        problem = (
            f"it has store format {header['format']}, this version reads {FORMAT}, so it is not used; "
            f"--delete {folder.name} makes room"
        )
        return KeptStore(folder.name, model, revision, side, kind, 0, None, None, None, size, (), changed, (problem,))
    n_items = 0
    for file in shard_files(folder):
        try:
            n_items += described_items(file)
        except (DamagedStoreError, PlaceError) as error:
            problems.append(str(error))
    uses = []
    for file in sorted((folder / USES).glob("[!.]*.json")):
        try:
            use = read_json(file)
            told = str(use["last_used"]), f"{use['data']} ({use['form']}, {use['part']})"
            if len(use) > 4:  # earlier versions wrote these fields alone, without a hash
                check_seal(use)
            uses.append(told)
        except KeyError as error:
            problems.append(f"{file} lacks {error}")
        except DamagedError as error:
            problems.append(str(DamagedStoreError(file, str(error))))
        except (DamagedStoreError, PlaceError) as error:
            problems.append(str(error))
    return KeptStore(
        folder.name,
        model,
        revision,
        side,
        kind,
        n_items,
        header.get("layers"),
        header.get("kept"),
        header.get("width"),
        size,
        tuple(sorted(data for _, data in uses)),
        max((moment for moment, _ in uses), default=changed),
        tuple(problems),
    )
