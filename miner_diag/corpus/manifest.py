"""Manifests: which documents a data set is made of, where they come from, their licences, counts and hashes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from miner_diag.corpus.assemble import assemble, unique_queries
from miner_diag.corpus.core import Corpus, CorpusError, Form
from miner_diag.corpus.debian import fetch_debian
from miner_diag.corpus.document import READER_VERSION, Document
from miner_diag.corpus.folder import read_documents
from miner_diag.files import canonical_json, sha256_bytes, sha256_file

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ManifestDocument:
    """One PDF of a data set."""

    id: str
    """Its name in the corpus."""
    sha256: str
    """Of the PDF, uncompressed."""
    package: str
    """Debian package that holds it."""
    version: str
    """Version of that package."""
    path: str
    """Where the PDF is inside the package."""
    title: str = ""
    """The document's own."""
    licence: str = ""
    """SPDX expression, or the licence's name."""
    copyright: str = ""
    """Who holds it."""
    source_package: str = ""
    """Debian source package: where the corresponding source is."""


@dataclass(frozen=True)
class ManifestPackage:
    """One Debian package that documents are fetched from."""

    name: str
    """As apt knows it."""
    version: str
    """The one that was read when the manifest was made."""
    bytes: int
    """Size of the download."""


@dataclass(frozen=True)
class Manifest:
    """A data set, by name."""

    name: str
    """What ``--data`` takes."""
    source: str
    """"shipped" (inside this package) or "debian" (fetched with apt-get)."""
    description: str
    """One sentence."""
    documents: tuple[ManifestDocument, ...]
    """In the corpus's order."""
    packages: tuple[ManifestPackage, ...] = ()
    """What is fetched; empty for a shipped data set."""
    counts: dict[str, int] = field(default_factory=dict)
    """documents, pages, queries, and queries by kind."""
    content_sha256: str = ""
    """Over every document's name, hash, and the titles and captions found on each of its pages."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """Versions of the reader that `counts` and `content_sha256` were made with."""


def manifest_folder() -> Path:
    """Folder of the shipped manifests: inside the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "data_manifests"
    return inside if inside.is_dir() else package.parent / "data_manifests"


def manifest_names() -> tuple[str, ...]:
    """Names that ``--data`` takes."""
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


def load_manifest(manifest: Manifest, *, form: Form = "hidden", fold: int = 0) -> Corpus:
    """Get the documents of a manifest, check them against it, and build the corpus.

    Raises
    ------
    CorpusError
        If a document is missing, its hash differs, or the counts or the content differ from the manifest's.
    """
    documents = read_manifest_documents(manifest)
    counts, content = describe(documents)
    if manifest.counts != counts or manifest.content_sha256 != content:
        raise CorpusError(
            f"data set {manifest.name} reads differently from its manifest: counts {counts}, expected "
            f"{manifest.counts}; content {content[:12]}, expected {manifest.content_sha256[:12]}. The manifest was "
            f"made with {manifest.made_with}, this is {reader_versions()}: install that pypdfium2 (see constraints.txt)"
        )
    return assemble(manifest.name, documents, form=form, fold=fold)


def read_manifest_documents(manifest: Manifest) -> list[Document]:
    """Return the manifest's documents, read from files whose hashes were checked."""
    files = shipped_files(manifest) if manifest.source == "shipped" else fetch_debian(manifest)
    documents, skipped = read_documents(files)
    if skipped:
        raise CorpusError(f"data set {manifest.name}: {skipped[0].name} can't be read: {skipped[0].reason}")
    return documents


def shipped_files(manifest: Manifest) -> dict[str, Path]:
    """Return doc_id -> path of the PDFs inside this package, their hashes checked."""
    folder = Path(__file__).parent / manifest.name
    files = {document.id: folder / f"{document.id}.pdf" for document in manifest.documents}
    for document in manifest.documents:
        path = files[document.id]
        if not path.is_file():
            raise CorpusError(f"data set {manifest.name}: {path} is missing; install the package again")
        if (found := sha256_file(path)) != document.sha256:
            raise CorpusError(
                f"data set {manifest.name}: {path.name} has sha256 {found[:12]}…, the manifest says "
                f"{document.sha256[:12]}…; the file was changed: install the package again"
            )
    return files


def describe(documents: Sequence[Document]) -> tuple[dict[str, int], str]:
    """Return counts and the content hash of documents, as a manifest holds them."""
    kinds = Counter(query.kind for query in unique_queries(documents)[0])
    counts = {
        "documents": len(documents),
        "pages": sum(len(d.pages) for d in documents),
        "queries": kinds.total(),
    }
    counts |= {kind: kinds[kind] for kind in ("outline", "figure", "table")}
    content = [[d.doc_id, d.sha256, [[p.number, p.candidates] for p in d.pages]] for d in documents]
    return counts, sha256_bytes(canonical_json(content).encode("utf-8"))


def frozen_text(manifest: Manifest, documents: Sequence[Document]) -> str:
    """Return the manifest as YAML with the counts and the content hash of what was just read."""
    counts, content = describe(documents)
    fields_ = asdict(manifest) | {"counts": counts, "content_sha256": content, "made_with": reader_versions()}
    fields_["documents"] = [asdict(document) for document in manifest.documents]
    fields_["packages"] = [asdict(package) for package in manifest.packages]
    order = ("name", "source", "description", "counts", "content_sha256", "made_with", "packages", "documents")
    return yaml.safe_dump({key: fields_[key] for key in order}, sort_keys=False, allow_unicode=True, width=120)


def reader_versions() -> dict[str, Any]:
    """Return the versions that decide how a PDF reads."""
    return {"pypdfium2": metadata.version("pypdfium2"), "reader": READER_VERSION}


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
