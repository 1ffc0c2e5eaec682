"""Hashes of large files, remembered in the cache folder, so that each file is read once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from miner_diag.files import cache_folder, canonical_json, sha256_bytes, sha256_file, write_atomic
from miner_diag.sealed import DamagedError, UnsealedError, read_sealed, sealed

logger = logging.getLogger(__name__)


def remembered_sha256(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files, by their names below `folder`.

    A hash is remembered in the cache folder by the file's path, size and time of change: a file that has changed is
    read again.
    """
    memory = cache_folder() / "revisions" / f"{sha256_bytes(str(folder).encode())[:32]}.json"
    known = _remembered(memory)
    hashes: dict[str, str] = {}
    remember = dict(known)
    for path in files:
        name, status = path.relative_to(folder).as_posix(), path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        old = known.get(name, {})
        hashes[name] = str(old["sha256"]) if old.get("stamp") == stamp else sha256_file(path)
        remember[name] = {"stamp": stamp, "sha256": hashes[name]}
    if remember != known:
        try:
            write_atomic(memory, canonical_json(sealed({"files": remember})))
        except OSError as error:
            logger.info("the hashes of %s are not remembered: %s", folder, error)
    return hashes


def _remembered(memory: Path) -> dict[str, dict[str, object]]:
    """Read the remembered hashes; a missing or damaged memory is an empty one, and a warning tells of the latter."""
    try:
        content: dict[str, dict[str, object]] = read_sealed(memory)["files"]
        return content
    except OSError as error:
        if memory.exists():
            logger.info("the hashes that %s remembers cannot be read: %s", memory, error)
    except UnsealedError:
        logger.info("%s was written by an earlier version; the files are hashed again", memory)
    except (DamagedError, KeyError) as error:
        logger.warning("%s is damaged (%s); the files are hashed again", memory, error)
    return {}
