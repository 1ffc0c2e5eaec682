"""PDF files, which are untrusted: open them, read their characters and outlines, draw their pages."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image

from miner_diag.corpus.annotations import shown_annotations
from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.limits import MAX_RENDER_SIDE

MAX_PAGE_POINTS = 14_400.0
"""Longest side of a page box that is read, in points: the limit the PDF specification gives (200 inches)."""
MAX_IMAGE_PIXELS = 100_000_000
"""Largest picture that is decoded, inside a PDF or on its own: width times height."""
MAX_CHARACTERS = 200_000
"""Characters read from one page; a printed page holds some 3,000."""
MAX_OUTLINE_DEPTH = 8
"""Levels of an outline that are read."""
HYPHEN = "\x02"
"""What pdfium puts where a word was broken at a line's end."""


@contextmanager
def open_pdf(path: Path | str) -> Iterator[pdfium.PdfDocument]:
    """Open a PDF for reading and close it again.

    Raises
    ------
    CorpusError
        If the file is missing, empty, broken, protected by a password, or has no page.
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise CorpusError(f"{path.name} is empty (0 bytes)")
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError:
        raise _why_not(path) from None
    with closing(document):
        try:
            document.init_forms()  # before any page: only then are form fields drawn and read
        except pdfium.PdfiumError as error:
            raise CorpusError(f"the form fields of {path.name} are not readable ({error})") from None
        if len(document) == 0:
            raise CorpusError(f"{path.name} has no page")
        yield document


@contextmanager
def open_page(document: pdfium.PdfDocument, number: int) -> Iterator[pdfium.PdfPage]:
    """Open page `number` (1 is the first), checked against oversized boxes and pictures, and close it again.

    Raises
    ------
    CorpusError
        If the page is broken, its box is not between 1 and `MAX_PAGE_POINTS` points a side, or it holds a picture of
        more than `MAX_IMAGE_PIXELS` pixels.
    """
    try:
        page = document[number - 1]
    except pdfium.PdfiumError as error:
        raise CorpusError(f"page {number} is not readable ({error})") from None
    with closing(page):
        _check_box(page, number)
        _check_pictures(page, number)
        yield page


def read_characters(page: pdfium.PdfPage) -> str:
    r"""Return the text that the page shows: its text layer, then its form fields and free-text annotations.

    Position ``i`` of the string is character ``i`` of :func:`character_boxes`; line ends arrive as ``\r\n`` and a
    hyphen at a line's end as ``\x02``. Characters outside Unicode, and words wholly outside the page's crop box, become
    spaces, so that positions hold. "" if the page shows no text.
    """
    with closing(page.get_textpage()) as text_page:
        n_characters = min(text_page.count_chars(), MAX_CHARACTERS)
        get = pdfium_c.FPDFText_GetUnicode
        codes = [get(text_page, index) for index in range(n_characters)]
        outside = _outside(page, text_page, n_characters)
    layer = "".join(chr(code) if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else " " for code in codes)
    if outside:
        layer = re.sub(
            r"\S+", lambda word: " " * len(word[0]) if outside.issuperset(range(*word.span())) else word[0], layer
        )
    return layer + "".join(text for text, _box in _annotated(page))[: MAX_CHARACTERS - n_characters]


def character_boxes(page: pdfium.PdfPage, indices: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return where characters stand in a rendering of the page of `width` x `height` pixels.

    Parameters
    ----------
    page : PdfPage
        An open page.
    indices : ndarray [C]
        Positions in :func:`read_characters`.
    width, height : int
        Size of the rendering, pixels.

    Returns
    -------
    ndarray [C', 4]
        Left, top, right, bottom in pixels, covering both the glyph's ink and its line height; characters that pdfium
        made up (spaces, line ends) have no box and are left out.
    """
    return np.array([box for box in _boxes(page, indices, width, height) if box is not None], dtype=np.int64).reshape(
        -1, 4
    )


def located_characters(page: pdfium.PdfPage, width: int, height: int) -> tuple[str, np.ndarray]:
    """Return the text layer and where each of its characters stands in a rendering of `width` x `height` pixels.

    Returns
    -------
    str
        As :func:`read_characters` returns it, C characters.
    ndarray [C, 4]
        Left, top, right, bottom in pixels as in :func:`character_boxes`; -1 for characters that have no place.
    """
    characters = read_characters(page)
    boxes = [box or (-1, -1, -1, -1) for box in _boxes(page, np.arange(len(characters)), width, height)]
    return characters, np.array(boxes, dtype=np.int64).reshape(-1, 4)


