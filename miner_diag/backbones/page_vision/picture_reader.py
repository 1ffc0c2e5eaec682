"""What ``page-vision`` reads a picture with: the lines it finds, each through the line reader of the package."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from PIL import Image

from miner_diag.backbones.ocr import PictureReader
from miner_diag.backbones.page_vision import lines
from miner_diag.backbones.page_vision.line_reader import LineReader
from miner_diag.backbones.page_vision.trained import load_line_reader, trained_sha256

LINES_AT_ONCE = 8
"""The number of lines that are read before it is checked whether enough was read."""

_PIECES = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
"""MiniLM's tokenizer parts text at spaces and around punctuation, and makes at least one token of every part."""


class LinePictureReader(PictureReader):
    """Reads pictures of pages with :class:`LineReader`; words are remembered in the cache by the pixels seen.

    A page is read by itself, so its words do not depend on other pages.
    """

    longest_side = lines.LONGEST_SIDE

    def describe(self) -> str:
        """Return what decides the words of a picture."""
        return (
            f"line reader {trained_sha256()[:16]}, {lines.LONGEST_SIDE} px, {lines.VERSION}, {LINES_AT_ONCE} lines at "
            "once"
        )

    def _recognise(self, pixels: np.ndarray) -> tuple[list[str], bool]:
        on_page = lines.find_lines(Image.fromarray(pixels))
        texts: list[str] = []
        for start in range(0, len(on_page), LINES_AT_ONCE):
            if self._enough(texts):
                return texts, False
            read = _reader().read([line.pixels for line in on_page[start : start + LINES_AT_ONCE]])
            texts += [text for text in read if text]
        return texts, True

    def _enough(self, lines: list[str]) -> bool:
        return self.max_words is not None and sum(len(_PIECES.findall(line)) for line in lines) >= self.max_words


@lru_cache(maxsize=1)
def _reader() -> LineReader:
    return load_line_reader()
