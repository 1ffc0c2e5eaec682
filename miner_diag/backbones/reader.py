"""Where a page's text comes from: its text layer, or characters read from its picture."""

from __future__ import annotations

import importlib.util
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from miner_diag.backbones.base import BackboneError
from miner_diag.backbones.options import ReaderKind
from miner_diag.texts import inert

if TYPE_CHECKING:
    from PIL import Image

    from miner_diag.backbones.ocr import PictureReader
    from miner_diag.corpus.core import Page

logger = logging.getLogger(__name__)

Render = Callable[[str, int], "Image.Image"]
"""Takes a page_id and the longest side in pixels, and draws the page. ``corpus.render`` is one."""

EXTRA = 'reading pictures needs the extra "ocr": pip install "miner-diag[ocr]"'


class PageReader:
    """Gives the text of pages; a page without any gives "" and is counted.

    "auto" reads the text layer where there is one and the picture elsewhere. Without the extra ``ocr``, "auto"
    leaves pages without a text layer empty, with a warning; if no page has one, that is an error.

    Parameters
    ----------
    kind : {"text-layer", "ocr", "auto"}
        Where the text comes from.
    render : callable, optional
        Draws a page (``corpus.render``); needed as soon as a picture has to be read. What it draws is what is
        read: words that a corpus has whited out stay unread.
    progress : bool
        Show a bar with rate and time left while pictures are read.
    picture_reader : callable, optional
        Takes max_words and gives what reads pictures: :class:`~miner_diag.backbones.ocr.PictureReader` (RapidOCR) if
        not given.

    Raises
    ------
    BackboneError
        If `kind` is unknown, or it is "ocr" and RapidOCR is not installed.
    """

    def __init__(
        self,
        kind: ReaderKind = "auto",
        render: Render | None = None,
        *,
        progress: bool = True,
        picture_reader: Callable[[int | None], PictureReader] | None = None,
    ) -> None:
        if kind not in get_args(ReaderKind):
            raise BackboneError(f"reader must be one of {', '.join(get_args(ReaderKind))}; got {kind!r}")
        self.kind = kind
        self.render = render
        self.progress = progress
        self.max_words: int | None = None
        """After so many words a picture is not read on: an encoder that cuts at N tokens sees no more than N words.
        None reads all."""
        self.counts: Counter[str] = Counter()
        """The numbers of pages read so far: from their "text-layer", by "ocr", how many were "empty", and how many of
        these were "left empty" because RapidOCR is missing."""
        self._make_picture_reader = picture_reader
        self._can_ocr = kind != "text-layer" and (picture_reader is not None or can_read_pictures())
        if kind == "ocr" and not self._can_ocr:
            raise BackboneError(f"reader is ocr, but RapidOCR is not installed; {EXTRA}")

    def stops_early(self, page: Page) -> bool:
        """Tell whether a page is read from its picture, and only until `max_words` were read."""
        from_picture = self._can_ocr and (self.kind == "ocr" or not page.text.strip())
        return self.max_words is not None and from_picture

    def describe(self) -> str:
        """Return what decides the text, for the key of a store: the kind, the engine and its settings."""
        if not self._can_ocr:
            return "text-layer"
        return f"{self.kind}: {self._picture_reader().describe()}"

    def read(self, pages: Sequence[Page], *, draw_again: bool = True) -> list[str]:
        """Return the pages' texts, in their order.

        Parameters
        ----------
        pages : sequence of Page
            The pages.
        draw_again : bool
            Whether pages are drawn whose pictures were read before. What enters a retriever is read of a fresh drawing;
            to tell what entered it, the words that were read of the last one do.

        Raises
        ------
        BackboneError
            If pictures must be read and nothing draws them.
        """
        blank = [number for number, page in enumerate(pages) if not page.text.strip()]
        pictures = list(range(len(pages))) if self.kind == "ocr" else blank if self.kind == "auto" else []
        if pictures and not self._can_ocr:
            if not self.counts["left empty"]:  # pages come in many calls; what all of them miss is said once
                first = inert(pages[pictures[0]].page_id)
                logger.warning("pages without a text layer, as %s, stay empty; %s", first, EXTRA)
            self.counts["left empty"] += len(pictures)
            pictures = []
        texts = [page.text for page in pages]
        for number, text in self._read_pictures(pages, pictures, draw_again):
            texts[number] = text
        self.counts.update({"ocr": len(pictures), "text-layer": len(pages) - len(pictures)})
        empty = sum(not text.strip() for text in texts)
        self.counts["empty"] += empty
        if empty:
            logger.info("%d of %d pages have no text; they share the embedding of an empty text", empty, len(pages))
        return texts

    def _read_pictures(self, pages: Sequence[Page], numbers: Sequence[int], draw_again: bool) -> list[tuple[int, str]]:
        if not numbers:
            return []
        if self.render is None:
            raise BackboneError(
                f"page {pages[numbers[0]].page_id} must be read from its picture (reader {self.kind}), but nothing "
                "draws it; give load_backbone(..., render=corpus.render)"
            )
        reader = self._picture_reader()
        bar = tqdm(numbers, desc="reading pictures", unit="page", delay=2, leave=None, disable=not self.progress)
        return [(number, reader.read_page(pages[number], self.render, draw_again=draw_again)) for number in bar]

    def _picture_reader(self) -> PictureReader:
        if self._make_picture_reader is not None:
            return self._make_picture_reader(self.max_words)
        from miner_diag.backbones.ocr import PictureReader

        return PictureReader(self.max_words)


def can_read_pictures() -> bool:
    """Tell whether RapidOCR is installed."""
    return _installed("rapidocr") and _installed("onnxruntime")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
