"""The revision of a local folder: one hash over the files that decide its numbers."""

from __future__ import annotations

from pathlib import Path

from miner_diag.file_hashes import remembered_sha256
from miner_diag.files import canonical_json, sha256_bytes

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
    files = revision_files(folder)
    if not files:
        raise ValueError(f"{folder} holds no weight or configuration file, so it has no revision")
    return f"sha256:{sha256_bytes(canonical_json(remembered_sha256(folder, files)).encode())}"


def revision_files(folder: Path) -> list[Path]:
    """Return the weight and configuration files of a folder, in order."""
    return [path for path in sorted(folder.rglob("*")) if _counts(path.relative_to(folder), path)]


def _counts(relative: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    other_format = relative.parts[0] in ("onnx", "openvino")
    return path.suffix in SUFFIXES and path.is_file() and not hidden and not other_format
