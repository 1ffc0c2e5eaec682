"""Queries without annotation: outline titles and figure and table captions, each with the page it stands on."""

from __future__ import annotations

import re
from collections.abc import Iterator

DULL_TITLES = frozenset(
    "contents|table of contents|list of figures|list of tables|index|references|bibliography|introduction|preface|"
    "summary|conclusion|conclusions|acknowledgements|acknowledgments|license|copyright|overview|examples|example|"
    "see also|description|arguments|usage|value|author|authors|note|notes|abstract|details|options|session info|"
    "session information|getting started|title page|further reading|getting help|and so on".split("|")
)
"""Titles that every document has: they name no page in particular."""
TITLE_WORDS = (2, 20)
"""Fewest and most words of an outline title that becomes a query."""
CAPTION_WORDS = (4, 40)
"""Fewest and most words of a caption that becomes a query."""
CAPTION_LINES = 6
"""Lines that a caption may go on for."""

_CAPTION = re.compile(r"^\s*(Figure|Fig\.|Table)\s+[A-Z]?[\d.\-]*\d\s*[:.\-\u2013]\s*(\S.*)$", re.IGNORECASE)
_NUMBERING = re.compile(
    r"^\s*(?:\d+(?:\.\d+)*\.?|[A-Z](?:\.\d+)+\.?|[A-Z]\.|"
    r"(?:Chapter|Section|Appendix|Part) (?:\d+|[A-Z]|[IVX]+)(?:\.\d+)*[.:]?)\s+(?=\S)"
)
_SENTENCE = re.compile(r"(?:They|It|This|These|Those|We|Here|However|See|Note that|There|Then|As|In this|Also)\b")
_CODE = re.compile(r"[{}<>\\|=$]|\(\)|::|->|\d{4,}|[._]{3,}|(?:\. ){3,}")
_STOP = re.compile(r"(?<=[a-z)\]0-9])(?<!et al)(?<!e\.g)(?<!i\.e)(?<!\bvs)(?<!\bFig)(?<!\bcf)\.\s")
_WORD = re.compile(r"[^\W\d_]{3}")
_DROPPED = dict.fromkeys(map(ord, "\x00\x02\ufffe\u00ad\ufffd"))


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
    text = _NUMBERING.sub("", clean_text(title)).strip(" .:")
    fits = TITLE_WORDS[0] <= len(text.split()) <= TITLE_WORDS[1]
    return text if fits and text.casefold() not in DULL_TITLES and _WORD.search(text) else None


def caption_queries(characters: str) -> Iterator[tuple[str, str]]:
    """Yield ("figure" or "table", caption) for every caption among a page's lines.

    A caption is a line that opens with "Figure 3:" or "Table 2."; it goes on behind lines about as wide as the page's
    text, up to its first full stop. What looks like code, like a line of a list of figures, or like a sentence that a
    mention of the figure only stands before, is no caption.

    Parameters
    ----------
    characters : str
        The page's text layer with its line ends.
    """
    lines = characters.splitlines()
    widths = sorted(len(line.rstrip()) for line in lines if line.strip())
    wide = 0.8 * widths[int(0.9 * (len(widths) - 1))] if widths else 0.0
    for number, line in enumerate(lines):
        match = _CAPTION.match(line)
        if not match:
            continue
        text, last = match.group(2), line
        for more in lines[number + 1 : number + CAPTION_LINES]:
            ended = re.search(r"[.!?]\s*$", text) or len(text.split()) > CAPTION_WORDS[1]
            if ended or len(last.rstrip()) < wide or not more.strip() or _CAPTION.match(more) or _NUMBERING.match(more):
                break
            text, last = text + "\n" + more, more
        text = _STOP.split(clean_text(text) + " ", maxsplit=1)[0].strip(" .:")
        fits = CAPTION_WORDS[0] <= len(text.split()) <= CAPTION_WORDS[1]
        if fits and not _CODE.search(text) and not _SENTENCE.match(text) and len(_WORD.findall(text)) >= 3:
            yield ("table" if match.group(1).lower() == "table" else "figure"), text