def _boxes(
    page: pdfium.PdfPage, indices: np.ndarray, width: int, height: int
) -> Iterator[tuple[int, int, int, int] | None]:
    """Yield the box of each character; None for one that pdfium made up."""
    with closing(page.get_textpage()) as text_page:
        n_layer = min(text_page.count_chars(), MAX_CHARACTERS)
        annotated = [box for text, box in _annotated(page) for _ in text] if (indices >= n_layer).any() else []
        for index in indices:
            if index >= n_layer:
                yield _box_pixels(page, annotated[index - n_layer], width, height)
                continue
            corners = []
            for loose in (False, True):
                try:
                    left, bottom, right, top = text_page.get_charbox(int(index), loose=loose)
                except pdfium.PdfiumError:  # a generated character: it has no place on the page
                    continue
                corners += [(left, bottom), (left, top), (right, bottom), (right, top)]
            if not corners:
                yield None
                continue
            x, y = zip(*(_to_device(page, width, height, *corner) for corner in corners), strict=True)
            yield min(x), min(y), max(x), max(y)


@contextmanager
def line_places(page: pdfium.PdfPage) -> Iterator[Callable[[int], tuple[float, float]]]:
    """Yield a function: position of a character -> (height of its baseline, font size), both in points."""
    x, y = ctypes.c_double(), ctypes.c_double()
    with closing(page.get_textpage()) as text_page:
        n_layer = text_page.count_chars()

        def place(index: int) -> tuple[float, float]:
            if index >= n_layer:  # of a form field or an annotation
                return 0.0, 0.0
            pdfium_c.FPDFText_GetCharOrigin(text_page, index, ctypes.byref(x), ctypes.byref(y))
            _left, bottom, _right, top = text_page.get_charbox(index, loose=True)
            return y.value, top - bottom

        yield place


def outline(document: pdfium.PdfDocument, n_bookmarks: int) -> tuple[list[tuple[int, str]], bool]:
    """Return (page number, title) of every bookmark that leads to a page, and whether there are more than are read.

    A bookmark without a destination, or with one outside the document or in another file, is no query: it has no page.
    One whose title is not Unicode is left out too.

    Parameters
    ----------
    document : PdfDocument
        An open document.
    n_bookmarks : int
        The number of bookmarks that are read, whether they lead to a page or not.

    Raises
    ------
    CorpusError
        If the outline is broken.
    """
    found: list[tuple[int, str]] = []
    try:
        for n_before, bookmark in enumerate(document.get_toc(max_depth=MAX_OUTLINE_DEPTH)):
            if n_before == n_bookmarks:
                return found, True
            destination = bookmark.get_dest()
            action = pdfium_c.FPDFBookmark_GetAction(bookmark)
            if action and pdfium_c.FPDFAction_GetType(action) != pdfium_c.PDFACTION_GOTO:
                continue  # into another file: its page number is none of this document
            index = destination.get_index() if destination else None
            try:
                title = bookmark.get_title()
            except UnicodeDecodeError:  # half a surrogate pair: no text a person could ask for
                continue
            if index is not None and 0 <= index < len(document):
                found.append((index + 1, title))
    except pdfium.PdfiumError as error:
        raise CorpusError(f"the outline is not readable ({error})") from None
    return found, False


def render_page(page: pdfium.PdfPage, longest_side: int) -> Image.Image:
    """Draw an open page in RGB; see :func:`page_bitmap`."""
    with page_bitmap(page, longest_side) as bitmap:
        return bitmap.to_pil()


@contextmanager
def page_bitmap(page: pdfium.PdfPage, longest_side: int, memory: mmap.mmap | None = None) -> Iterator[pdfium.PdfBitmap]:
    """Draw an open page on white, `longest_side` pixels on its longer side, with form fields and annotations.

    Parameters
    ----------
    page : PdfPage
        An open page.
    longest_side : int
        Pixels of the longer side.
    memory : mmap, optional
        At least `PICTURE_BYTES`, which the picture is drawn into; its own memory if this is not given.

    Yields
    ------
    PdfBitmap
        The picture: rows of three bytes for each pixel, blue, green and red, without gaps.

    Raises
    ------
    CorpusError
        If `longest_side` is not between 16 and `MAX_RENDER_SIDE`.
    """

    def make(width: int, height: int, **options: Any) -> pdfium.PdfBitmap:
        buffer = None if memory is None else (ctypes.c_ubyte * (3 * width * height)).from_buffer(memory)
        return pdfium.PdfBitmap.new_native(width, height, buffer=buffer, **options)

    if not 16 <= longest_side <= MAX_RENDER_SIDE:
        raise CorpusError(f"longest_side must be between 16 and {MAX_RENDER_SIDE} pixels; got {longest_side}")
    bitmap = page.render(scale=longest_side / max(page.get_size()), may_draw_forms=True, bitmap_maker=make)
    with closing(bitmap):
        yield bitmap


