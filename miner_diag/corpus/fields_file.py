"""A YAML file of named fields that others may have written: read within bounds, and checked against a dataclass."""

from __future__ import annotations

import re
import reprlib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

MAX_FILE_BYTES = 10_000_000
"""Largest file that is read."""
_HEAD = re.compile(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def read_fields(path: Path | str) -> dict[str, Any]:
    """Return the fields of a YAML file.

    Raises
    ------
    ValueError
        If it is missing, too large, no YAML, or holds something else than fields with names; one sentence.
    """
    return _fields(_text(Path(path)), path)


def read_card(path: Path | str) -> dict[str, Any]:
    """Return the fields at the head of a data set's card, between two lines of three hyphens; none if it has no head.

    Raises
    ------
    ValueError
        As in `read_fields`.
    """
    head = _HEAD.match(_text(Path(path)))
    return {} if head is None else _fields(head.group(1), path)


def _text(path: Path) -> str:
    """Return the text of a file that is not too large; raises ValueError."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{path} has {size:,} bytes; expected at most {MAX_FILE_BYTES:,}")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable: {error}") from None


def _fields(text: str, path: Path | str) -> dict[str, Any]:
    """Return what YAML holds, if these are fields with names; raises ValueError."""
    try:
        content = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(f"{path} is not readable: its values are nested too deeply") from None
    except Exception as error:  # the parser lets through whatever int(), date() and the like raise on odd values
        raise ValueError(f"{path} is not readable: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold fields with names; got {type(content).__name__}")
    if odd := [key for key in content if not isinstance(key, str)]:
        raise ValueError(f"{path}: the name of a field must be a text; got {shown(odd[0])}")
    return content


def check_fields(kind: type, row: Any, where: str, *, given: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return `row` if it holds the fields of a dataclass: none missing, none unknown, texts and numbers as declared.

    Parameters
    ----------
    kind : type
        The dataclass. Fields of the types str, int and "or None" of these are checked; others only for presence.
    row : any
        What the file holds.
    where : str
        What the message begins with.
    given : frozenset of str
        Fields that are not checked here.

    Raises
    ------
    ValueError
        If a field is missing, unknown, or not of its type.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a {kind.__name__} with named fields; got {shown(row)}")
    known = {item.name: item for item in fields(kind)}
    if unknown := sorted(str(key)[:60] for key in row if key not in known):
        raise ValueError(f"{where}: {kind.__name__} has unknown fields {unknown[:5]}; known are {sorted(known)}")
    required = [name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    if missing := [name for name in required if name not in row]:
        raise ValueError(f"{where}: {kind.__name__} lacks the fields {', '.join(missing)}")
    types = get_type_hints(kind)
    for name, value in row.items():
        if name in given or (value is None and types[name] in (str | None, int | None)):
            continue
        if types[name] in (str, str | None):
            check_text(value, f"{where}: {name}")
        elif types[name] in (int, int | None):
            check_count(value, f"{where}: {name}")
    return row


def check_text(value: Any, what: str) -> str:
    """Return `value` if it is a text without control characters; raises ValueError."""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ValueError(f"{what} must be a text; got {shown(value)} ({kind}): put a number or date in quotes")
    if _CONTROL.search(value):
        raise ValueError(f"{what} must be without control characters; got {shown(value)}")
    return value


def check_count(value: Any, what: str) -> int:
    """Return `value` if it is a whole number from 0 to 10^15; raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**15:
        raise ValueError(f"{what} must be a whole number from 0 to 10^15; got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Return a value for a message, shortened: what refers to itself many times would be endless."""
    try:
        return reprlib.repr(value)[:200]
    except ValueError:  # a whole number of more digits than Python writes out
        return f"a {type(value).__name__}"
