"""Hidden queries: take a query's own words out of a page's text and out of its picture.

A title or a caption stands word for word on its page, so the plain task rewards string matching. Words are found by
their letters and digits alone, so that line breaks, hyphens, ligatures, accents and case do not matter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from miner_diag.corpus.words import split_units

FEW_NEEDLES = 500
"""Up to so many queries it is faster to ask first whether any of them stands on a page at all."""
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
    needles = _needles(tuple(queries))
    stream, where = letters(text)
    hidden = np.zeros(len(text), dtype=bool)
    if len(needles) <= FEW_NEEDLES and not any(needle in stream for needle in needles):
        return hidden
    automaton = _automaton(needles)
    _hide(hidden, ((where[start], where[stop - 1]) for start, stop in automaton.places(stream)))
    kept = np.flatnonzero(~hidden[where])
    _hide(hidden, automaton.cuts((stream[index], int(where[index])) for index in kept))
    return hidden


def _hide(hidden: np.ndarray, places: Iterable[tuple[int, int]]) -> None:
    """Mark from the first to the last character of each place; nested places cost no more than others."""
    change = np.zeros(len(hidden) + 1, dtype=np.int64)
    for first, last in places:
        change[first] += 1
        change[last + 1] -= 1
    hidden |= np.cumsum(change[:-1]) > 0


def longest_part(text: str, query: str) -> str | None:
    """Return the longest run of the query's words that stands in `text`; None if there is no notable one.

    Notable means at least `MIN_PART_WORDS` words and `MIN_PART_SHARE` of the query's letters: some outline titles are
    worded a little differently from the heading on the page. In scripts without blanks every letter is a word here.
    """
    stream, words = plain_letters(text), split_units(query)
    parts = [plain_letters(word) for word in words]
    ends = np.cumsum([0, *map(len, parts)])
    # reach[start]: behind the last word of the longest run from there that stands in the text; what a run holds stands
    # there too, so the reach never falls
    reach, stop = [], 0
    for start in range(len(words)):
        stop = max(stop, start)
        while stop < len(words) and "".join(parts[start : stop + 1]) in stream:
            stop += 1
        reach.append(stop)
    for length in range(len(words), MIN_PART_WORDS - 1, -1):
        for start in range(len(words) - length + 1):
            n_letters = ends[start + length] - ends[start]
            if n_letters and n_letters >= MIN_PART_SHARE * ends[-1] and reach[start] >= start + length:
                return " ".join(words[start : start + length])
    return None


def located(query: str, text: str) -> bool:
    """Return whether the words of `query` are found in `text`: all of its letters, or a notable part of them."""
    return stands_in(query, text) or longest_part(text, query) is not None


def stands_in(query: str, text: str) -> bool:
    """Return whether all letters of `query` stand in a row in `text`; False for a query without letters."""
    needle = plain_letters(query)
    return bool(needle) and needle in plain_letters(text)


@lru_cache(maxsize=64)
def _needles(queries: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({needle for query in queries if (needle := plain_letters(query))}))


class _Automaton:
    """Finds many texts in one pass over a stream (Aho and Corasick, 1975), so that no choice of texts makes it slow."""

    def __init__(self, needles: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._longest = [0]
        for needle in needles:
            state = 0
            for letter in needle:
                state = self._next[state].setdefault(letter, len(self._next))
                if state == len(self._next):
                    self._next.append({})
                    self._longest.append(0)
            self._longest[state] = len(needle)
        self._fall = [0] * len(self._next)
        states = list(self._next[0].values())
        for state in states:  # grows while it is read: states in the order of their depth
            for letter, deeper in self._next[state].items():
                self._fall[deeper] = self._step(self._fall[state], letter)
                self._longest[deeper] = self._longest[deeper] or self._longest[self._fall[deeper]]
                states.append(deeper)

    def _step(self, state: int, letter: str) -> int:
        """Return the state behind a letter: the longest beginning of a text that the stream ends with."""
        while (found := self._next[state].get(letter)) is None and state:
            state = self._fall[state]
        return found or 0

    def places(self, stream: str) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of the longest text that ends at each position, by its stop."""
        state = 0
        for position, letter in enumerate(stream, start=1):
            state = self._step(state, letter)
            if length := self._longest[state]:
                yield position - length, position

    def cuts(self, placed: Iterable[tuple[str, int]]) -> Iterator[tuple[int, int]]:
        """Take texts out of a stream as they end, also those that a cut joins.

        Yield the first and last character of each; a character that is several letters, as a ligature, goes as a whole.
        """
        states, gone = [0], -1
        characters: list[int] = []
        for letter, character in placed:
            if character == gone:
                continue
            states.append(self._step(states[-1], letter))
            characters.append(character)
            if length := self._longest[states[-1]]:
                first, gone = characters[-length], character
                while characters and characters[-1] >= first:
                    states.pop()
                    characters.pop()
                yield first, gone


@lru_cache(maxsize=16)
def _automaton(needles: tuple[str, ...]) -> _Automaton:
    return _Automaton(needles)
