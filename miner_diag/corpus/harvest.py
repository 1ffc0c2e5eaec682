"""Queries without annotation: outline titles and figure and table captions, each with the page it stands on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from miner_diag.corpus.languages import caption_kinds, caption_words, mentions
from miner_diag.corpus.words import count_real_words, count_words, without_marks

DULL_TITLES = frozenset(
    "table of contents|list of figures|list of tables|see also|session info|session information|getting started|"
    "title page|further reading|getting help|and so on|frequently asked questions|release notes|known issues".split("|")
)
"""Titles of two words and more that every document has: they name no page in particular."""
TITLE_WORDS = (2, 20)
"""Fewest and most words of an outline title that becomes a query, as :mod:`miner_diag.corpus.words` counts them."""
CAPTION_WORDS = (4, 40)
"""Fewest and most words of a caption that becomes a query."""
CAPTION_LINES = 6
"""Lines that a caption may go on for."""
FULL_LINE = 0.65
"""A caption goes on only behind a line of at least this share of the page's text width."""
LINE_GAP = 1.7
"""A caption goes on only if the next line starts at most this many font sizes below."""
MARKED_SHARE = 0.8
"""Where this share of a document's captions has a colon or full stop behind the number, those without are mentions."""
LISTED = 4
"""A page with at least this many captions that come back on later pages is a list of figures."""
SYMBOL_SHARE = 0.12
"""Largest share of characters of a query that are neither letters, digits, spaces nor common punctuation."""

_SPACED, _UNSPACED = caption_words(unspaced=False), caption_words(unspaced=True)
_CAPTION = re.compile(
    rf"^\s*(?:(?P<spaced>{_SPACED})\s+|(?P<unspaced>{_UNSPACED})\s*)"
    r"(?P<label>(?:[A-Z]\.?)?\d+(?:[.\-\u2010\u2011]\d+)*)"
    r"(?:(?P<mark>\s*[:.\u2013\u2014-]\s+|\s*[\uff1a\uff0e]\s*)|\.?\s+)(?P<text>\S.*)$"
)
_NEXT_CAPTION = re.compile(
    rf"\s(?=(?:(?:{'|'.join(w for w in _SPACED.split('|') if not w.endswith('.'))}) [\dA-Z.]+[:.]|"
    rf"(?:{_UNSPACED})\s?[\dA-Z.]+[:.\uff1a]))"
)
_QUOTES = '\u201c"\u201e\u00ab\u300c\u300e\u300a'
_NUMBERING = re.compile(
    r"^\s*(?:\d+(?:\.\d+)*\.?|[A-Z](?:\.\d+)+\.?|[A-Z]\.|"
    r"(?:Chapter|Section|Appendix|Part) (?:\d+|[A-Z]|[IVX]+)(?:\.\d+)*[.:]?|[IVX]{2,}\.?)\)?\s+(?=\S)"
)
_SENTENCE = re.compile(
    r"(?:They|It|This|These|Those|We|Here|However|See|Note that|There|Then|As|In this|Also|Shows?|Lists?|"
    r"[Ii]s|[Ii]llustrates?)\b"
)
_LEADER = re.compile(r"(?:\s?\.){4,}")
_RESIDUE = re.compile(r"\[\w*color\]|\\[a-z]{2,}|[\x00-\x1f\ufffd\ue000-\uf8ff]")
_STOP = re.compile(
    r"(?:(?<=[A-Za-z)\]0-9])|(?<=[^\W\d_]{2}))(?<!et al)(?<!e\.g)(?<!i\.e)(?<!\bvs)(?<!\bFig)(?<!\bcf)(?<!\b[A-Z])"
    r"(?<!\bz)(?<!\bbzw)(?<!\bca)\.\s|[\u3002\uff0e\uff61]"
)
_UNFINISHED = re.compile(r"(?:[,;(]|\b(?:and|or|of|the|an?|with|for|in|on|to|by|from|is|are))$")
_PUNCTUATION = frozenset(
    ".,:;'()-/\u2019\u2013\u0964"
    "\u3001\u3002\uff0c\uff1a\uff1b\uff08\uff09\uff01\uff1f\u30fb"  # of Chinese and Japanese
    "\u300c\u300d\u300e\u300f\u300a\u300b\u3008\u3009\u3010\u3011"  # their quotation marks and brackets
)
_DROPPED = dict.fromkeys(map(ord, "\x00\x02\ufffe\u00ad\ufffd\u200b"))


@dataclass(frozen=True)
class Caption:
    """A figure's or table's caption as it stands on a page."""

    kind: str
    """"figure" or "table"."""
    label: str
    """Its number: "3", "A.1"."""
    text: str
    """What becomes the query."""
    marked: bool
    """Whether a colon, dash or full stop sets the label off."""


def clean_text(characters: str) -> str:
    r"""Return a page's characters as running text: broken words joined, white space folded.

    Examples
    --------
    >>> clean_text("exam\x02\r\nple  page\r\n")
    'example page'
    """
    joined = re.sub(r"[\x02\u00ad\ufffe]\s*", "", characters)
    return re.sub(r"\s+", " ", joined.translate(_DROPPED)).strip()


