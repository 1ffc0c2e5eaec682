"""Token vectors of many items, one array without padding: what late interaction compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from miner_diag.arrays import refuse_masked

DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, eq=False)
class TokenVectors:
    """Token vectors of N items, the items' tokens one after the other.

    Raises
    ------
    ValueError
        If the vectors are not [T, D] floats, or the offsets do not cut them into items of at least one token.

    Examples
    --------
    >>> tokens = TokenVectors.from_items([np.ones((2, 3)), np.zeros((1, 3))])
    >>> len(tokens), tokens.lengths.tolist(), tokens.item(1).shape
    (2, [2, 1], (1, 3))
    """

    vectors: np.ndarray
    """[T, D] float16, float32 or float64, not copied; may be a memory map."""
    offsets: np.ndarray
    """[N + 1] int64: item i has the rows ``offsets[i] : offsets[i + 1]``."""

    def __post_init__(self) -> None:
        """Check shapes, dtypes and offsets."""
        refuse_masked(self.vectors, "vectors")
        refuse_masked(self.offsets, "offsets")
        if not isinstance(self.vectors, np.ndarray):
            raise ValueError(f"vectors must be an array [tokens, width]; got {type(self.vectors).__name__}")
        offsets = np.asarray(self.offsets)
        if self.vectors.ndim != 2 or self.vectors.dtype not in DTYPES or self.vectors.shape[1] < 1:
            raise ValueError(
                "vectors must be [tokens, width] in float16, float32 or float64; got "
                f"{list(self.vectors.shape)} {self.vectors.dtype}"
            )
        if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or not len(offsets):
            raise ValueError(f"offsets must be whole numbers [N + 1]; got {list(offsets.shape)} {offsets.dtype}")
        if offsets[0] != 0 or offsets[-1] != len(self.vectors):
            raise ValueError(
                f"offsets must run from 0 to the number of tokens, {len(self.vectors)}; got {offsets[0]} … "
                f"{offsets[-1]}"
            )
        object.__setattr__(self, "offsets", offsets.astype(np.int64))
        if (np.diff(self.offsets) < 1).any():
            item = int(np.argmax(np.diff(self.offsets) < 1))
            raise ValueError(
                f"every item must have at least one token; item {item} has the offsets {self.offsets[item]} and "
                f"{self.offsets[item + 1]}"
            )

    @classmethod
    def from_items(cls, items: Sequence[np.ndarray]) -> TokenVectors:
        """Put the items' vectors, each [T_i, D], into one array.

        Raises
        ------
        ValueError
            If there is no item, or widths or dtypes differ.
        """
        if not items:
            raise ValueError("items must hold at least one array [tokens, width]; got none")
        refuse_masked(list(items), "items")
        if not all(isinstance(item, np.ndarray) for item in items):
            raise ValueError(f"items must be arrays [tokens, width]; got {sorted({type(i).__name__ for i in items})}")
        kinds = {(item.ndim, item.shape[-1] if item.ndim else 0, str(item.dtype)) for item in items}
        if len(kinds) > 1 or next(iter(kinds))[0] != 2:
            raise ValueError(f"items must be [tokens, width] of one width and dtype; got {sorted(kinds)}")
        return cls(np.concatenate(items), np.cumsum([0, *(len(item) for item in items)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def width(self) -> int:
        """Width D."""
        return self.vectors.shape[1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each item, [N] int64."""
        return np.diff(self.offsets)

    def item(self, number: int) -> np.ndarray:
        """Return the vectors [T_i, D] of one item, as a view."""
        if not 0 <= number < len(self):
            raise ValueError(f"item must be 0 … {len(self) - 1}; got {number}")
        return self.vectors[self.offsets[number] : self.offsets[number + 1]]
