"""Reading a page's picture with RapidOCR (extra ``ocr``); what was read is kept in the cache folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miner_diag.corpus.images import on_white
from miner_diag.files import cache_folder, canonical_json, sha256_bytes, write_atomic
from miner_diag.sealed import DamagedError, read_sealed, sealed

if TYPE_CHECKING:
    from PIL import Image

    from miner_diag.backbones.reader import Render
    from miner_diag.corpus.core import Page

logger = logging.getLogger(__name__)

MEMORY_FORMAT = 2
"""The number of the layout of what is remembered; it is a part of the folder's name. Format 1 had no hash."""

LONGEST_SIDE = 1200
"""The pixels on a page's longer side: small print of an A4 page is still some 10 pixels high."""

LINES_AT_ONCE = 48
"""The number of lines that are recognised before it is checked whether enough was read; many pack better by width."""

MIN_SCORE = 0.5
"""A line that the recogniser is less sure of is left out (RapidOCR's own default)."""


def describe_engine() -> str:
    """Return engine, version and settings, for the key of a store."""
    version = metadata.version("rapidocr")
    return f"rapidocr {version}, {LONGEST_SIDE} px, {LINES_AT_ONCE} lines at once, score >= {MIN_SCORE}"


class PictureReader:
    """Reads pictures of pages, top to bottom, and remembers the words by the hash of the pixels it saw.

    Parameters
    ----------
    max_words : int, optional
        Stop once this many words are read: an encoder that takes so many tokens sees no more. None reads all.
    """

    longest_side = LONGEST_SIDE

    def __init__(self, max_words: int | None = None) -> None:
        self.max_words = max_words
        self._memory = cache_folder() / "ocr" / f"{sha256_bytes(self.describe().encode())[:16]}-{MEMORY_FORMAT}"
        self._engine: Any = None

    def describe(self) -> str:
        """Return engine, version and settings: what decides the words of a picture."""
        return describe_engine()

    def read(self, picture: Image.Image) -> str:
        """Return the picture's text, one line of text a line; "" if it shows none."""
        return self._read(picture)[0]

    def read_page(self, page: Page, render: Render, *, draw_again: bool = True) -> str:
        """Return the text of a page's picture.

        Parameters
        ----------
        page : Page
            The page.
        render : callable
            Takes a page_id and the longest side in pixels, and draws the page.
        draw_again : bool
            Whether a page is drawn whose picture's words are remembered. If not, they are those of the last picture
            that was drawn of it: its name, text, hash and whether words are hidden tell it from others, as in the
            store.
        """
        content = [page.page_id, page.text, page.page_hash, page.words_hidden]
        identity = sha256_bytes(canonical_json(content).encode())
        path = self._memory / "pages" / identity[:2] / f"{identity}.json"
        last = None if draw_again else _remembered(path, ("picture",))
        memory = None if last is None else self._recall(last["picture"])
        if memory is not None:
            return self._text(memory)
        text, picture = self._read(render(page.page_id, self.longest_side))
        write_atomic(path, canonical_json(sealed({"picture": picture})))
        return text

    def _read(self, picture: Image.Image) -> tuple[str, str]:
        """Return the picture's text, and the name under which its words are remembered."""
        pixels = np.ascontiguousarray(np.asarray(on_white(picture)))
        name = sha256_bytes(str(pixels.shape).encode() + pixels.tobytes())
        memory = self._recall(name)
        if memory is None:
            lines, complete = self._recognise(pixels)
            memory = {"lines": lines, "whole": complete}
            write_atomic(self._words(name), canonical_json(sealed(memory)))
        return self._text(memory), name

    def _words(self, name: str) -> Path:
        return self._memory / name[:2] / f"{name}.json"

    def _recall(self, name: str) -> dict[str, Any] | None:
        """Return what was read of a picture; None if that is not enough."""
        memory = _remembered(self._words(name), ("lines", "whole"))
        return memory if memory is not None and (memory["whole"] or self._enough(memory["lines"])) else None

    def _text(self, memory: dict[str, Any]) -> str:
        return "\n".join(self._needed(memory["lines"]))

    def _recognise(self, pixels: np.ndarray) -> tuple[list[str], bool]:
        """Return the lines, and whether they are all that the page has."""
        if self._engine is None:
            from rapidocr import RapidOCR

            threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
            params = {"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": threads}
            self._engine = RapidOCR(params=params)
        detected = self._engine(pixels[:, :, ::-1], use_det=True, use_cls=False, use_rec=False)  # BGR
        boxes = [] if detected.boxes is None else list(detected.boxes)
        lines: list[str] = []
        for start in range(0, len(boxes), LINES_AT_ONCE):
            if self._enough(lines):
                return lines, False
            crops = self._engine.crop_text_regions(pixels[:, :, ::-1], boxes[start : start + LINES_AT_ONCE])
            recognised = self._engine.recognize_txt(crops)
            scored = zip(recognised.txts, recognised.scores, strict=True)
            lines += [text for text, score in scored if text.strip() and score >= MIN_SCORE]
        return lines, True

    def _enough(self, lines: list[str]) -> bool:
        return self.max_words is not None and sum(len(line.split()) for line in lines) >= self.max_words

    def _needed(self, lines: list[str]) -> list[str]:
        """Return the lines that this reader needs, so that the text does not depend on how much is remembered."""
        for count in range(len(lines)):
            if self._enough(lines[:count]):
                return lines[:count]
        return lines


def _remembered(path: Path, names: Sequence[str]) -> dict[str, Any] | None:
    """Return fields of what was kept; None if nothing was, or the file is damaged, which a warning says."""
    if not path.is_file():
        return None
    try:
        memory = read_sealed(path)
        return {name: memory[name] for name in names}
    except (DamagedError, KeyError) as error:
        logger.warning("%s is damaged (%s); the picture is read again", path, error)
        return None