def _annotated(page: pdfium.PdfPage) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return (text, box in points) of each form field and annotation; each text begins on a line of its own."""
    found = [item for item in shown_annotations(page) if _is_inside(page, item.box)]
    return [("\r\n\r\n" + item.text.replace("\n", "\r\n"), item.box) for item in found]


def _is_inside(page: pdfium.PdfPage, box: tuple[float, float, float, float]) -> bool:
    """Whether any of a box (left, bottom, right, top in points) is on what is shown of the page."""
    left, bottom, right, top = page.get_bbox()
    return box[0] < right and box[2] > left and box[1] < top and box[3] > bottom


def _outside(page: pdfium.PdfPage, text_page: pdfium.PdfTextPage, n_characters: int) -> set[int]:
    """Positions of the characters that stand wholly outside what is shown of the page, and of those without a place."""
    left, bottom, right, top = page.get_bbox()
    kinds = [pdfium_c.FPDF_PAGEOBJ_TEXT, pdfium_c.FPDF_PAGEOBJ_FORM]
    try:
        bounds = [item.get_bounds() for item in page.get_objects(filter=kinds, max_depth=1)]
    except pdfium.PdfiumError:  # one of them has no place that pdfium knows: its characters are looked at one by one
        bounds = [(-np.inf, -np.inf, np.inf, np.inf)]
    if all(left <= b[0] and bottom <= b[1] and b[2] <= right and b[3] <= top for b in bounds):
        return set()
    found = set()
    for index in range(n_characters):
        try:
            box = text_page.get_charbox(index)
        except pdfium.PdfiumError:  # a generated character, as a hyphen: it goes with its word
            box = (right, top, right, top)
        if not _is_inside(page, box):
            found.add(index)
    return found


def _why_not(path: Path) -> CorpusError:
    """Say why a PDF can't be opened. pdfium keeps its last error, so a known failure comes before the real one."""
    pdfium_c.FPDF_LoadMemDocument(b"no PDF", 6, None)
    try:
        pdfium.PdfDocument(path).close()
    except pdfium.PdfiumError as error:
        if pdfium_c.FPDF_GetLastError() == pdfium_c.FPDF_ERR_PASSWORD:
            return CorpusError(f"{path.name} is encrypted and asks for a password; save it without one")
        return CorpusError(f"{path.name} is not a readable PDF ({error})")
    return CorpusError(f"{path.name} could not be opened at first, but could then; run it again")


def _check_box(page: pdfium.PdfPage, number: int) -> None:
    width, height = page.get_size()
    if not (1.0 <= width <= MAX_PAGE_POINTS and 1.0 <= height <= MAX_PAGE_POINTS):
        raise CorpusError(
            f"page {number} has a box of {width:.0f} x {height:.0f} points; expected 1 to {MAX_PAGE_POINTS:.0f} a side"
        )


def _check_pictures(page: pdfium.PdfPage, number: int) -> None:
    width, height = ctypes.c_uint(), ctypes.c_uint()
    for item in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=15):
        if pdfium_c.FPDFImageObj_GetImagePixelSize(item, ctypes.byref(width), ctypes.byref(height)):
            if width.value * height.value > MAX_IMAGE_PIXELS:
                raise CorpusError(
                    f"page {number} holds a picture of {width.value} x {height.value} pixels; "
                    f"expected at most {MAX_IMAGE_PIXELS:,} in all"
                )


def _box_pixels(
    page: pdfium.PdfPage, box: tuple[float, float, float, float], width: int, height: int
) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom in pixels of a rendering for a box (left, bottom, right, top) in points."""
    left, bottom, right, top = box
    device = [_to_device(page, width, height, x, y) for x in (left, right) for y in (bottom, top)]
    x, y = zip(*device, strict=True)
    return min(x), min(y), max(x), max(y)


def _to_device(page: pdfium.PdfPage, width: int, height: int, x: float, y: float) -> tuple[int, int]:
    """Page coordinates to pixels; pdfium takes care of rotation and crop box."""
    device_x, device_y = ctypes.c_int(), ctypes.c_int()
    pdfium_c.FPDF_PageToDevice(page, 0, 0, width, height, 0, x, y, ctypes.byref(device_x), ctypes.byref(device_y))
    return device_x.value, device_y.value
