"""The revision of a local folder: one hash over the files that decide its numbers."""

from __future__ import annotations

import logging
from pathlib import Path

from miner_diag.files import cache_folder, canonical_json, sha256_bytes, sha256_file, write_atomic
from miner_diag.sealed import DamagedError, UnsealedError, read_sealed, sealed

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".json", ".txt", ".model", ".py", ".jinja", ".tiktoken"})
"""The endings of weights, configurations, tokenizers and remote code. Cards, pictures and logs do not count."""


def folder_revision(folder: Path | str) -> str:
    """Return "sha256:…" over the weight and configuration files of `folder`, names included.

    The hash of a file is remembered in the cache folder by its path, size and time of change, so a large
    checkpoint is read once.

    Raises
    ------
    ValueError
        If the folder holds no such file.
    """
    folder = Path(folder).resolve()
    files = [path for path in sorted(folder.rglob("*")) if _counts(path.relative_to(folder), path)]
    if not files:
        raise ValueError(f"{folder} holds no weight or configuration file, so it has no revision")
    memory = cache_folder() / "revisions" / f"{sha256_bytes(str(folder).encode())[:32]}.json"
    known = _remembered(memory)
    hashes: dict[str, str] = {}
    remember: dict[str, dict[str, object]] = {}
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
    return f"sha256:{sha256_bytes(canonical_json(hashes).encode())}"


def _counts(relative: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    other_format = relative.parts[0] in ("onnx", "openvino")
    return path.suffix in SUFFIXES and path.is_file() and not hidden and not other_format


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
        logger.warning("%s is damaged (%s); the files of the checkpoint are hashed again", memory, error)
    return {}
