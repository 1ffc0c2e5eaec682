"""Pages that a user hands over, read into pages of ours: whole PDFs, pictures, texts, or pages of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from miner_diag.corpus.core import CorpusError, Page, Skipped
from miner_diag.corpus.document import read_document
from miner_diag.corpus.folder import plain_name
from miner_diag.corpus.harvest import clean_text
from miner_diag.corpus.images import on_white, open_image
from miner_diag.corpus.pdf_reader import draw_page
from miner_diag.files import sha256_bytes, sha256_file
from miner_diag.serving.errors import ServingError

Given = Path | Image.Image | str | Page
"""A PDF (all of its pages) or a picture by its path, a picture, a page's text, or a page of a corpus."""

Draw = Callable[[int], Image.Image]
"""Takes the longest side in pixels, and draws one page."""

DIGITS = 16
"""Hexadecimal digits of a page's content that stand behind its id, where the retriever sees it."""


class Reads(NamedTuple):
    """What a retriever reads of a page."""

    texts: bool
    """Whether a text that is given is read."""
    pictures: bool
    """Whether a picture is looked at, where there is no text layer or in any case."""


class TakenPages(NamedTuple):
    """Pages that were read."""

    pages: list[Page]
    """[P] as the caller knows them."""
    seen: list[Page]
    """[P] as the retriever sees them: the same, but for ids that no other content has."""
    skipped: list[Skipped]
    """Pages of the PDFs that could not be read."""


class GivenPages:
    """Reads what is handed over, and draws the pages that were taken last; one picture is decoded at a time."""

    def __init__(self) -> None:
        self._draw: dict[str, Draw] = {}

    def take(
        self, given: Sequence[Given], reads: Reads, name: str, render: Callable[[str, int], Image.Image] | None = None
    ) -> TakenPages:
        """Read pages.

        Parameters
        ----------
        given : sequence of path, picture, str or Page
            What was handed over.
        reads : Reads
            What the retriever reads.
        name : str
            What messages call the retriever.
        render : callable, optional
            ``corpus.render``; draws pages of a corpus.

        Raises
        ------
        ServingError
            If an item is of another kind, or nothing of it is read.
        CorpusError
            If a file cannot be read; it is named.
        """
        if isinstance(given, Given):
            raise ServingError(f"pages must be a list, also of one page; got a single {type(given).__name__}")
        taken = TakenPages([], [], [])
        self._draw = {}
        for number, item in enumerate(given):
            what = f"pages[{number}]"
            if isinstance(item, Page):
                draw = None if render is None else partial(render, item.page_id)
                self._add(taken, item, draw)
            elif isinstance(item, str):
                _refuse_file_name(item, what)
                _refuse_unread(reads.texts, f"{what} is a text", name, "pictures of pages; give PDFs or pictures")
                named = f"text {number}"
                self._add(taken, Page(named, named, 1, item.strip(), sha256_bytes(item.strip().encode())), None)
            elif isinstance(item, Image.Image):
                _refuse_unread(reads.pictures, f"{what} is a picture", name, "texts; give PDFs or texts")
                picture, named = on_white(item), f"picture {number}"
                digest = sha256_bytes(f"{picture.size}".encode() + picture.tobytes())
                self._add(taken, Page(named, named, 1, "", digest), _fitted(picture.copy))
            elif isinstance(item, Path) and item.suffix.lower() == ".pdf":
                self._add_document(taken, item)
            elif isinstance(item, Path):
                _refuse_unread(reads.pictures, f"{what} is a picture", name, "texts; give PDFs or texts")
                if item.is_dir():
                    raise ServingError(f"{what} is the folder {plain_name(item)}; list its files")
                open_image(item)  # whether it can be read is said now, not in the middle of the work
                named = plain_name(item)
                drawn = _fitted(partial(open_image, item))
                self._add(taken, Page(named, named, 1, "", sha256_file(item)), drawn)
            else:
                raise ServingError(
                    f"{what} must be a Path to a PDF or a picture, a picture (PIL), a text, or a page of a corpus; got "
                    f"a {type(item).__name__}"
                )
        return taken

    def render(self, page_id: str, longest_side: int) -> Image.Image:
        """Draw a page that was taken last, at most `longest_side` pixels on the longer side."""
        if page_id not in self._draw:
            raise CorpusError(
                f"page {page_id.rpartition(' #')[0]} comes without a picture, and the retriever wants to look at it; "
                "give the PDF or the picture itself, or render for pages of a corpus"
            )
        return self._draw[page_id](longest_side)

    def _add_document(self, taken: TakenPages, path: Path) -> None:
        document = read_document(path, plain_name(path))
        for page in document.pages:
            page_id = f"{document.doc_id}/{page.number}"
            read = Page(page_id, document.doc_id, page.number, clean_text(page.characters), page.page_hash)
            self._add(taken, read, partial(draw_page, path, page.number))
        taken.skipped.extend(document.left_out())

    def _add(self, taken: TakenPages, page: Page, draw: Draw | None) -> None:
        """Note a page under an id that its content is part of: retrievers remember proportions by the id."""
        content = sha256_bytes(f"{page.page_hash} {page.words_hidden} {page.text}".encode())
        seen = replace(page, page_id=f"{page.page_id} #{content[:DIGITS]}")
        taken.pages.append(page)
        taken.seen.append(seen)
        if draw is not None:
            self._draw[seen.page_id] = draw


def _fitted(opened: Callable[[], Image.Image]) -> Draw:
    def draw(longest_side: int) -> Image.Image:
        picture = opened()
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        return picture

    return draw


def _refuse_file_name(text: str, what: str) -> None:
    """Refuse the name of a file where a text is meant: it would be embedded as the text that it is."""
    if "\n" not in text and len(text) < 1000 and Path(text).suffix and Path(text).is_file():
        raise ServingError(
            f"{what} is the name of a file, and a str is a page's text; give Path({text!r}) for the file"
        )


def _refuse_unread(read: bool, what: str, name: str, instead: str) -> None:
    if not read:
        raise ServingError(f"{what}, and {name} reads {instead}")
