"""Ink of a page that is not its text layer's: pictures, scans, letters drawn as paths, stamps.

A title that is not among a page's characters may still be shown there. Where the text layer is all that is drawn, it is
not. SciPy's filters would do, but to import them takes as long as the rest of the reading process.
"""

from __future__ import annotations

import ctypes
import unicodedata
from contextlib import closing

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from miner_diag.corpus.hiding import plain_letters
from miner_diag.corpus.pdf import HYPHEN, MAX_CHARACTERS, render_page

INK_SIDE = 1024
"""Longest side, in pixels, of the rendering that is looked at: 10-point letters of an A4 page are 6 pixels wide."""
CONTRAST = 32
"""Ink is where neighbouring pixels differ by more than this, of 255: an even tint shows no letters."""
RULE_LENGTH = 40
"""A straight line at least this many pixels long ..."""
RULE_WIDTH = 5
"""... and at most this many wide is a rule or a frame, which holds no words."""
PIXELS_PER_LETTER = 8
"""Ink that is left must reach this for every letter of a title to hold it. Letters of 4 points have some 30 pixels, as
their edges count on both sides."""


def unread_ink(page: pdfium.PdfPage) -> int:
    """Return how many pixels of ink are left of a page without its text; tints, rules and frames do not count.

    Text counts as ink where no person could read it out of the text layer: its font has no codes of Unicode, or private
    ones. Text that is drawn invisibly, as behind a scan, takes no ink away. Form fields and annotations count, for they
    may look otherwise than they read.

    Parameters
    ----------
    page : PdfPage
        An open page.

    Returns
    -------
    int
        0 or more, of a rendering of `INK_SIDE` pixels on the longer side.
    """
    texts = _readable_texts(page)
    for item in texts:
        pdfium_c.FPDFPageObj_SetIsActive(item, False)
    try:
        picture = render_page(page, INK_SIDE)
    finally:
        for item in texts:
            pdfium_c.FPDFPageObj_SetIsActive(item, True)
    darkest = np.asarray(picture).min(axis=2)
    ink = _over_neighbours(np.maximum, darkest) - _over_neighbours(np.minimum, darkest) > CONTRAST
    ink &= ~_rules(ink)
    ink &= ~_rules(ink.T).T  # where lines cross, these take the crossing too
    return int(ink.sum())


def holds_words(ink: int, text: str) -> bool:
    """Return whether so much unread ink (pixels, of :func:`unread_ink`) is enough to show the letters of `text`."""
    return ink >= PIXELS_PER_LETTER * max(1, len(plain_letters(text)))


def unbroken_runs(mask: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Return bool [H, W]: pixels that belong, along one axis, to an unbroken run of at least `length` of `mask`.

    Examples
    --------
    >>> unbroken_runs(np.array([[True, True, False, True]]), 2, axis=1)
    array([[ True,  True, False, False]])
    """
    rows = np.pad(mask.T if axis == 0 else mask, ((0, 0), (0, 1)))  # so that no run goes on in the next row
    edges = np.flatnonzero(np.diff(rows.ravel(), prepend=False))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= length
    steps = np.zeros(rows.size, dtype=np.int8)
    steps[starts[long]], steps[ends[long]] = 1, -1
    found = steps.cumsum(dtype=np.int8).astype(bool).reshape(rows.shape)[:, :-1]
    return found.T if axis == 0 else found


def _over_neighbours(ufunc: np.ufunc, pixels: np.ndarray) -> np.ndarray:
    """Return the ufunc's value over each pixel and its neighbours, eight of them where there are so many."""
    padded = np.pad(pixels, 1, mode="edge")
    of_three = ufunc(ufunc(padded[:-2], padded[1:-1]), padded[2:])
    return ufunc(ufunc(of_three[:, :-2], of_three[:, 1:-1]), of_three[:, 2:])


def _readable_texts(page: pdfium.PdfPage) -> list[pdfium.PdfObject]:
    """Text objects of a page all of whose characters have a code that a person reads."""
    unreadable = set()
    with closing(page.get_textpage()) as text_page:
        for index in range(min(text_page.count_chars(), MAX_CHARACTERS)):
            character = chr(pdfium_c.FPDFText_GetUnicode(text_page, index) % 0x110000)
            none = unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and character not in (HYPHEN, "\ufffe")
            if none or character == "\ufffd" or pdfium_c.FPDFText_HasUnicodeMapError(text_page, index) == 1:
                if item := pdfium_c.FPDFText_GetTextObject(text_page, index):
                    unreadable.add(ctypes.addressof(item.contents))
    found = page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_TEXT], max_depth=15)
    return [item for item in found if ctypes.addressof(item.raw.contents) not in unreadable]


def _rules(ink: np.ndarray) -> np.ndarray:
    """Return [height, width] bool: ink of level lines at least `RULE_LENGTH` long and at most `RULE_WIDTH` high."""
    return unbroken_runs(ink, RULE_LENGTH, axis=1) & ~unbroken_runs(ink, RULE_WIDTH + 1, axis=0)
