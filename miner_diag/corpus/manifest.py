"""From a manifest to a corpus: the documents are fetched, checked against it, and read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from miner_diag.corpus.assemble import assemble, unique_queries
from miner_diag.corpus.core import Corpus, CorpusError, Form
from miner_diag.corpus.debian import fetch_debian
from miner_diag.corpus.document import READER_VERSION, Document
from miner_diag.corpus.folder import read_documents
from miner_diag.corpus.limits import DEFAULT_LIMITS, PdfLimits
from miner_diag.corpus.manifest_file import Manifest
from miner_diag.files import canonical_json, sha256_bytes, sha256_file


def load_manifest(
    manifest: Manifest, *, form: Form = "hidden", fold: int = 0, limits: PdfLimits = DEFAULT_LIMITS
) -> Corpus:
    """Get the documents of a manifest, check them against it, and build the corpus.

    Raises
    ------
    CorpusError
        If a document is missing, its hash differs, or the counts or the content differ from the manifest's.
    """
    documents = read_manifest_documents(manifest, limits)
    counts, content = describe(documents)
    if manifest.counts != counts or manifest.content_sha256 != content:
        raise CorpusError(
            f"data set {manifest.name} reads differently from its manifest: counts {counts}, expected "
            f"{manifest.counts}; content {content[:12]}, expected {manifest.content_sha256[:12]}. The manifest was "
            f"made with {manifest.made_with}, this is {reader_versions()}: install that pypdfium2 (see constraints.txt)"
        )
    return assemble(manifest.name, documents, form=form, fold=fold, limits=limits)


def read_manifest_documents(manifest: Manifest, limits: PdfLimits = DEFAULT_LIMITS) -> list[Document]:
    """Return the manifest's documents, read from files whose hashes were checked."""
    files = shipped_files(manifest) if manifest.source == "shipped" else fetch_debian(manifest)
    documents, skipped = read_documents(files, limits=limits)
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
