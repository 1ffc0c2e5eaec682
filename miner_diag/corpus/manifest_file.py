"""A manifest as a file: what stands in it, where manifests lie, and the checks of what is read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.fields_file import check_count, check_fields, check_text, read_fields, shown

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}")
"""A package's name, as Debian's policy has it: nothing that apt-get reads as an option or a path."""
_VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9.+~-]{0,99}")
"""A package's version, as Debian's policy has it."""


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
    try:
        return _checked(read_fields(path), f"manifest {path}")
    except CorpusError:
        raise
    except ValueError as error:
        message = str(error)
        raise CorpusError(message if message.startswith("manifest ") else f"manifest {message}") from None


def _checked(content: dict[str, Any], where: str) -> Manifest:
    rows: dict[str, tuple] = {}
    for name, kind in (("documents", ManifestDocument), ("packages", ManifestPackage)):
        listed = content.get(name) or []
        if not isinstance(listed, list):
            raise CorpusError(f"{where}: {name} must be a list; got {shown(listed)}")
        rows[name] = tuple(
            kind(**check_fields(kind, row, f"{where}: {name}, number {number}"))
            for number, row in enumerate(listed, start=1)
        )
    content = content | rows
    manifest = Manifest(**check_fields(Manifest, content, where, given=frozenset(rows)))
    _match(_ID, manifest.name, f"{where}: name")
    if manifest.source not in ("shipped", "debian"):
        raise CorpusError(f"{where}: source must be shipped or debian; got {manifest.source!r}")
    if manifest.content_sha256:
        _match(_SHA256, manifest.content_sha256, f"{where}: content_sha256", "be 64 hexadecimal digits")
    for name in ("counts", "made_with"):
        if not isinstance(values := getattr(manifest, name), dict):
            raise CorpusError(f"{where}: {name} must hold fields with names; got {shown(values)}")
    for name, count in manifest.counts.items():
        check_count(count, f"{where}: counts of {check_text(name, f'{where}: a name in counts')}")
    for name, version in manifest.made_with.items():
        if not isinstance(version, (str, int)):
            raise CorpusError(f"{where}: made_with: {shown(name)} must be a text or a number; got {shown(version)}")
    for package in manifest.packages:
        _match(_PACKAGE, package.name, f"{where}: name of a package")
        _match(_VERSION, package.version, f"{where}: version of {package.name}")
    ids = Counter(document.id for document in manifest.documents)
    for document in manifest.documents:
        inside = PurePosixPath(document.path)
        if not _ID.fullmatch(document.id) or ids[document.id] > 1:
            raise CorpusError(f"{where}: document id {document.id!r} must be unique and match {_ID.pattern}")
        _match(_SHA256, document.sha256, f"{where}: sha256 of {document.id}", "be 64 hexadecimal digits")
        _match(_PACKAGE, document.package, f"{where}: package of {document.id}")
        _match(_VERSION, document.version, f"{where}: version of {document.id}")
        if inside.is_absolute() or ".." in inside.parts:
            raise CorpusError(f"{where}: path of {document.id} leaves the package: {document.path!r}")
    if not manifest.documents:
        raise CorpusError(f"{where} names no document")
    return manifest


def _match(pattern: re.Pattern[str], value: str, what: str, wanted: str = "") -> None:
    if not pattern.fullmatch(value):
        raise CorpusError(f"{what} must {wanted or f'match {pattern.pattern}'}; got {shown(value)}")
