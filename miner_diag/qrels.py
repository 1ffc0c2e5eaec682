"""Files that say of pairs of a query and a page how good they are: qrels and runs, as people have them."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

Qrels = dict[str, dict[str, int]]

GRADE_LIMIT = 2**53
"""Grades are below this: up to here, a float64 holds every whole number."""

HEADINGS: Mapping[str, frozenset[str]] = {
    "query": frozenset({"query", "queryid", "qid", "topic", "topicid", "q"}),
    "page": frozenset(
        "corpus corpusid doc docid docno document documentid page pageid passage passageid pid did item itemid".split()
    ),
    "value": frozenset(
        "score rel relevance relevancy grade label judgment judgement qrel qrels relevancescore sim similarity".split()
    ),
}
"""Names of columns in a header, in small letters and without signs: of the query, of the page, of grade or score."""

LARGEST_FILE = 256 << 20
"""Bytes of the largest file that is read: some five million lines, for each of which memory is needed at once."""


class Pair(NamedTuple):
    """What a file says of a query and a page."""

    where: str
    """File and line."""
    query_id: str
    """Of the query."""
    page_id: str
    """Of the page."""
    value: Any
    """The grade or score."""
    rank: int | None = None
    """What the column of ranks says, where a kind of file has one."""


@dataclass(frozen=True)
class PairFormat:
    """What a kind of file holds."""

    what: str
    """What is said of a pair: "grade" or "score"."""
    columns: Mapping[int, tuple[int, int, int]]
    """Number of columns of a line -> which hold query, page and value, where no header says it."""
    expected: str
    """The columns in words."""
    parse: Callable[[object], Any]
    """Turns what stands in the file into a value; raises ValueError."""
    ranks: Mapping[int, int] = field(default_factory=dict)
    """Number of columns of a line -> which holds a rank, where no header says it; empty if such files have none."""
    queries_of: Callable[[dict[str, Any]], Iterable[tuple[str, Any]]] = dict.items
    """Takes what a JSON file holds and gives each query with its pages; raises ValueError."""


def read_qrels(path: Path | str) -> Qrels:
    """Read qrels: BEIR (query, page, grade), TREC (query, iteration, page, grade) or JSON {query: {page: grade}}.

    Columns stand between tabs if the first line has one, else between spaces. A first line whose grade is no number
    and whose columns have known names (``query-id``, ``qid``, ``docid``, ``score``, …) is a header, which says what
    stands where. Grades are whole numbers, also written as ``1.0``; one below 0 counts as 0, not relevant, and a
    warning says how many there were.

    Returns
    -------
    dict
        {query id: {page id: grade}}, queries in the order of the file.

    Raises
    ------
    ValueError
        If the file is missing, empty or not text, or a line has other columns, a grade that is not a whole number, or
        a pair that an earlier line has graded; the message names file and line.
    """
    return qrels_of(read_pairs(path, QRELS))


def qrels_of(pairs: Sequence[Pair]) -> Qrels:
    """Return the grades of what `read_pairs` read of a file of qrels; those below 0 are told and count as 0."""
    qrels: Qrels = {}
    for pair in pairs:
        qrels.setdefault(pair.query_id, {})[pair.page_id] = max(pair.value, 0)
    if below := [pair.where for pair in pairs if pair.value < 0]:
        logger.warning(
            "%d of %d grades are below 0, the first at %s; they count as 0, not relevant",
            len(below),
            len(pairs),
            below[0],
        )
    return qrels


def read_pairs(path: Path | str, form: PairFormat) -> list[Pair]:
    """Read every pair of a file, in its order.

    Raises
    ------
    ValueError
        If the file is missing, too large, not text, holds no pair, or a line is broken or repeats a pair; file and line
        are named.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ValueError(
                f"{path} has {size / 2**20:.0f} MB; files of at most {LARGEST_FILE >> 20} MB are read. Keep the first "
                "pages of each query, as 1,000, or split the file"
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ValueError(f"{path} is not a text file; expected TREC, tab-separated or JSON text") from None
    pairs: list[Pair] = []
    first: dict[tuple[str, str], str] = {}
    rows = _json_rows(path, text, form) if text.lstrip().startswith("{") else _text_rows(path, text, form)
    for where, query_id, page_id, raw, raw_rank in rows:
        try:
            value = form.parse(raw)
        except ValueError as error:
            shown = repr(raw) if len(repr(raw)) <= 60 else f"{repr(raw)[:60]}…"
            raise ValueError(
                f"{where}: the {form.what} of query {query_id!r}, page {page_id!r} is {shown}; {error}"
            ) from None
        if (query_id, page_id) in first:
            raise ValueError(
                f"{where}: query {query_id!r}, page {page_id!r} stands already at {first[query_id, page_id]}; a pair "
                "must not stand twice"
            )
        if raw_rank is not None and not (raw_rank.isdecimal() and len(raw_rank) <= 15):
            raise ValueError(
                f"{where}: the rank of query {query_id!r}, page {page_id!r} is {raw_rank[:60]!r}; expected a whole "
                "number of at least 0, of 15 digits at most"
            )
        first[query_id, page_id] = where
        pairs.append(Pair(where, query_id, page_id, value, None if raw_rank is None else int(raw_rank)))
    if not pairs:
        raise ValueError(f"{path} holds no line with a {form.what}")
    return pairs


def number(raw: object) -> float:
    """Return what stands in a file as a number.

    Raises
    ------
    ValueError
        If it is none.
    """
    if isinstance(raw, bool) or not isinstance(raw, str | int | float) or (isinstance(raw, str) and "_" in raw):
        raise ValueError("expected a number")
    try:
        return float(raw)
    except OverflowError:
        return math.inf
    except ValueError:
        raise ValueError("expected a number") from None


def _grade(raw: object) -> int:
    value = number(raw)
    if not value.is_integer() or abs(value) >= GRADE_LIMIT:
        raise ValueError("expected a whole number below 2**53 (below 0 counts as 0)")
    return int(value)


QRELS = PairFormat(
    "grade",
    {3: (0, 1, 2), 4: (0, 2, 3)},
    "qrels have 3 columns (query, page, grade) or 4 (query, 0, page, grade)",
    _grade,
)


def _text_rows(path: Path, text: str, form: PairFormat) -> Iterator[tuple[str, str, str, str, str | None]]:
    lines = [(place, line.strip("\r\n")) for place, line in enumerate(text.split("\n"), start=1) if line.strip()]
    tabs = bool(lines) and "\t" in lines[0][1]
    header: tuple[int, tuple[int, int, int], int | None] | None = None
    for row, (place, line) in enumerate(lines):
        where = f"{path}, line {place}"
        fields = [field.strip() for field in (line.split("\t") if tabs else line.split())]
        if row == 0 and (header := _header(fields, form)) is not None:
            continue
        columns, rank = form.columns.get(len(fields)), form.ranks.get(len(fields))
        if header is not None:
            columns, rank = header[1] if len(fields) == header[0] else None, header[2]
        if columns is None:
            between = " between tabs" if tabs else ""
            told = form.expected if header is None else f"the header has {header[0]} columns"
            raise ValueError(f"{where}: {told}{between}, not {len(fields)}; got {line.strip()[:120]!r}")
        query_id, page_id, raw = (fields[column] for column in columns)
        if not query_id or not page_id:
            raise ValueError(f"{where}: the id of the {'page' if query_id else 'query'} is empty; got {line[:120]!r}")
        yield where, query_id, page_id, raw, None if rank is None else fields[rank]


def _header(fields: Sequence[str], form: PairFormat) -> tuple[int, tuple[int, int, int], int | None] | None:
    """Return (number of columns, columns of query, page and value, column of the rank) if a first line is a header."""
    names = [re.sub(r"[^a-z0-9]", "", field.lower()) for field in fields]
    found = {role: [n for n, name in enumerate(names) if name in known] for role, known in HEADINGS.items()}
    if len(found["query"]) != 1 or len(found["page"]) != 1:
        return None
    query, page = found["query"][0], found["page"][0]
    if found["value"]:
        value = found["value"][0]
    else:  # its name is not known, so the column is where it is without a header
        value = form.columns.get(len(fields), (0, 0, 0))[2]
        if value in (query, page) or _is_number(fields[value]):
            return None
    return len(fields), (query, page, value), names.index("rank") if form.ranks and "rank" in names else None


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _json_rows(path: Path, text: str, form: PairFormat) -> Iterator[tuple[str, str, str, object, None]]:
    def no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"{path}: the key {twice!r} stands more than once in one object")
        return content

    try:
        queries = list(form.queries_of(json.loads(text, object_pairs_hook=no_key_twice)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError(f"{path} is JSON nested too deeply; expected {{query: {{page: number}}}}") from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    for query_id, row in queries:
        if not isinstance(row, dict):
            raise ValueError(f"{path}: query {query_id!r} has {type(row).__name__}; expected {{page id: number}}")
        for page_id, raw in row.items():
            yield f"{path}, query {query_id!r}", query_id, page_id, raw, None
