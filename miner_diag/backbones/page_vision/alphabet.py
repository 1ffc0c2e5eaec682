"""The characters the line reader tells apart: what is left of a text once case, accents and ligatures are taken off.

MiniLM's tokenizer lowercases and strips accents too, so nothing it would use is lost.
"""

from __future__ import annotations

import unicodedata

import numpy as np

CHARACTERS = " abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()[]{}<>/\\|-_+=*&%$#@^~`"
"""Class 1 + i is character i; class 0 is the blank of CTC."""

OTHER = len(CHARACTERS) + 1
"""The class of every other glyph: Greek, mathematics, symbols; it is read as a space."""

N_CLASSES = OTHER + 1

_CLASS = {character: number for number, character in enumerate(CHARACTERS, start=1)}
_LIKE = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "–": "-",
        "—": "-",
        "−": "-",
        "‐": "-",
        "\x02": "-",
        "­": "-",
        "•": "*",
        "·": ".",
        "∗": "*",
        "ı": "i",
        "ß": "ss",
        "æ": "ae",
        "ø": "o",
        "ł": "l",
        "đ": "d",
    }
)


def classes(character: str) -> list[int]:
    """Return the classes one character of a text layer is read as; [] for what leaves no ink.

    Examples
    --------
    >>> classes("É") == classes("e")
    True
    >>> decode(np.array([*classes("ﬁ"), 0, 0, *classes("t")]))
    'fit'
    """
    numbers = []
    for part in unicodedata.normalize("NFKD", character.translate(_LIKE)).casefold():
        if unicodedata.combining(part) or not part.isprintable():
            continue
        numbers.append(_CLASS.get(part, OTHER))
    return numbers


def decode(best: np.ndarray) -> str:
    """Return the text of a line: repeats merged, blanks dropped, other glyphs as spaces.

    Parameters
    ----------
    best : ndarray [T] of int
        The best class of each frame.
    """
    first = np.ones(len(best), dtype=bool)
    first[1:] = best[1:] != best[:-1]
    kept = best[first & (best != 0)]
    return " ".join("".join(" " if c == OTHER else CHARACTERS[c - 1] for c in kept).split())
