"""One PDF as pages with their candidate queries; read once and kept in the cache by the file's SHA-256."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pypdfium2 as pdfium

from miner_diag.corpus.core import CorpusError, Kind
from miner_diag.corpus.harvest import Caption, outline_query, page_captions, true_captions
from miner_diag.corpus.pdf import line_places, open_page, open_pdf, outline, read_characters, render_page
from miner_diag.files import PlaceError, cache_folder, canonical_json, sha256_file, write_atomic
from miner_diag.sealed import DamagedError, read_sealed, sealed

logger = logging.getLogger(__name__)

READER_VERSION = 3
"""Raised whenever reading the same file gives other pages or queries: it is part of the cache's key."""
CACHE_FORMAT = 2
"""The number of the layout of a cached file; it is part of the key, too. Format 1 had no hash."""
HASH_SIDE = 512
"""Longest side, in pixels, of the rendering that a page hash is taken of."""


@dataclass(frozen=True)
class DocumentPage:
    """A page as it is in the file."""

    number: int
    """1 is the first."""
    characters: str
    """The text layer, line ends kept."""
    page_hash: str
    """SHA-256 of the pixels at `HASH_SIDE`."""
    candidates: tuple[tuple[Kind, str], ...]
    """(kind, text) of every title and caption that leads to this page."""


@dataclass(frozen=True)
class Document:
    """A PDF that was read."""

    doc_id: str
    """Its name in the corpus."""
    path: Path
    """The file."""
    sha256: str
    """Of the file."""
    pages: tuple[DocumentPage, ...]
    """Those that could be read, in order."""
    skipped: tuple[tuple[int, str], ...]
    """(number, reason) of the pages that could not."""


def read_document(path: Path | str, doc_id: str) -> Document:
    """Read a PDF, or take what an earlier call read from the cache.

    Parameters
    ----------
    path : path
        The file; it is untrusted.
    doc_id : str
        Its name in the corpus.

    Raises
    ------
    CorpusError
        If nothing of it can be used: missing, empty, encrypted, broken, no page, no readable page.
    PlaceError
        If the cache folder cannot be read or written. It is an OSError.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        with open_pdf(path):  # raises, naming what is wrong
            pass
    sha256 = sha256_file(path)
    cached = _cache_path(sha256)
    content = _read_cache(cached, sha256)
    if content is None:
        content = _read_file(path)
        write_atomic(cached, canonical_json(sealed({"sha256": sha256, **content})))
    pages = tuple(
        DocumentPage(
            p["number"], p["characters"], p["page_hash"], tuple((kind, text) for kind, text in p["candidates"])
        )
        for p in content["pages"]
    )
    skipped = tuple((number, reason) for number, reason in content["skipped"])
    if not pages:
        raise CorpusError(f"{path.name} has no readable page: {skipped[0][1]}")
    return Document(doc_id, path, sha256, pages, skipped)


def _read_file(path: Path) -> dict:
    pages, captions, skipped = [], [], []
    with open_pdf(path) as document:
        titles: dict[int, list[str]] = {}
        for number, title in outline(document):
            if (query := outline_query(title)) is not None:
                titles.setdefault(number, []).append(query)
        for number in range(1, len(document) + 1):
            try:
                page, found = _read_page(document, number)
            except CorpusError as error:
                skipped.append((number, str(error)))
                continue
            pages.append(page)
            captions.append(found)
    rows = []
    for page, found in zip(pages, true_captions(captions), strict=True):
        candidates = [("outline", title) for title in titles.get(page["number"], [])]
        candidates += [(caption.kind, caption.text) for caption in found]
        rows.append({**page, "candidates": list(dict.fromkeys(candidates))})
    return {"pages": rows, "skipped": skipped}


def _read_page(document: pdfium.PdfDocument, number: int) -> tuple[dict, list[Caption]]:
    with open_page(document, number) as page:
        characters = read_characters(page)
        with line_places(page) as place:
            captions = page_captions(characters, place)
        picture = render_page(page, HASH_SIDE)
        digest = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
    return {"number": number, "characters": characters, "page_hash": digest}, captions


def _cache_path(sha256: str) -> Path:
    versions = f"{READER_VERSION}-{metadata.version('pypdfium2')}-{CACHE_FORMAT}"
    return cache_folder() / "documents" / f"{sha256}-{versions}.json"


def _read_cache(path: Path, sha256: str) -> dict | None:
    try:
        content = read_sealed(path)
        if content["sha256"] == sha256:
            return content
        problem = "it is of another document"
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PlaceError(path, error, "read") from error
    except (DamagedError, KeyError) as error:
        problem = str(error)
    logger.warning("%s is damaged (%s); the document is read again", path, problem)
    return None