def outline_query(title: str) -> str | None:
    """Return an outline title as a query, its numbering taken off; None if it says too little.

    Examples
    --------
    >>> outline_query("3.1 Sleep deprivation study")
    'Sleep deprivation study'
    >>> outline_query("Introduction") is None
    True
    """
    text = _NUMBERING.sub("", clean_text(title)).strip(" .:\u3002\uff1a")
    dull = text.casefold() in DULL_TITLES or _match_caption(text)
    return text if not dull and _says_enough(text, TITLE_WORDS) else None


def page_captions(characters: str, place: Callable[[int], tuple[float, float]] | None = None) -> list[Caption]:
    """Return every caption among a page's lines.

    A caption is a line that opens with "Figure 3:", "Table 2." or "Figure 3 Capital", or with what captions are called
    in another language (``languages.yaml``); it goes on behind lines about as wide as the page's text, while the lines
    are set alike, up to its first full stop. What looks like a line of a list of figures, or like a sentence that
    mentions the figure, is no caption.

    Parameters
    ----------
    characters : str
        The page's text layer with its line ends.
    place : callable, optional
        Position of a character -> (height of its line on the page, font size), both in points; if given, lines are
        joined only where font and spacing say that they belong together.
    """
    starts, lines, position = [], [], 0
    for line in characters.splitlines(keepends=True):
        starts.append(position + len(line) - len(line.lstrip()))
        lines.append(line.rstrip("\r\n"))
        position += len(line)
    widths = sorted(len(line.rstrip()) for line in lines if line.strip())
    wide = FULL_LINE * widths[int(0.9 * (len(widths) - 1))] if widths else 0.0
    found = []
    for number, line in enumerate(lines):
        match = _match_caption(line)
        if not match or _LEADER.search(line):
            continue
        text, last = match["text"], line
        for following in range(number + 1, min(number + CAPTION_LINES, len(lines))):
            more = lines[following]
            ended = re.search(r"[.!?\u3002\uff01\uff1f]\s*$", text) or count_words(text) > CAPTION_WORDS[1]
            ended = ended or len(last.rstrip()) < wide
            other = not more.strip() or more.strip().isdigit() or _match_caption(more) or _NUMBERING.match(more)
            if ended or other or not _set_alike(place, starts[following - 1], starts[following]):
                break
            text, last = text + "\n" + more, more
        if _LEADER.search(text):
            continue
        text = _STOP.split(clean_text(text) + " ", maxsplit=1)[0].strip(" .:\u3002\uff1a")
        text = _NEXT_CAPTION.split(text, maxsplit=1)[0]  # captions side by side
        if _says_enough(text, CAPTION_WORDS) and not _SENTENCE.match(text) and not _UNFINISHED.search(text):
            kind = caption_kinds()[match["spaced"] or match["unspaced"]]
            found.append(Caption(kind, match["label"], text, match["mark"] is not None))
    return found


def true_captions(pages: Sequence[Sequence[Caption]]) -> list[list[Caption]]:
    """Return each page's captions without those of lists of figures, and without mentions.

    Parameters
    ----------
    pages : sequence of sequences
        Captions found on each page of one document, in order.
    """
    last: dict[tuple[str, str], int] = defaultdict(int)
    for number, captions in enumerate(pages):
        for caption in captions:
            last[caption.kind, caption.label] = number
    marked = Counter(caption.marked for captions in pages for caption in captions)
    only_marked = marked[True] >= MARKED_SHARE * marked.total()
    kept = []
    for number, captions in enumerate(pages):
        again = sum(last[caption.kind, caption.label] > number for caption in captions)
        listed = again >= LISTED and again >= 0.6 * len(captions)
        kept.append([caption for caption in captions if not listed and (caption.marked or not only_marked)])
    return kept


def _match_caption(line: str) -> re.Match[str] | None:
    """Match a line that opens as a caption does; without a mark behind the number, no sentence may go on there."""
    match = _CAPTION.match(line)
    if match is None or match["mark"] is not None:
        return match
    first = match["text"][0]
    if match["unspaced"]:
        return match if first.isalpha() and not match["text"].startswith(mentions()) else None
    return match if first in _QUOTES or (first.isalpha() and not first.islower()) else None


def _says_enough(text: str, n_words: tuple[int, int]) -> bool:
    """Whether a text has as many words as asked for, two of them real ones, and no residue of markup."""
    if not n_words[0] <= count_words(text) <= n_words[1] or count_real_words(text) < 2 or _RESIDUE.search(text):
        return False
    symbols = sum(not (c.isalnum() or c.isspace() or c in _PUNCTUATION) for c in without_marks(text))
    return symbols <= SYMBOL_SHARE * len(text)


def _set_alike(place: Callable[[int], tuple[float, float]] | None, start: int, following: int) -> bool:
    """Whether two lines have one font size and a paragraph's spacing."""
    if place is None:
        return True
    (height, size), (next_height, next_size) = place(start), place(following)
    return abs(size - next_size) <= 0.3 and 0 <= height - next_height <= LINE_GAP * max(size, 1.0)
