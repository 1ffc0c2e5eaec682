"""What callers pass as numbers or labels: refused wherever NumPy would drop something in silence.

`numpy.asarray` gives up a mask, turns text into numbers, and forgets the index of a pandas table; a cast to float
drops the imaginary part. Each of these leaves a number that looks right, so each of them is an error here.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def real_array(values: Any, argument: str, error: type[ValueError] = ValueError, *, kinds: str = "fiu") -> np.ndarray:
    """Return real numbers as an array that shares their memory where that is possible.

    Parameters
    ----------
    values : array, tensor, table or sequence of any shape
        Real numbers. A masked array is taken if nothing of it is masked.
    argument : str
        What the message calls them.
    error : type of ValueError
        The error of the caller's stage.
    kinds : str
        The kinds of NumPy dtypes that are taken: f float, i and u integer, b bool.

    Raises
    ------
    ValueError
        If entries are masked, or are complex, text, objects, or true and false where numbers are expected.
    """
    refuse_masked(values, argument, error)
    if hasattr(values, "detach"):  # a tensor: NumPy cannot read one that is on a GPU or carries a gradient
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as reason:  # rows of unequal length, or a tensor of a dtype that NumPy lacks
        raise error(f"{argument} must be an array of real numbers; NumPy cannot read it as one ({reason})") from None
    if array.dtype.kind not in kinds and array.size:
        raise error(
            f"{argument} must be an array of real numbers; got dtype {array.dtype}. Convert it on purpose first: take "
            ".real of complex numbers, and .astype(float) of truth values, text and objects that stand for numbers"
        )
    return array if array.dtype.kind in kinds else array.astype(np.float64)


def finite_array(values: Any, argument: str, error: type[ValueError] = ValueError) -> np.ndarray:
    """Return finite real numbers as a float64 array; errors as in `real_array`, and for NaN and infinity."""
    array = real_array(values, argument, error).astype(np.float64, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise error(f"{argument} holds {array[at]} at {list(at)}; expected finite numbers")
    return array


def whole_numbers(values: Any, argument: str, error: type[ValueError] = ValueError) -> np.ndarray:
    """Return row or column numbers as an int64 array; floats are taken where they are whole.

    Raises
    ------
    ValueError
        If a number is not whole, and as in `real_array`.
    """
    array = real_array(values, argument, error)
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    whole = np.isfinite(array) & (array == np.floor(array))
    if not whole.all():
        at = tuple(int(i) for i in np.argwhere(~whole)[0])
        raise error(f"{argument} must be whole numbers; got {array[at]} at {list(at)}")
    return array.astype(np.int64)


def whole_number(value: Any, argument: str, *, least: int = 1, error: type[ValueError] = ValueError) -> int:
    """Return a count as an int.

    Raises
    ------
    ValueError
        If it is no whole number, or below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise error(f"{argument} must be a whole number of at least {least}; got {value!r}")
    if number < least:
        raise error(f"{argument} must be at least {least}; got {number}")
    return number


def label_array(labels: Any, argument: str, error: type[ValueError] = ValueError) -> np.ndarray:
    """Return labels of items, such as their documents, as an array of the same shape.

    Raises
    ------
    ValueError
        If a label is missing (masked, None or NaN): all such items would be taken for one group.
    """
    refuse_masked(labels, argument, error)
    array = np.asarray(labels)
    given = labels if isinstance(labels, list | tuple) else array.tolist() if array.dtype.kind in "fcO" else []
    missing = [_is_missing(label) for label in given] if array.ndim == 1 else []
    if any(missing):
        raise error(
            f"{argument} holds no label at row {missing.index(True)} ({sum(missing)} such rows); name the group of "
            "every item, or leave these items out"
        )
    kinds = {type(label).__name__ for label in array.ravel().tolist()} if array.dtype.kind == "O" else set()
    if len(kinds) > 1:
        raise error(f"{argument} must be labels of one type, as all text; got {', '.join(sorted(kinds))}")
    return array


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # the missing value of pandas has no truth value
        return True


def refuse_masked(values: Any, argument: str, error: type[ValueError] = ValueError) -> None:
    """Raise an error if `values`, or an array in a sequence of arrays, has masked entries."""
    parts = values if isinstance(values, list | tuple) else [values]
    n_masked = sum(int(np.ma.getmaskarray(part).sum()) for part in parts if isinstance(part, np.ma.MaskedArray))
    if n_masked:
        raise error(
            f"{argument} is a masked array with {n_masked} masked entries, and what lies under a mask is no number; "
            "leave these items out on every side, or fill them on purpose with .filled(...)"
        )


def refuse_other_labels(
    arguments: Mapping[str, Any], *, axis: str = "index", error: type[ValueError] = ValueError
) -> None:
    """Raise an error where two pandas tables carry different labels along an axis that pairs by position.

    Parameters
    ----------
    arguments : mapping
        What is paired, by the name of its argument. Sequences are looked into; what has no labels is passed over.
    axis : "index" or "columns"
        The axis that pairs.
    error : type of ValueError
        The error of the caller's stage.
    """
    labelled = [pair for name, values in arguments.items() for pair in _labelled(values, name, axis)]
    for name, labels in labelled[1:]:
        first_name, first = labelled[0]
        if len(first) != len(labels) or first.equals(labels):
            continue  # another length is an error of the caller's own
        at = next((i for i, (a, b) in enumerate(zip(first, labels, strict=True)) if a != b), 0)
        what, order = ("rows", f"{name}.loc[{first_name}.index]") if axis == "index" else ("columns", "the same order")
        raise error(
            f"{first_name} and {name} pair by position, but their labels differ: the {axis} has {first[at]!r} in "
            f"{first_name} and {labels[at]!r} in {name} at position {at}. Bring the {what} to one order, as with "
            f"{order}, or pass {name}.to_numpy() if positions are meant"
        )


def _labelled(values: Any, name: str, axis: str) -> Iterator[tuple[str, Any]]:
    """Yield the labels of a pandas table, or of the tables in a sequence, with how messages call them."""
    if isinstance(values, list | tuple):
        for number, part in enumerate(values):
            yield from _labelled(part, f"{name}[{number}]", axis)
    elif hasattr(labels := getattr(values, axis, None), "equals"):
        yield name, labels


def names_its_rows(values: Any) -> Sequence[Any] | None:
    """Return the row labels of a pandas table; None where there are none beyond the row numbers from 0 on."""
    labels = next((labels for _, labels in _labelled(values, "", "index")), None)
    return None if labels is None or list(labels) == list(range(len(labels))) else list(labels)


def beyond_float32(exact: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """Return where float32 lost a number [...]: a finite one became infinite, or one that is not 0 became 0."""
    return (np.isfinite(exact) & ~np.isfinite(rounded)) | ((exact != 0) & (rounded == 0))
