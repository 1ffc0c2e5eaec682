"""One PDF as pages with their candidate queries; read once and kept in the cache by the file's SHA-256."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from miner_diag.corpus.core import CorpusError, Kind, Skipped
from miner_diag.corpus.harvest import Caption, true_captions
from miner_diag.corpus.limits import DEFAULT_LIMITS, PdfLimits
from miner_diag.corpus.pdf_reader import OverLimitError, ReadError, reader
from miner_diag.files import PlaceError, cache_folder, canonical_json, sha256_file, write_atomic
from miner_diag.sealed import DamagedError, read_sealed, sealed

logger = logging.getLogger(__name__)

READER_VERSION = 4
"""Raised whenever reading the same file gives other pages or queries: it is part of the cache's key."""
CACHE_FORMAT = 2
"""The number of the layout of a cached file; it is part of the key, too. Format 1 had no hash."""


@dataclass(frozen=True)
class DocumentPage:
    """A page as it is in the file."""

    number: int
    """1 is the first."""
    characters: str
    """The text layer, form fields and free-text annotations, line ends kept."""
    page_hash: str
    """SHA-256 of the pixels at `HASH_SIDE`."""
    candidates: tuple[tuple[Kind, str], ...]
    """(kind, text) of every title and caption that leads to this page."""
    unread_ink: int = 0
    """Pixels of ink that are no text, as :func:`miner_diag.corpus.ink.unread_ink` counts them; 0, and not looked at,
    where the words of every title that leads here are among the characters."""


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
    notes: tuple[tuple[str, str], ...] = ()
    """(what, reason) of what was left out besides, as bookmarks that are too many."""

    def left_out(self, n_notes: int = DEFAULT_LIMITS.notes) -> list[Skipped]:
        """Return what was left out of it by name; more than so many pages are put into one sentence."""
        pages = [Skipped(f"{self.doc_id}, page {number}", reason) for number, reason in self.skipped]
        notes = [Skipped(f"{self.doc_id}, {what}", reason) for what, reason in self.notes]
        return [*together(self.doc_id, pages, n_notes), *notes]


def together(doc_id: str, pages: Sequence[Skipped], n_notes: int = DEFAULT_LIMITS.notes) -> list[Skipped]:
    """Return the left-out pages of a document one by one, or as one sentence where there are more than `n_notes`."""
    if len(pages) <= n_notes:
        return list(pages)
    first = pages[0].name.removeprefix(f"{doc_id}, ")
    return [Skipped(f"{doc_id}, {len(pages):,} pages", f"{pages[0].reason} ({first}); the others likewise or alike")]


def read_document(path: Path | str, doc_id: str, limits: PdfLimits = DEFAULT_LIMITS) -> Document:
    """Read a PDF, or take what an earlier call read from the cache.

    Parameters
    ----------
    path : path
        The file; it is untrusted.
    doc_id : str
        Its name in the corpus.
    limits : PdfLimits
        The bounds of time, memory, pages and bookmarks; what is over one is left out by name.

    Raises
    ------
    CorpusError
        If nothing of it can be used: missing, empty, encrypted, broken, no page, no readable page.
    PlaceError
        If the cache folder cannot be read or written. It is an OSError.
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise CorpusError(f"{path.name} is empty (0 bytes)")
    sha256 = sha256_file(path)
    cached = _cache_path(sha256, limits)
    content = _read_cache(cached, sha256)
    if content is None:
        content, steady = _read_file(path, limits)
        if steady:  # what memory or time left out may be read on another day
            write_atomic(cached, canonical_json(sealed({"sha256": sha256, **content})))
    pages = tuple(
        DocumentPage(
            p["number"],
            p["characters"],
            p["page_hash"],
            tuple((kind, text) for kind, text in p["candidates"]),
            p["unread_ink"],
        )
        for p in content["pages"]
    )
    skipped = tuple((number, reason) for number, reason in content["skipped"])
    notes = tuple((what, reason) for what, reason in content.get("notes", ()))
    if not pages:
        raise CorpusError(f"{path.name} has no readable page: {(*skipped, *notes)[0][1]}")
    return Document(doc_id, path, sha256, pages, skipped, notes)


def _read_file(path: Path, limits: PdfLimits) -> tuple[dict[str, Any], bool]:
    """Return what stands in a file, and whether that depends on the file alone: neither on time nor on memory."""
    worker = reader(limits)
    given = {"path": str(path.absolute()), "characters": limits.query_characters}
    opened = worker.ask(path.name, limits.page_seconds, do="open", bookmarks=limits.bookmarks, **given)
    titles: dict[int, list[str]] = {}
    for number, title in opened["titles"]:
        titles.setdefault(number, []).append(title)
    n_pages, n_long, n_broken = opened["pages"], opened["long"], 0
    left = limits.document_seconds - opened["seconds"]
    pages, captions, skipped, notes = [], [], [], []
    for number in range(1, min(n_pages, limits.pages) + 1):
        if left <= 0 or n_broken == limits.broken_pages:
            reason = f"its document takes more than the {limits.document_seconds:g} seconds that it may take"
            if left > 0:
                reason = f"{n_broken} pages before went over what they may take, so the rest is not tried"
            notes.append((f"pages {number:,} to {n_pages:,}", reason))
            break
        try:
            page = worker.ask(
                "it", min(left, limits.page_seconds), do="read", number=number, titles=titles.get(number, []), **given
            )
        except ReadError as error:
            n_broken += isinstance(error, OverLimitError)
            left -= error.seconds
            skipped.append((number, str(error)))
            continue
        left -= page["seconds"]
        n_long += page["long"]
        captions.append([Caption(*caption) for caption in page["captions"]])
        pages.append(page)
    else:
        if n_pages > limits.pages:
            reason = f"at most {limits.pages:,} pages of a document are read"
            notes.append((f"pages {limits.pages + 1:,} to {n_pages:,}", reason))
    if opened["cut"]:
        reason = f"at most {limits.bookmarks:,} bookmarks of a document are read, and it has more"
        notes.append(("bookmarks", reason))
    if n_long:
        reason = f"a query has at most {limits.query_characters:,} characters, and these are longer"
        notes.append((f"{n_long:,} titles and captions", reason))
    worker.release()
    rows = []
    for page, found in zip(pages, true_captions(captions), strict=True):
        candidates = [("outline", title) for title in titles.get(page["number"], [])]
        candidates += [(caption.kind, caption.text) for caption in found]
        kept = {name: page[name] for name in ("number", "characters", "page_hash", "unread_ink")}
        rows.append({**kept, "candidates": list(dict.fromkeys(candidates))})
    return {"pages": rows, "skipped": skipped, "notes": notes}, n_broken == 0 and left >= 0


def _cache_path(sha256: str, limits: PdfLimits) -> Path:
    """Return where a document's parse is kept; bounds of the user's own, which can change it, have their own."""
    name = f"{sha256}-{READER_VERSION}-{metadata.version('pypdfium2')}-{CACHE_FORMAT}"
    bounds, usual = ((chosen.pages, chosen.bookmarks, chosen.query_characters) for chosen in (limits, DEFAULT_LIMITS))
    if bounds != usual:
        name += "".join(f"-{bound}" for bound in bounds)
    return cache_folder() / "documents" / f"{name}.json"


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
