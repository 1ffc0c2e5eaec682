"""What an index keeps of each document: its pages and their vectors in one file of ours, named by the PDF's content.

These files are what an index is; the engine that searches is filled from them and can be built again at any time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.corpus.core import CorpusError, Page
from miner_diag.corpus.document import Document
from miner_diag.corpus.harvest import clean_text
from miner_diag.corpus.pdf_reader import draw_page, read_sections
from miner_diag.sealed import DamagedError, read_tensors, write_tensors
from miner_diag.serving.engine import point_id
from miner_diag.serving.side_by_side import SideBySide
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

FOLDER = "documents"
"""The folder of these files in an index."""

SECTION_CHARACTERS = 300
"""The number of characters that are kept of a section's title."""


@dataclass(frozen=True)
class IndexedPage:
    """A page that can be found."""

    number: int
    """1 is the first of its document."""
    section: str
    """Titles of the outline that lead to it, or the last one before; "" where there is none."""


@dataclass(frozen=True, eq=False)
class IndexedDocument:
    """A document whose pages can be found."""

    doc_id: str
    """Its path below the folder without the ending, as the corpus names it."""
    sha256: str
    """Of the file."""
    pages: tuple[IndexedPage, ...]
    """[P] those on which there was something to read."""
    left_out: tuple[tuple[str, str], ...]
    """(what, reason) of what can't be found."""
    vectors: dict[str, np.ndarray]
    """"fused" and "backbone", or "backbone" alone -> [P, D] float32."""

    def points(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the ids of its pages as points, and what is kept beside each of them."""
        ids = [point_id(self.sha256, page.number) for page in self.pages]
        of_all = {"document": self.doc_id, "sha256": self.sha256}
        return ids, [{**of_all, "page": page.number, "section": page.section} for page in self.pages]

    def write(self, index: Path, fingerprints: Mapping[str, str]) -> None:
        """Write the file, whole or not at all."""
        facts = {
            "document": self.doc_id,
            "sha256": self.sha256,
            "pages": [asdict(page) for page in self.pages],
            "left_out": [list(item) for item in self.left_out],
            "fingerprints": dict(fingerprints),
        }
        write_tensors(file_of(index, self.sha256), self.vectors, {"facts": json.dumps(facts)})


def file_of(index: Path, sha256: str) -> Path:
    """Return where a document is kept."""
    return index / FOLDER / f"{sha256}.safetensors"


def read_indexed(index: Path, fingerprints: Mapping[str, str]) -> dict[str, IndexedDocument]:
    """Return sha256 -> document of all that an index keeps; what is damaged is left out, and logged.

    Parameters
    ----------
    index : path
        The index.
    fingerprints : mapping
        What makes the vectors those of the index's model.
    """
    found = {}
    for path in sorted((index / FOLDER).glob("*.safetensors")):
        if path.name.startswith("."):
            continue  # half-written by a run that was killed
        try:
            noted, vectors = read_tensors(path)
            facts = json.loads(noted["facts"])
            document = IndexedDocument(
                facts["document"],
                facts["sha256"],
                tuple(IndexedPage(**page) for page in facts["pages"]),
                tuple((what, reason) for what, reason in facts["left_out"]),
                vectors,
            )
            if facts["fingerprints"] != fingerprints or path != file_of(index, document.sha256):
                raise DamagedError("it is of another index")
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is damaged (%s); its document is embedded again", path, error)
            path.unlink()
            continue
        found[document.sha256] = document
    return found


def embed_document(retrievers: SideBySide, document: Document) -> IndexedDocument:
    """Embed the pages of a document on which there is something to read.

    Parameters
    ----------
    retrievers : SideBySide
        What embeds them.
    document : Document
        The document, read.

    Raises
    ------
    ValueError
        If a page cannot be embedded.
    """
    by_id = {f"{document.doc_id}/{page.number}": page for page in document.pages}
    pages = [
        Page(page_id, document.doc_id, page.number, clean_text(page.characters), page.page_hash)
        for page_id, page in by_id.items()
    ]
    vectors, notes = retrievers.encode_pages(pages, _renderer(document.path, by_id))
    section = sections_of(document.path, [page.page_number for page in pages])
    kept = [row for row, note in enumerate(notes) if note != "empty"]
    left_out = [(item.name, item.reason) for item in document.left_out()]
    left_out += [
        (f"{document.doc_id}, page {page.page_number}", "there is nothing on it that the retriever reads")
        for page, note in zip(pages, notes, strict=True)
        if note == "empty"
    ]
    return IndexedDocument(
        document.doc_id,
        document.sha256,
        tuple(IndexedPage(pages[row].page_number, section[pages[row].page_number]) for row in kept),
        tuple(left_out),
        {name: rows[kept] for name, rows in vectors.items()},
    )


def sections_of(path: Path, numbers: Iterable[int]) -> dict[int, str]:
    """Return page number -> the outline's titles that lead to the page, or the last title before it; "" without any."""
    try:
        bookmarks = read_sections(path)
    except CorpusError as error:
        logger.warning("%s: no titles of sections (%s)", inert(path.name), inert(error))
        bookmarks = []
    here: dict[int, list[str]] = {}
    for number, title in bookmarks:
        title = clean_text(title)
        if title and title not in here.setdefault(number, []):
            here[number].append(title)
    found, last = {}, ""
    starts = sorted(number for number, titles in here.items() if titles)
    for number in sorted(numbers):
        while starts and starts[0] < number:
            last = here[starts.pop(0)][-1]
        found[number] = (" / ".join(here[number]) if here.get(number) else last)[:SECTION_CHARACTERS]
    return found


def _renderer(path: Path, pages: Mapping[str, Any]) -> Callable[[str, int], Any]:
    return lambda page_id, longest_side: draw_page(path, pages[page_id].number, longest_side)
