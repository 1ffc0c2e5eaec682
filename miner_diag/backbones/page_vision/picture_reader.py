"""What ``page-vision`` reads a picture with: the lines it finds, each through the line reader of the package."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from PIL import Image

from miner_diag.backbones.ocr import PictureReader
from miner_diag.backbones.page_vision import lines
from miner_diag.backbones.page_vision.line_engines import line_engine
from miner_diag.backbones.page_vision.line_reader import PADDED_TO, BestClasses, read_lines
from miner_diag.backbones.page_vision.trained import load_line_reader, trained_sha256

LINES_AT_ONCE = 8
"""The number of lines that are read before it is checked whether enough was read, where less than all can be."""

_PIECES = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
"""MiniLM's tokenizer parts text at spaces and around punctuation, and makes at least one token of every part."""


class LinePictureReader(PictureReader):
    """Reads pictures of pages line by line; words are remembered in the cache by the pixels seen.

    A page is read by itself, so its words do not depend on other pages.
    """

    longest_side = lines.LONGEST_SIDE

    def describe(self) -> str:
        """Return what decides the words of a picture."""
        return (
            f"line reader {trained_sha256()[:16]}, {lines.LONGEST_SIDE} px, {lines.VERSION}, lines padded to "
            f"{PADDED_TO} columns"
        )

    def _recognise(self, pixels: np.ndarray) -> tuple[list[str], bool]:
        on_page = lines.find_lines(Image.fromarray(pixels))
        at_once = len(on_page) if self.max_words is None else LINES_AT_ONCE
        texts: list[str] = []
        for start in range(0, len(on_page), max(1, at_once)):
            if self._enough(texts):
                return texts, False
            read = read_lines([line.pixels for line in on_page[start : start + at_once]], _reader())
            texts += [text for text in read if text]
        return texts, True

    def _enough(self, lines: list[str]) -> bool:
        return self.max_words is not None and sum(len(_PIECES.findall(line)) for line in lines) >= self.max_words


@lru_cache(maxsize=1)
def _reader() -> BestClasses:
    return line_engine(load_line_reader())
