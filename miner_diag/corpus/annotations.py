"""What a viewer shows on top of a PDF's page: the words of form fields and of free-text annotations."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

MAX_ANNOTATIONS = 5_000
"""Annotations of one page that are looked at."""
NOT_SHOWN = pdfium_c.FPDF_ANNOT_FLAG_HIDDEN | pdfium_c.FPDF_ANNOT_FLAG_NOVIEW
"""Flags of an annotation that no viewer shows."""
PASSWORD = 1 << 13
"""Flag of a text field whose value is shown as stars."""
VALUE_FIELDS = (pdfium_c.FPDF_FORMFIELD_TEXTFIELD, pdfium_c.FPDF_FORMFIELD_COMBOBOX)
"""Form fields that show their value."""


@dataclass(frozen=True)
class Annotation:
    """Words that a viewer shows on a page, and where."""

    text: str
    """As they were typed."""
    box: tuple[float, float, float, float]
    """Left, bottom, right, top, in points of the page."""


def shown_annotations(page: pdfium.PdfPage) -> list[Annotation]:
    """Return the words of a page's visible form fields and free-text annotations, in the file's order.

    Form fields are read only where the document's form was opened, as :func:`miner_diag.corpus.pdf.open_pdf` does.
    Stamps, check boxes, buttons and passwords give no words; notes that open on a click are not shown, so they are not
    read.
    """
    found = []
    for number in range(min(pdfium_c.FPDFPage_GetAnnotCount(page), MAX_ANNOTATIONS)):
        with _annotation(page, number) as annotation:
            if not annotation or pdfium_c.FPDFAnnot_GetFlags(annotation) & NOT_SHOWN:
                continue
            text = "\n".join(_words(page, annotation)).strip()
            box = pdfium_c.FS_RECTF()
            if text and pdfium_c.FPDFAnnot_GetRect(annotation, ctypes.byref(box)):
                left, right = sorted((box.left, box.right))
                bottom, top = sorted((box.bottom, box.top))
                found.append(Annotation(text, (left, bottom, right, top)))
    return found


def _words(page: pdfium.PdfPage, annotation: Any) -> Iterator[str]:
    subtype = pdfium_c.FPDFAnnot_GetSubtype(annotation)
    if subtype == pdfium_c.FPDF_ANNOT_FREETEXT:
        yield _utf16(lambda *buffer: pdfium_c.FPDFAnnot_GetStringValue(annotation, b"Contents", *buffer))
    if subtype != pdfium_c.FPDF_ANNOT_WIDGET or page.formenv is None:
        return
    form = page.formenv
    kind = pdfium_c.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in VALUE_FIELDS and not pdfium_c.FPDFAnnot_GetFormFieldFlags(form, annotation) & PASSWORD:
        yield _utf16(lambda *buffer: pdfium_c.FPDFAnnot_GetFormFieldValue(form, annotation, *buffer))
    elif kind == pdfium_c.FPDF_FORMFIELD_LISTBOX:  # shows what can be chosen
        for index in range(min(pdfium_c.FPDFAnnot_GetOptionCount(form, annotation), MAX_ANNOTATIONS)):
            yield _utf16(lambda *buffer, at=index: pdfium_c.FPDFAnnot_GetOptionLabel(form, annotation, at, *buffer))


def _utf16(fill: Callable[..., int]) -> str:
    """Return a string of pdfium's: `fill` takes a buffer and its size in bytes and returns the bytes it needs."""
    n_bytes = fill(None, 0)
    buffer = ctypes.create_string_buffer(max(n_bytes, 2))
    fill(ctypes.cast(buffer, ctypes.POINTER(pdfium_c.FPDF_WCHAR)), n_bytes)
    return buffer.raw[:n_bytes].decode("utf-16-le", "replace").rstrip("\x00")


@contextmanager
def _annotation(page: pdfium.PdfPage, number: int) -> Iterator[Any]:
    annotation = pdfium_c.FPDFPage_GetAnnot(page, number)
    try:
        yield annotation
    finally:
        if annotation:
            pdfium_c.FPDFPage_CloseAnnot(annotation)
