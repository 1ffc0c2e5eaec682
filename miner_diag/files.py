"""Files that are written whole or not at all, their hashes, and where the cache lives."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from miner_diag.locks import HAS_LOCKS, take_lock

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "MINER_DIAG_CACHE"
"""Environment variable that moves the cache folder."""


_PARTIAL = re.compile(r"\..*-partial-[a-z0-9_]{8}(\..*)?")
"""The names of files that are being written."""

_LEFTOVER_SECONDS = 3600.0
"""Where the platform has no locks, a half-written file that has not changed for so long was left by a killed run."""

_NO_PLACE = {errno.ENOSPC, errno.EROFS, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])}
"""What can only be said of a file that is written."""


class PlaceError(OSError):
    """A file that cannot be read or written where it is to lie: the place is to blame, not what it would hold."""

    def __init__(self, path: Path, error: OSError, verb: str = "written") -> None:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            advice = "free space there"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            advice = "make that folder writable" if verb == "written" else "make it readable"
        else:
            advice = "see to that folder"
        where = f"set {CACHE_VARIABLE} to another folder" if _is_below(path, cache_folder()) else "name another folder"
        super().__init__(f"{path} cannot be {verb} ({error.strerror or error}); {advice}, or {where}")
        self.errno = error.errno


def cache_folder() -> Path:
    """Folder for what can be computed or fetched again: ``$MINER_DIAG_CACHE`` or the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("miner_diag"))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is renamed to `path`, on an error it is removed.

    The name keeps the suffix of `path`, because image writers choose their format by it. Readers see the old
    file or the whole new one, never a part. The temporary file is locked while this process lives, so that
    `remove_leftovers` knows what a killed one has left.

    Raises
    ------
    PlaceError
        If the file cannot be written there: no right, no space, no folder. It is an OSError.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-partial-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise PlaceError(path, error) from error
    temporary = Path(name)
    try:
        take_lock(handle)
        try:
            yield temporary
        except OSError as error:
            if error.errno in _NO_PLACE and not isinstance(error, PlaceError):
                raise PlaceError(path, error) from error
            raise
        try:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except OSError as error:
            raise PlaceError(path, error) from error
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path | str, *, depth: int = 3, seconds: float = 0.0) -> list[Path]:
    """Delete what killed processes have left half-written; return it.

    A file that a living process writes is locked, and stays.

    Parameters
    ----------
    folder : path
        The folder.
    depth : int
        How many levels are looked through: 1 is the folder alone.
    seconds : float
        Only files that have not changed for so long. In a folder that several processes write to at once it must be
        above 0: a file is made a moment before it is locked.
    """
    removed = []
    top = os.fspath(folder)
    for here, folders, names in os.walk(top):
        if len(Path(here).relative_to(top).parts) >= depth - 1:
            folders.clear()
        for name in names:
            path = Path(here, name)
            if _PARTIAL.fullmatch(name) and _is_left(path, seconds):
                path.unlink(missing_ok=True)
                removed.append(path)
    return removed


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        try:
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        except OSError as error:
            raise PlaceError(Path(path), error) from error


def sha256_bytes(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the hexadecimal SHA-256 of the file's bytes, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(handle)


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes, so it can be hashed.

    Raises
    ------
    ValueError
        If `value` holds NaN or an infinity, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _is_left(path: Path, seconds: float) -> bool:
    """Return whether no living process writes this file, and it has not changed for so long."""
    try:
        if path.stat().st_mtime > time.time() - (seconds if HAS_LOCKS else _LEFTOVER_SECONDS):
            return False
        if not HAS_LOCKS:
            return True
        handle = os.open(path, os.O_RDWR)
    except OSError as error:
        logger.info("%s is left where it is: %s", path, error)
        return False
    try:
        return take_lock(handle)
    finally:
        os.close(handle)


def _is_below(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _digest(handle: Any) -> str:
    """Python 3.10 has no hashlib.file_digest."""
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    """Read the process's umask; there is no call that reads it without setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
