"""Which items enter a comparison of geometries: every input once, and none of which the retriever read nothing.

Items of equal input have equal vectors at every layer. Pages without text, which a text retriever cannot tell apart,
are the common case: such rows are similar to each other whatever the layer does, so they raise CKA and anisotropy, and
lower the effective rank, of layers that have nothing else in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

LEFT_OUT = -1
"""The label of an item of which nothing was read."""


@dataclass(frozen=True, eq=False)
class DistinctItems:
    """The items of one side that enter CKA, alignment ratio, effective rank and anisotropy."""

    labels: np.ndarray
    """[N] int64, equal for items of equal input; `LEFT_OUT` for one of which nothing was read."""
    rows: np.ndarray
    """[M] int64, the first item of every input, in the order of the items."""

    @classmethod
    def of(cls, inputs: Sequence[Hashable | None]) -> DistinctItems:
        """Take each input once.

        Parameters
        ----------
        inputs : sequence [N]
            What the retriever read of each item, or a hash of it; None where it read nothing.

        Examples
        --------
        >>> DistinctItems.of(["cover", None, "cover", "index", None]).rows
        array([0, 3])
        """
        number_of: dict[Hashable, int] = {}
        rows: list[int] = []
        labels = np.full(len(inputs), LEFT_OUT, dtype=np.int64)
        for row, read in enumerate(inputs):
            if read is None:
                continue
            if read not in number_of:
                number_of[read] = len(rows)
                rows.append(row)
            labels[row] = number_of[read]
        return cls(labels, np.array(rows, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_empty(self) -> int:
        """How many items are left out because nothing was read of them."""
        return int((self.labels == LEFT_OUT).sum())

    @property
    def n_equal(self) -> int:
        """How many items are left out because an earlier one has the same input."""
        return len(self.labels) - self.n_empty - len(self)

    def taken(self, values: Sequence[str] | None) -> np.ndarray | None:
        """Return the values [M] of the items that enter, of values [N] of all; None stays None."""
        return None if values is None else np.asarray(values)[self.rows]

    def note(self, one: str, many: str) -> str | None:
        """Return a sentence on what is left out, and why; None if all items enter.

        Examples
        --------
        >>> print(DistinctItems.of(["a", "b", None]).note("page", "pages"))
        CKA, alignment ratio, effective rank and anisotropy are over 2 of 3 pages: of 1 page nothing was read. Equal \
rows would change them at every layer; nDCG@5 is over all pages
        """
        reasons = []
        if self.n_empty:
            reasons.append(f"of {self.n_empty:,} {one if self.n_empty == 1 else many} nothing was read")
        if self.n_equal:
            are = f"{one} is" if self.n_equal == 1 else f"{many} are"
            reasons.append(f"{self.n_equal:,} {are} read the same as an earlier one")
        if not reasons:
            return None
        return (
            f"CKA, alignment ratio, effective rank and anisotropy are over {len(self):,} of {len(self.labels):,} {many}"
            f": {', '.join(reasons)}. Equal rows would change them at every layer; nDCG@5 is over all {many}"
        )


def distinct_items(
    inputs: Sequence[Hashable | None] | None, blocks: Iterable[np.ndarray], *, name: str, n: int
) -> DistinctItems:
    """Take each of `n` inputs once; where inputs are not given, items whose vectors are the same count as equal.

    Parameters
    ----------
    inputs : sequence [N], optional
        What the retriever read of each item, or a hash of it; None where it read nothing.
    blocks : iterable of ndarray [n, L, D]
        The vectors of all items, read if `inputs` is not given.
    name : str
        What messages call the inputs.
    n : int
        The number of items.

    Raises
    ------
    ValueError
        If `inputs` has another length than `n`.
    """
    if inputs is None:
        inputs = [hashlib.sha256(row.tobytes()).digest() for block in blocks for row in block]
    if len(inputs) != n:
        raise ValueError(f"{name} must name the input of each of the {n} items; got {len(inputs)}")
    return DistinctItems.of(inputs)


def notes_on(queries: DistinctItems, pages: DistinctItems) -> list[str]:
    """Return the sentences on queries and pages that are left out."""
    notes = (pages.note("page", "pages"), queries.note("query", "queries"))
    return [note for note in notes if note is not None]
