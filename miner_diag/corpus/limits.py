"""How much of the machine one untrusted PDF may take."""

from __future__ import annotations

from dataclasses import dataclass, fields

OUT_OF_MEMORY = 77
"""The exit status of a reading process in which Python got no more memory."""
MAX_RENDER_SIDE = 4_096
"""Longest side of a rendered page, in pixels."""
PICTURE_BYTES = 3 * (MAX_RENDER_SIDE + 1) ** 2
"""Bytes of the largest rendering: a side may be rounded up by a pixel. A reading process has them besides its bound."""
LEAST_MEMORY = 256
"""The least memory that a reading process works with, in MB."""


@dataclass(frozen=True)
class PdfLimits:
    """The bounds of reading and drawing PDFs. What goes over one is left out by name, and the rest is read.

    The defaults leave a good document alone: the slowest page of the named data sets takes a small share of each.

    Raises
    ------
    ValueError
        If a bound is not above 0, or the memory is less than the reader itself needs.
    """

    memory_mb: int = 1_500
    """The memory that the reading process may take, in MB (2^20 bytes); kept where the system has such a bound
    (Linux)."""
    page_seconds: float = 20.0
    """The processor time that opening a document, reading one page or drawing one page may take, in seconds."""
    document_seconds: float = 300.0
    """The processor time that reading one document may take, in seconds."""
    pages: int = 10_000
    """The number of pages of a document that are read."""
    bookmarks: int = 10_000
    """The number of bookmarks of a document that are read."""
    query_characters: int = 1_000
    """The length of a title or caption that becomes a query, in characters."""
    broken_pages: int = 3
    """The number of pages that may go over a bound before the rest of their document is left out."""
    notes: int = 20
    """The number of left-out pages of a document that are named one by one; more are put into one sentence."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for item in fields(self):
            if not (value := getattr(self, item.name)) > 0:
                raise ValueError(f"{item.name} must be above 0; got {value!r}")
        if self.memory_mb < LEAST_MEMORY:
            raise ValueError(f"memory_mb must be at least {LEAST_MEMORY}; got {self.memory_mb!r}")


DEFAULT_LIMITS = PdfLimits()
"""The bounds where none are given."""
