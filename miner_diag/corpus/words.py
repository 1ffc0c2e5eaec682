"""Counting words in any script: where blanks part them, and where they do not."""

from __future__ import annotations

import re
import unicodedata

CHARACTERS_PER_WORD = {"Han": 2, "Kana": 3, "Thai": 4, "Lao": 4, "Khmer": 4, "Burmese": 4, "Tibetan": 4}
"""Letters that count as one word in scripts that set no blanks between words: our choice, near the mean length of words
in running text."""
_RANGES = {
    "Han": "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Kana": "\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "Lao": "\u0e81-\u0ebd\u0ec0-\u0ecd\u0edc-\u0edf",
    "Khmer": "\u1780-\u17d3",
    "Burmese": "\u1000-\u103f\u1050-\u109f",
    "Tibetan": "\u0f40-\u0fbc",
}
_UNSPACED = {script: re.compile(f"[{ranges}]") for script, ranges in _RANGES.items()}
_ANY = re.compile(f"[{''.join(_RANGES.values())}]")
_PIECE = re.compile(f"[{''.join(_RANGES.values())}]|[^\\s{''.join(_RANGES.values())}]+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_SYLLABLES = re.compile("[\uac00-\ud7a3]{2,}")
"""A Korean word: two syllables are four to six letters."""


def split_units(text: str) -> list[str]:
    """Return the words of `text`; of scripts without blanks, every letter with its marks.

    Examples
    --------
    >>> split_units("Debian 参考手册")
    ['Debian', '参', '考', '手', '册']
    """
    if not _ANY.search(text):
        return text.split()
    units: list[str] = []
    for piece in _PIECE.findall(text):
        if units and unicodedata.category(piece[0]).startswith("M"):
            units[-1] += piece
        else:
            units.append(piece)
    return units


def count_words(text: str) -> float:
    """Return the number of words of `text`: between blanks, and so many letters a word in scripts without blanks.

    Examples
    --------
    >>> count_words("Sleep deprivation study"), count_words("软件包管理"), count_words("Debian 参考")
    (3.0, 2.5, 2.0)
    """
    if not _ANY.search(text):
        return float(len(text.split()))
    spaced = [word for word in _ANY.sub(" ", text).split() if any(c.isalnum() for c in word)]
    return len(spaced) + _unspaced_words(text)


def count_real_words(text: str) -> float:
    """Return how many words of `text` say something: at least three letters, or two syllables of Korean.

    In scripts without blanks every word does. Marks that are set on letters, as the vowels of Hindi, part no word.
    """
    spaced = without_marks(_ANY.sub(" ", text))
    rest, n_korean = _SYLLABLES.subn(" ", spaced)
    return len(_WORD.findall(rest)) + n_korean + _unspaced_words(text)


def without_marks(text: str) -> str:
    """Return `text` without the marks that are set on letters: accents that stand alone, vowel signs, tones."""
    return text if text.isascii() else "".join(c for c in text if not unicodedata.category(c).startswith("M"))


def _unspaced_words(text: str) -> float:
    if not _ANY.search(text):
        return 0.0
    return sum(len(found.findall(text)) / CHARACTERS_PER_WORD[script] for script, found in _UNSPACED.items())
