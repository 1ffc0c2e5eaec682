"""What captions are called in each language, and which language a text is in: both out of ``languages.yaml``."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

OTHER_SCRIPT_SHARE = 0.3
"""A text with at least this share of letters that are not Latin is not English: our choice."""
MIN_FUNCTION_WORDS = 10
"""A text with fewer function words than this, of any language, is too short to tell: our choice."""


@dataclass(frozen=True)
class Language:
    """A language as ``languages.yaml`` describes it."""

    figure: tuple[str, ...] = ()
    """What stands before a figure's number."""
    table: tuple[str, ...] = ()
    """What stands before a table's number."""
    mention: tuple[str, ...] = ()
    """What, right behind the number, makes a sentence about the figure, in languages without capitals."""
    words: frozenset[str] = frozenset()
    """Frequent function words."""
    unspaced: bool = False
    """Whether the number may follow without a blank."""


@cache
def languages() -> dict[str, Language]:
    """Return the known languages by their English name."""
    rows = yaml.safe_load((Path(__file__).parent / "languages.yaml").read_text(encoding="utf-8"))
    return {
        name: Language(
            tuple(row.get("figure", ())),
            tuple(row.get("table", ())),
            tuple(row.get("mention", ())),
            frozenset(row.get("words", ())),
            row.get("unspaced", False),
        )
        for name, row in rows.items()
    }


@cache
def caption_kinds() -> dict[str, Literal["figure", "table"]]:
    """Return what each word that opens a caption stands for, as it is written and in capitals."""
    kinds: dict[str, Literal["figure", "table"]] = {}
    for language in languages().values():
        kinds |= {form: "figure" for word in language.figure for form in (word, word.upper())}
        kinds |= {form: "table" for word in language.table for form in (word, word.upper())}
    return kinds


def caption_words(*, unspaced: bool) -> str:
    """Return a pattern of the words that open a caption; `unspaced`: of those that need no blank before the number."""
    words = {
        form
        for language in languages().values()
        if language.unspaced == unspaced
        for word in (*language.figure, *language.table)
        for form in (word, word.upper())
    }
    return "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))


@cache
def mentions() -> tuple[str, ...]:
    """Return what opens a sentence about a figure right behind its number, in languages without capitals."""
    return tuple(word for language in languages().values() for word in language.mention)


def language_of(texts: Iterable[str]) -> str | None:
    """Return the language that texts are in, by our own rule; None where they are too short to tell.

    With at least `OTHER_SCRIPT_SHARE` of letters that are not Latin, "a language that is not in Latin letters".
    Otherwise the language whose function words are the most among the texts' words.
    """
    words: Counter[str] = Counter()
    for text in texts:
        words.update(text.casefold().split())
    n_latin = n_other = 0
    for word, count in words.items():
        if word.isascii():
            n_latin += count * sum(map(str.isalpha, word))
        else:
            latin = sum(c.isalpha() and unicodedata.name(c, "").startswith("LATIN") for c in word)
            n_latin += count * latin
            n_other += count * (sum(map(str.isalpha, word)) - latin)
    if n_other and n_other >= OTHER_SCRIPT_SHARE * (n_latin + n_other):
        return "a language that is not in Latin letters"
    found = {name: sum(words[word] for word in language.words) for name, language in languages().items()}
    best = max(found, key=lambda name: found[name])  # the first of equals: English comes first
    return best if found[best] >= MIN_FUNCTION_WORDS else None
