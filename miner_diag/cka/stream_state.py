"""What a stream holds: named arrays, so that it can be saved, sent and merged without pickles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miner_diag.cka.moments import FIELDS, PairMoments
from miner_diag.cka.sides import needed_pairs


@dataclass
class StreamState:
    """Sums of all rows so far, and what they are relative to; layers of the first side come first."""

    n: int = 0
    """Number of rows."""
    batches: int = 0
    """Number of batches."""
    n_moved: int = 0
    """Number of rows when the references were last moved."""
    n_x: int = 0
    """Number of layers of the first side."""
    n_y: int = 0
    """Number of layers of the second side; 0 where the first is compared with itself."""
    scales: list[float] = field(default_factory=list)
    """Power of two that each layer's rows are multiplied by."""
    references: list[np.ndarray] = field(default_factory=list)
    """What is taken off each layer's scaled rows `[D_l]`."""
    low: list[np.ndarray] = field(default_factory=list)
    """Smallest entries `[D_l]`, in the rows' own units."""
    high: list[np.ndarray] = field(default_factory=list)
    """Largest entries `[D_l]`."""
    moments: dict[tuple[int, int], list[PairMoments | None]] = field(default_factory=dict)
    """By pair of layers and block; None for a block without rows."""

    @classmethod
    def beginning(cls, sides: Sequence[np.ndarray], n_x: int, blocks: int) -> StreamState:
        """Make an empty state whose references suit the first batch."""
        largest = [float(np.abs(side).max()) for side in sides]
        scales = [1.0 if v == 0 else math.ldexp(1.0, min(-math.frexp(v)[1], 1023)) for v in largest]
        return cls(
            n_x=n_x,
            n_y=len(sides) - n_x,
            scales=scales,
            references=[(side * scale).mean(0) for side, scale in zip(sides, scales, strict=True)],
            low=[side.min(0) for side in sides],
            high=[side.max(0) for side in sides],
            moments={pair: [None] * max(blocks, 1) for pair in needed_pairs(n_x, len(sides) - n_x)},
        )

    def add(self, sides: Sequence[np.ndarray], block: int | None = None) -> None:
        """Count a batch of at least one row in a block; in the next block in turn if none is named."""
        centred = [
            side * scale - reference for side, scale, reference in zip(sides, self.scales, self.references, strict=True)
        ]
        norms = [np.einsum("nd,nd->n", side, side) for side in centred]
        for (a, b), by_block in self.moments.items():
            slot = self.batches % len(by_block) if block is None else block
            batch, before = PairMoments.of(centred[a], centred[b], norms[a], norms[b]), by_block[slot]
            by_block[slot] = batch if before is None else before + batch
        for index, side in enumerate(sides):
            np.minimum(self.low[index], side.min(0), out=self.low[index])
            np.maximum(self.high[index], side.max(0), out=self.high[index])
        self.n += len(sides[0])
        self.batches += 1
        if self.n >= 2 * self.n_moved:
            self.move_references()

    def merge(self, other: StreamState) -> None:
        """Count all rows of another state of the same layers, which is left as it is."""
        factors = [here / other_scale for here, other_scale in zip(self.scales, other.scales, strict=True)]
        shifts = [
            here - reference * factor
            for here, reference, factor in zip(self.references, other.references, factors, strict=True)
        ]
        for (a, b), by_block in self.moments.items():
            for slot, added in enumerate(other.moments[a, b]):
                if added is not None:
                    moved = added.scaled(factors[a], factors[b]).shifted(shifts[a], shifts[b])
                    before = by_block[slot]
                    by_block[slot] = moved if before is None else before + moved
        self.low = [np.minimum(a, b) for a, b in zip(self.low, other.low, strict=True)]
        self.high = [np.maximum(a, b) for a, b in zip(self.high, other.high, strict=True)]
        self.n += other.n
        self.batches += other.batches
        self.move_references()

    def move_references(self) -> None:
        """Take all sums relative to the mean of all rows so far; exact, and what keeps later sums small."""
        means = []
        for index in range(len(self.references)):
            parts = [part for part in self.moments[index, index] if part is not None]
            means.append(np.sum([part.sum_x for part in parts], axis=0) / self.n)
        for (a, b), by_block in self.moments.items():
            self.moments[a, b] = [None if part is None else part.shifted(means[a], means[b]) for part in by_block]
        self.references = [old + mean for old, mean in zip(self.references, means, strict=True)]
        self.n_moved = self.n

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as named arrays, copied."""
        arrays = {
            "counts": np.array([self.n, self.batches, self.n_moved, self.n_x, self.n_y]),
            "scales": np.array(self.scales),
        }
        for index, _ in enumerate(self.references):
            arrays[f"reference.{index}"] = self.references[index].copy()
            arrays[f"low.{index}"] = self.low[index].copy()
            arrays[f"high.{index}"] = self.high[index].copy()
        for (a, b), by_block in self.moments.items():
            for slot, moments in enumerate(by_block):
                if moments is not None:
                    for name in FIELDS:
                        arrays[f"{name}.{a}.{b}.{slot}"] = np.array(getattr(moments, name))
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], blocks: int) -> StreamState:
        """Rebuild the state whose `to_arrays` this was."""
        n, batches, n_moved, n_x, n_y = (int(v) for v in arrays["counts"])
        scales = [float(v) for v in arrays["scales"]]
        references, low, high = (
            [np.array(arrays[f"{name}.{index}"]) for index in range(len(scales))]
            for name in ("reference", "low", "high")
        )
        moments: dict[tuple[int, int], list[PairMoments | None]] = {}
        for a, b in needed_pairs(n_x, n_y) if scales else ():
            moments[a, b] = [_moments(arrays, f"{a}.{b}.{slot}") for slot in range(max(blocks, 1))]
        return cls(n, batches, n_moved, n_x, n_y, scales, references, low, high, moments)


def _moments(arrays: Mapping[str, np.ndarray], key: str) -> PairMoments | None:
    if f"count.{key}" not in arrays:
        return None
    values = {name: np.array(arrays[f"{name}.{key}"]) for name in FIELDS}
    fields: dict[str, Any] = {name: float(value) if value.ndim == 0 else value for name, value in values.items()}
    return PairMoments(**fields)
