"""Hidden queries: take a query's own words out of a page's text and out of its picture.

A title or a caption stands word for word on its page, so the plain task rewards string matching. Words are found by
their letters and digits alone, so that line breaks, hyphens, ligatures, accents and case do not matter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from miner_diag.corpus.words import split_units

MIN_PART_WORDS = 2
"""A title that is not on its page as a whole is hidden in part: its longest run of at least this many words ..."""
MIN_PART_SHARE = 0.5
"""... that makes up at least this share of its letters."""


def letters(text: str) -> tuple[str, np.ndarray]:
    r"""Return the plain letters and digits of `text`, and where each of them stands.

    Plain means: compatibility decomposition (ligatures and accents taken apart), case folding, and everything that is
    no letter or digit left out.

    Returns
    -------
    str
        The plain letters, C of them.
    ndarray [C]
        For each, its position in `text`.

    Examples
    --------
    >>> letters("Ef\ufb01-\n cient")[0]
    'efficient'
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
    upper = (codes >= 65) & (codes <= 90)
    plain = upper | ((codes >= 97) & (codes <= 122)) | ((codes >= 48) & (codes <= 57))
    positions, plain_letters = [np.flatnonzero(plain)], [codes[plain] + 32 * upper[plain]]
    for position in np.flatnonzero(codes > 127):
        inside = [ord(c) for c in unicodedata.normalize("NFKD", text[position]).casefold() if c.isalnum()]
        positions.append(np.full(len(inside), position))
        plain_letters.append(np.array(inside, dtype=np.int64))
    where, what = np.concatenate(positions), np.concatenate(plain_letters)
    order = np.argsort(where, kind="stable")
    return what[order].astype("<u4").tobytes().decode("utf-32-le"), where[order]


@lru_cache(maxsize=1 << 16)
def plain_letters(text: str) -> str:
    """Return the plain letters of `text` alone; the same query meets every page of its document."""
    return letters(text)[0]


def hidden_characters(text: str, queries: Sequence[str]) -> np.ndarray:
    """Return which characters of `text` must go so that no query is left in it.

    Every place where all letters of a query stand in a row is hidden, from its first letter to its last. Where a cut
    joins its neighbours to the same query again, they go too.

    Parameters
    ----------
    text : str
        A page's text, C characters.
    queries : sequence of str
        What must not be left.

    Returns
    -------
    ndarray [C] of bool
        True where a character is hidden.
    """
    hidden = np.zeros(len(text), dtype=bool)
    needles = sorted({needle for query in queries if (needle := plain_letters(query))}, key=lambda n: (-len(n), n))
    stream, where = letters(text)
    while True:
        ranges = [span for needle in needles for span in _occurrences(stream, needle)]
        if not ranges:
            return hidden
        for start, stop in ranges:
            hidden[where[start] : where[stop - 1] + 1] = True
        kept = ~hidden[where]
        stream, where = "".join(np.array(list(stream))[kept]), where[kept]


def longest_part(text: str, query: str) -> str | None:
    """Return the longest run of the query's words that stands in `text`; None if there is no notable one.

    Notable means at least `MIN_PART_WORDS` words and `MIN_PART_SHARE` of the query's letters: some outline titles are
    worded a little differently from the heading on the page. In scripts without blanks every letter is a word here.
    """
    stream, words = plain_letters(text), split_units(query)
    total = len(plain_letters(query))
    for length in range(len(words), MIN_PART_WORDS - 1, -1):
        for start in range(len(words) - length + 1):
            part = " ".join(words[start : start + length])
            needle = plain_letters(part)
            if needle and len(needle) >= MIN_PART_SHARE * total and needle in stream:
                return part
    return None


def located(query: str, text: str) -> bool:
    """Return whether the words of `query` are found in `text`: all of its letters, or a notable part of them."""
    return stands_in(query, text) or longest_part(text, query) is not None


def stands_in(query: str, text: str) -> bool:
    """Return whether all letters of `query` stand in a row in `text`; False for a query without letters."""
    needle = plain_letters(query)
    return bool(needle) and needle in plain_letters(text)


def _occurrences(stream: str, needle: str) -> list[tuple[int, int]]:
    """All places of `needle`, overlapping ones too."""
    found, start = [], stream.find(needle)
    while start >= 0:
        found.append((start, start + len(needle)))
        start = stream.find(needle, start + 1)
    return found
