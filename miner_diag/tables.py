r"""Tables: as a terminal shows them, and as CSV files that no spreadsheet runs and that come back as they were.

Cells that hold text may come from elsewhere: ids of queries, names of documents. A cell that a spreadsheet would take
for a formula gets an apostrophe in front; control characters become codes like ``\x1b``. Numbers stay numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from miner_diag.files import write_atomic
from miner_diag.texts import DANGEROUS, escaped, inert

_FORMULA = re.compile(r"'*[=+\-@＝＋－＠]")
"""The start of a text that a spreadsheet takes for a formula, or of one that got an apostrophe."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A text that is a number is shown as one, whatever sign it begins with."""

_CODE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")
"""What `escaped` gives, and a backslash that stands for itself beside it."""


def inert_cell(cell: Any) -> Any:
    """Return a cell as a CSV file holds it; only text is changed. `cell_as_written` gives it back."""
    if not isinstance(cell, str):
        return cell
    if DANGEROUS.search(cell) or _CODE.search(cell):
        cell = DANGEROUS.sub(escaped, cell.replace("\\", "\\\\"))
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def cell_as_written(cell: Any) -> Any:
    """Return what `inert_cell` was given."""
    if not isinstance(cell, str):
        return cell
    if cell.startswith("'") and _FORMULA.match(cell):
        cell = cell[1:]
    return _CODE.sub(_character, cell)


def write_csv(path: Path | str, frame: pd.DataFrame, *, index: bool = False) -> None:
    """Write a table as CSV, whole or not at all; `read_csv` gives the texts back as they are.

    Parameters
    ----------
    path : path
        The file.
    frame : DataFrame
        The table.
    index : bool
        Whether the index is a column of it.
    """
    write_atomic(path, _of_cells(frame, inert_cell).to_csv(index=index, lineterminator="\n"))


def read_csv(path: Path | str, **how: Any) -> pd.DataFrame:
    """Read what `write_csv` wrote.

    Parameters
    ----------
    path : path
        The file.
    **how
        As `pandas.read_csv` takes it.
    """
    return _of_cells(pd.read_csv(path, **how), cell_as_written)


def with_subject(frame: pd.DataFrame, **facts: Any) -> pd.DataFrame:
    """Return a table that says in its first columns what it is of; a column that it has already stays as it is.

    Parameters
    ----------
    frame : DataFrame
        The table.
    **facts
        Name of a column -> the value of all its cells: data, queries, split, model, counts.
    """
    missing = {name: value for name, value in facts.items() if name not in frame}
    return pd.concat([pd.DataFrame(missing, index=frame.index), frame], axis="columns")


def table_text(frame: pd.DataFrame, **how: Any) -> str:
    """Return a table as a terminal shows it, its texts made inert; `how` is as `DataFrame.to_string` takes it."""
    return _of_cells(frame, lambda cell: inert(cell) if isinstance(cell, str) else cell).to_string(**how)


def _of_cells(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """Return a table with each cell and name changed; columns without texts are left as they are."""
    changed = frame.copy(deep=False)
    for number, name in enumerate(frame.columns):
        column = frame[name] if frame.columns.is_unique else frame.iloc[:, number]
        if not pd.api.types.is_numeric_dtype(column.dtype):
            new = column.map(change)
            if not new.equals(column):
                changed.isetitem(number, new)
    changed.columns = _names(frame.columns, change)
    changed.index = _names(frame.index, change)
    return changed


def _names(names: pd.Index, change: Callable[[Any], Any]) -> pd.Index:
    if pd.api.types.is_numeric_dtype(names.dtype) or not _any_changed(names, change):
        return names
    return names.map(change)


def _any_changed(cells: Iterable[Any], change: Callable[[Any], Any]) -> bool:
    return any(isinstance(cell, str) and change(cell) != cell for cell in cells)


def _character(found: re.Match[str]) -> str:
    code = found.group(1) or found.group(2)
    return "\\" if code is None else chr(int(code, 16))
