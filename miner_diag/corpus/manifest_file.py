"""A manifest as a file: what stands in it, where manifests lie, and the checks of what is read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from miner_diag.corpus.core import CorpusError

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ManifestDocument:
    """One PDF of a data set."""

    id: str
    """The name in the corpus."""
    sha256: str
    """The SHA-256 of the PDF, uncompressed."""
    package: str
    """The Debian package that holds it."""
    version: str
    """The version of that package."""
    path: str
    """Where the PDF is inside the package."""
    title: str = ""
    """The title that the document itself has."""
    licence: str = ""
    """The SPDX expression, or the licence's name."""
    copyright: str = ""
    """Who holds the copyright."""
    source_package: str = ""
    """The Debian source package, where the corresponding source is."""


@dataclass(frozen=True)
class ManifestPackage:
    """One Debian package that documents are fetched from."""

    name: str
    """The name that apt knows."""
    version: str
    """The version that was read when the manifest was made."""
    bytes: int
    """The size of the download."""


@dataclass(frozen=True)
class Manifest:
    """A data set, by name."""

    name: str
    """What ``--data`` takes."""
    source: str
    """"shipped" (inside this package) or "debian" (fetched with apt-get)."""
    description: str
    """What the data set is, in one sentence."""
    documents: tuple[ManifestDocument, ...]
    """The documents, in the corpus's order."""
    packages: tuple[ManifestPackage, ...] = ()
    """The packages that are fetched; empty for a shipped data set."""
    counts: dict[str, int] = field(default_factory=dict)
    """The numbers of documents, pages, queries, and queries by kind."""
    content_sha256: str = ""
    """The SHA-256 over every document's name, hash, and the titles and captions that stand on each of its pages."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """The versions of the reader that `counts` and `content_sha256` were made with."""


def manifest_folder() -> Path:
    """Return the folder of the shipped manifests: inside the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "data_manifests"
    return inside if inside.is_dir() else package.parent / "data_manifests"


def manifest_names() -> tuple[str, ...]:
    """Return the names that ``--data`` takes."""
    return tuple(sorted(path.stem for path in manifest_folder().glob("*.yaml")))


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest file; what is in it is checked, because it names files.

    Raises
    ------
    CorpusError
        If it is no YAML, lacks a field, has one that is not known, or names an id, hash or path that can't be.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CorpusError(f"manifest {path} is not readable: {error}") from None
    if not isinstance(content, dict):
        raise CorpusError(f"manifest {path} must hold fields; got {type(content).__name__}")
    documents = tuple(_row(ManifestDocument, row, path) for row in content.pop("documents", None) or ())
    packages = tuple(_row(ManifestPackage, row, path) for row in content.pop("packages", None) or ())
    manifest = _row(Manifest, {**content, "documents": documents, "packages": packages}, path)
    if not isinstance(manifest.name, str) or not _ID.fullmatch(manifest.name):
        raise CorpusError(f"manifest {path}: name must match {_ID.pattern}; got {manifest.name!r}")
    if manifest.source not in ("shipped", "debian"):
        raise CorpusError(f"manifest {path}: source must be shipped or debian; got {manifest.source!r}")
    ids = Counter(document.id for document in documents)
    for document in documents:
        inside = PurePosixPath(document.path)
        if not _ID.fullmatch(document.id) or ids[document.id] > 1:
            raise CorpusError(f"manifest {path}: document id {document.id!r} must be unique and match {_ID.pattern}")
        if not _SHA256.fullmatch(document.sha256):
            raise CorpusError(f"manifest {path}: sha256 of {document.id} must be 64 hexadecimal digits")
        if inside.is_absolute() or ".." in inside.parts:
            raise CorpusError(f"manifest {path}: path of {document.id} leaves the package: {document.path!r}")
    if not documents:
        raise CorpusError(f"manifest {path} names no document")
    return manifest


def _row(kind: type, row: Any, path: Path) -> Any:
    if not isinstance(row, dict):
        raise CorpusError(f"manifest {path}: expected a {kind.__name__} with named fields; got {row!r}")
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(row) - known):
        raise CorpusError(f"manifest {path}: {kind.__name__} has unknown fields {unknown}; known are {sorted(known)}")
    try:
        return kind(**row)
    except TypeError as error:
        raise CorpusError(f"manifest {path}: {kind.__name__}: {error}") from None
