"""Text from elsewhere, made harmless: names, titles, queries and reasons that terminals, logs and tables show."""

from __future__ import annotations

import re

_DANGEROUS = (
    "\x00-\x1f\x7f-\x9f"  # control characters: escape codes, line ends, tabs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of writing
    "\u2028\u2029"  # ends of lines and paragraphs
    "\ud800-\udfff"  # bytes of a file name that are no text
)
"""Characters that do something to a terminal instead of being shown; a part of a regular expression."""

DANGEROUS = re.compile(f"[{_DANGEROUS}]")
"""Finds one of them."""


def escaped(found: re.Match[str]) -> str:
    r"""Return the code of a character that was found, as ``\x1b`` or ``\u202e``."""
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def inert(text: object) -> str:
    r"""Return text on one line that does nothing to the terminal it is shown in.

    Control characters (escape codes, line ends, tabs) and marks that turn the direction of writing are replaced by
    their codes; everything else stays. It is for showing only: JSON files hold the text as it is.

    Examples
    --------
    >>> print(inert("manual\x1b[2J\nof \u202evalves"))
    manual\x1b[2J\x0aof \u202evalves
    """
    return DANGEROUS.sub(escaped, str(text))
