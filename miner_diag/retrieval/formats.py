"""Files of qrels and runs: TREC, tab-separated and JSON forms; what is wrong is named with its line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]


def read_qrels(path: Path | str) -> Qrels:
    """Read qrels: BEIR (``query-id, corpus-id, score``, with or without that header), TREC (four columns) or JSON.

    Returns
    -------
    dict
        {query id: {page id: grade}}, queries in the order of the file.

    Raises
    ------
    ValueError
        If the file is missing, empty or not text, or a line has other columns, a grade that is not a whole number of
        at least 0, or a pair that an earlier line has graded; the message names file and line.
    """
    return _read(Path(path), _qrels_columns, _grade, "grade")


def read_run(path: Path | str) -> Run:
    """Read a run: TREC (``query Q0 page rank score tag``), three columns (``query page score``) or JSON.

    The rank column of a TREC run is ignored: only scores rank.

    Raises
    ------
    ValueError
        As in `read_qrels`; scores must be finite.
    """
    return _read(Path(path), _run_columns, _score, "score")


def _read(path: Path, columns: Callable, parse: Callable, what: str) -> dict:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ValueError(f"{path} is not a text file; expected TREC, tab-separated or JSON text") from None
    table: dict[str, dict] = {}
    first: dict[tuple[str, str], str] = {}
    rows = _json_rows(path, text) if text.lstrip().startswith("{") else _text_rows(path, text, columns)
    for where, query_id, page_id, raw in rows:
        try:
            value = parse(raw)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{where}: the {what} of query {query_id!r}, page {page_id!r} is {raw!r}; {error}"
            ) from None
        if (query_id, page_id) in first:
            raise ValueError(
                f"{where}: query {query_id!r}, page {page_id!r} stands already at {first[query_id, page_id]}"
            )
        first[query_id, page_id] = where
        table.setdefault(query_id, {})[page_id] = value
    if not table:
        raise ValueError(f"{path} holds no line with a {what}")
    return table


def _text_rows(path: Path, text: str, columns: Callable) -> Iterator[tuple[str, str, str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        fields = [field.strip() for field in fields]
        if number == 1 and fields[0].lower() in ("query-id", "query_id", "qid"):
            continue
        try:
            query_id, page_id, raw = columns(fields)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}; got {line.strip()[:120]!r}") from None
        yield f"{path}, line {number}", query_id, page_id, raw


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, str, str, object]]:
    def no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"{path}: the key {twice!r} stands more than once in one object")
        return content

    try:
        content = json.loads(text, object_pairs_hook=no_key_twice)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    for query_id, row in content.items():
        if not isinstance(row, dict):
            raise ValueError(f"{path}: query {query_id!r} has {type(row).__name__}; expected {{page id: number}}")
        for page_id, raw in row.items():
            yield f"{path}, query {query_id!r}", query_id, page_id, raw


def _qrels_columns(fields: list[str]) -> tuple[str, str, str]:
    if len(fields) == 3:
        return fields[0], fields[1], fields[2]
    if len(fields) == 4:
        return fields[0], fields[2], fields[3]
    raise ValueError(f"qrels have 3 columns (query, page, grade) or 4 (query, 0, page, grade), not {len(fields)}")


def _run_columns(fields: list[str]) -> tuple[str, str, str]:
    if len(fields) == 3:
        return fields[0], fields[1], fields[2]
    if len(fields) == 6:
        return fields[0], fields[2], fields[4]
    raise ValueError(
        f"a run has 3 columns (query, page, score) or 6 (query, Q0, page, rank, score, tag), not {len(fields)}"
    )


def _grade(raw: object) -> int:
    value = _number(raw)
    if not value.is_integer() or value < 0:
        raise ValueError("expected a whole number of at least 0")
    return int(value)


def _score(raw: object) -> float:
    value = _number(raw)
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return value


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError("expected a number")
    try:
        return float(raw)
    except ValueError:
        raise ValueError("expected a number") from None
