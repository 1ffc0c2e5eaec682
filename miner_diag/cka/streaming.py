"""Exact CKA in one pass over batches of any size, mergeable over processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miner_diag.cka.arrays import split_layers
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.hsic import Estimator
from miner_diag.cka.jackknife import cka_bounds
from miner_diag.cka.layers import MIN_ITEMS
from miner_diag.cka.moments import FIELDS, PairMoments, total
from miner_diag.cka.result import CKAMatrix
from miner_diag.cka.sides import needed_pairs, zero_hsic

_LIMIT = 1e7
"""How much larger the sums may be than the self-HSIC that is left of them: float64 then keeps nine digits."""


class StreamingCKA:
    """Linear CKA of everything that `update` was given, exactly as if it had come at once.

    Each batch adds to float64 sums (see `moments`) of rows relative to a reference: the mean of the first batch, moved
    to the mean of all rows each time their number has doubled. So neither the size nor the order of batches matters,
    nor a last batch of one row, nor an offset of the features.

    Parameters
    ----------
    estimator : "debiased" or "biased"
        As in `cka_matrix`.
    blocks : int
        With 2 or more, batches are dealt to that many blocks in turn, and `compute` gives a delete-one-block jackknife
        interval: batches that are alike within themselves are then accounted for. 0: no interval.
    confidence : float
        Nominal coverage of the intervals.

    Notes
    -----
    Operations: ``n D D'`` per pair, where L layers against one final layer make 2 L + 1 pairs (each side with itself,
    too). Memory: ``8 D D'`` bytes per pair and block, whatever n.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 3, 8))
    >>> stream = StreamingCKA()
    >>> for batch in np.array_split(x, 7):
    ...     stream = stream.update(batch, batch[:, -1])
    >>> round(float(stream.compute().values[-1, 0]), 12)
    1.0
    """

    def __init__(self, estimator: Estimator = "debiased", *, blocks: int = 0, confidence: float = 0.95) -> None:
        if estimator not in ("debiased", "biased"):
            raise ValueError(f"estimator must be 'debiased' or 'biased', got {estimator!r}")
        if blocks < 0 or blocks == 1:
            raise ValueError(f"blocks must be 0 (no interval) or at least 2, got {blocks}")
        self.estimator: Estimator = estimator
        self.blocks = blocks
        self.confidence = confidence
        self.n = 0
        """Rows so far."""
        self._batches = 0
        self._n_moved = 0
        self._n_x = 0
        self._n_y = 0
        self._references: list[np.ndarray] = []
        self._scales: list[float] = []
        self._low: list[np.ndarray] = []
        self._high: list[np.ndarray] = []
        self._moments: dict[tuple[int, int], list[PairMoments | None]] = {}

    def update(self, x: Any, y: Any = None) -> StreamingCKA:
        """Add a batch and return self.

        Parameters
        ----------
        x : array or tensor [B, D] or [B, L, D], or sequence of [B, D_l]
            The layers of the first side, B >= 1.
        y : array or tensor [B, D'] or [B, M, D'], or sequence of [B, D'_m], optional
            The same items on the other side (``x[:, -1]`` for layer against final); all pairs within x if not given.

        Raises
        ------
        ValueError
            If shapes do not fit each other or the batches before, or an entry is NaN or Inf. Nothing is then added.
        """
        sides_x = [side.double().cpu().numpy() for side in split_layers(x, "x")]
        sides_y = [] if y is None else [side.double().cpu().numpy() for side in split_layers(y, "y")]
        sides = [*sides_x, *sides_y]
        self._check(sides, len(sides_x), len(sides_y))
        if len(sides[0]) == 0:
            return self
        if not self.n:
            self._begin(sides, len(sides_x), len(sides_y))
        centred = [
            side * scale - reference
            for side, scale, reference in zip(sides, self._scales, self._references, strict=True)
        ]
        norms = [np.einsum("nd,nd->n", side, side) for side in centred]
        slot = self._batches % max(self.blocks, 1)
        for (a, b), held in self._moments.items():
            batch, before = PairMoments.of(centred[a], centred[b], norms[a], norms[b]), held[slot]
            held[slot] = batch if before is None else before + batch
        for index, side in enumerate(sides):
            np.minimum(self._low[index], side.min(0), out=self._low[index])
            np.maximum(self._high[index], side.max(0), out=self._high[index])
        self.n += len(sides[0])
        self._batches += 1
        if self.n >= 2 * self._n_moved:
            self._move_references()
        return self

    def merge(self, other: StreamingCKA) -> StreamingCKA:
        """Add all rows of another stream (a shard of the same layers) and return self; `other` is left as it is."""
        if other.n == 0:
            return self
        if (self.estimator, self.blocks) != (other.estimator, other.blocks):
            raise ValueError(
                f"streams must agree in estimator and blocks: {(self.estimator, self.blocks)} here, "
                f"{(other.estimator, other.blocks)} in the other"
            )
        if self.n == 0:
            self._load(other.state())
            return self
        if (self._n_x, self._n_y, self.widths) != (other._n_x, other._n_y, other.widths):
            raise ValueError(
                f"streams must hold the same layers: {self._n_x} and {self._n_y} of widths {self.widths} here, "
                f"{other._n_x} and {other._n_y} of widths {other.widths} in the other"
            )
        factors = [own / theirs for own, theirs in zip(self._scales, other._scales, strict=True)]
        shifts = [
            own - theirs * factor
            for own, theirs, factor in zip(self._references, other._references, factors, strict=True)
        ]
        for (a, b), held in self._moments.items():
            for slot, theirs in enumerate(other._moments[a, b]):
                if theirs is not None:
                    moved = theirs.scaled(factors[a], factors[b]).shifted(shifts[a], shifts[b])
                    before = held[slot]
                    held[slot] = moved if before is None else before + moved
        self._low = [np.minimum(a, b) for a, b in zip(self._low, other._low, strict=True)]
        self._high = [np.maximum(a, b) for a, b in zip(self._high, other._high, strict=True)]
        self.n += other.n
        self._batches += other._batches
        self._move_references()
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each layer, first side then second; empty before the first batch."""
        return tuple(len(reference) for reference in self._references)

    def compute(self) -> CKAMatrix:
        """CKA of all rows so far `[L, M]`, with intervals if there are blocks; the stream can go on afterwards.

        Raises
        ------
        UndefinedCKAError
            If fewer than four rows have come, a layer is constant over them, or its self-HSIC is zero.
        """
        if self.n < MIN_ITEMS:
            raise UndefinedCKAError(f"the stream has n={self.n} rows: CKA needs at least {MIN_ITEMS} items; add items")
        for index, name in enumerate(self._names()):
            low, high = self._low[index], self._high[index]
            ulp = np.finfo(np.float64).eps
            if (high / 2 - low / 2 <= ulp / 2 * np.maximum(np.abs(low), np.abs(high))).all():
                raise UndefinedCKAError(
                    f"{name} is the same for all {self.n} items (d={len(low)}), so CKA is undefined; "
                    "drop this layer or check how it was pooled"
                )
        whole = {pair: total([m for m in held if m is not None]) for pair, held in self._moments.items()}
        values = self._values(whole)
        low = high = left_out = None
        if self.blocks:
            left_out = self._leave_blocks_out(whole, values.shape)
            low, high = cka_bounds(values, left_out, confidence=self.confidence)
        names, widths, second = self._names(), self.widths, self._second()
        return CKAMatrix(
            values=values,
            low=low,
            high=high,
            null=None,
            left_out=None,
            left_out_groups=left_out,
            estimator=self.estimator,
            kernel="linear",
            route="streaming",
            operations={"streaming": float(self.n * sum(widths[a] * widths[b] for a, b in self._moments))},
            dtype="float64",
            device="cpu",
            n=self.n,
            n_groups=None if left_out is None else len(left_out),
            widths=widths[: self._n_x],
            other_widths=widths[second],
            names=tuple(names[: self._n_x]),
            other_names=tuple(names[second]),
            confidence=self.confidence,
        )

    def state(self) -> dict[str, np.ndarray]:
        """Everything the stream holds as named arrays, to save or to send; `from_state` brings it back."""
        arrays = {
            "options": np.array([self.estimator == "debiased", self.blocks, self.confidence]),
            "counts": np.array([self.n, self._batches, self._n_moved, self._n_x, self._n_y]),
            "scales": np.array(self._scales),
        }
        for index, _ in enumerate(self._references):
            arrays[f"reference.{index}"] = self._references[index].copy()
            arrays[f"low.{index}"] = self._low[index].copy()
            arrays[f"high.{index}"] = self._high[index].copy()
        for (a, b), held in self._moments.items():
            for slot, moments in enumerate(held):
                if moments is not None:
                    for field in FIELDS:
                        arrays[f"{field}.{a}.{b}.{slot}"] = np.array(getattr(moments, field))
        return arrays

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray]) -> StreamingCKA:
        """Rebuild the stream whose `state` this was."""
        missing = {"options", "counts", "scales"} - set(arrays)
        if missing:
            raise ValueError(f"this is not the state of a StreamingCKA: {', '.join(sorted(missing))} missing")
        debiased, blocks, confidence = (float(v) for v in arrays["options"])
        stream = cls("debiased" if debiased else "biased", blocks=int(blocks), confidence=confidence)
        stream._load(arrays)
        return stream

    def _load(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.n, self._batches, self._n_moved, self._n_x, self._n_y = (int(v) for v in arrays["counts"])
        self._scales = [float(v) for v in arrays["scales"]]
        count = len(self._scales)
        self._references, self._low, self._high = (
            [np.array(arrays[f"{name}.{index}"]) for index in range(count)] for name in ("reference", "low", "high")
        )
        self._moments = {}
        for a, b in needed_pairs(self._n_x, self._n_y) if count else ():
            self._moments[a, b] = [
                PairMoments(
                    *(
                        float(arrays[f"{field}.{a}.{b}.{slot}"])
                        if arrays[f"{field}.{a}.{b}.{slot}"].ndim == 0
                        else np.array(arrays[f"{field}.{a}.{b}.{slot}"])
                        for field in FIELDS
                    )
                )
                if f"count.{a}.{b}.{slot}" in arrays
                else None
                for slot in range(max(self.blocks, 1))
            ]

    def _move_references(self) -> None:
        """Take all sums relative to the mean of all rows so far; exact, and what keeps later sums small."""
        means = []
        for index in range(len(self._references)):
            parts = [held for held in self._moments[index, index] if held is not None]
            means.append(np.sum([part.sum_x for part in parts], axis=0) / self.n)
        for (a, b), held in self._moments.items():
            self._moments[a, b] = [None if part is None else part.shifted(means[a], means[b]) for part in held]
        self._references = [old + mean for old, mean in zip(self._references, means, strict=True)]
        self._n_moved = self.n

    def _begin(self, sides: Sequence[np.ndarray], n_x: int, n_y: int) -> None:
        self._n_x, self._n_y = n_x, n_y
        largest = [float(np.abs(side).max()) for side in sides]
        self._scales = [1.0 if v == 0 else math.ldexp(1.0, min(-math.frexp(v)[1], 1023)) for v in largest]
        self._references = [(side * scale).mean(0) for side, scale in zip(sides, self._scales, strict=True)]
        self._low = [side.min(0) for side in sides]
        self._high = [side.max(0) for side in sides]
        self._moments = {pair: [None] * max(self.blocks, 1) for pair in needed_pairs(n_x, n_y)}

    def _check(self, sides: Sequence[np.ndarray], n_x: int, n_y: int) -> None:
        rows, widths = [len(side) for side in sides], tuple(side.shape[1] for side in sides)
        if len(set(rows)) > 1:
            raise ValueError(f"rows of a batch must pair item by item, got row counts {rows}")
        if self.n and (n_x, n_y, widths) != (self._n_x, self._n_y, self.widths):
            raise ValueError(
                f"every batch must hold the same layers: {self._n_x} and {self._n_y} of widths {self.widths} before, "
                f"{n_x} and {n_y} of widths {widths} in this batch"
            )
        for index, side in enumerate(sides):
            if not np.isfinite(side).all():
                row, column = (int(v) for v in np.argwhere(~np.isfinite(side))[0])
                name = f"x layer {index}" if index < n_x else f"y layer {index - n_x}"
                raise UndefinedCKAError(
                    f"{name} (d={side.shape[1]}) holds {side[row, column]} at item {self.n + row} of the stream, "
                    f"dimension {column}; this batch was not added: remove the item or extract it again"
                )

    def _names(self) -> list[str]:
        return [f"x layer {i}" for i in range(self._n_x)] + [f"y layer {i}" for i in range(self._n_y)]

    def _second(self) -> slice:
        return slice(self._n_x, None) if self._n_y else slice(0, self._n_x)

    def _values(self, moments: Mapping[tuple[int, int], PairMoments]) -> np.ndarray:
        """CKA `[L, M]`; NaN is impossible, an error says which layer has none."""
        size = self._n_x + self._n_y
        sums = np.zeros((size, size))
        for (a, b), held in moments.items():
            sums[a, b] = sums[b, a] = held.pair_sum(self.estimator)
        for index, name in enumerate(self._names()):
            own = moments[index, index]
            terms = own.norms_xy if self.estimator == "debiased" else 0.0
            if not max(terms, float(np.vdot(own.product, own.product))) < _LIMIT * sums[index, index]:
                raise zero_hsic(name, int(own.count), self.widths[index], self.estimator)
        own = np.sqrt(sums.diagonal())
        return (sums / own[:, None] / own[None, :])[: self._n_x, self._second()]

    def _leave_blocks_out(self, whole: Mapping[tuple[int, int], PairMoments], shape: tuple[int, ...]) -> np.ndarray:
        """CKA without each block that holds rows `[G, L, M]`; NaN where the rest has none."""
        filled = [slot for slot, held in enumerate(self._moments[0, 0]) if held is not None]
        if len(filled) < 2:
            raise ValueError("an interval needs rows in at least 2 blocks, got one batch; pass smaller batches")
        out = np.full((len(filled), *shape), np.nan)
        for index, slot in enumerate(filled):
            rest = {pair: whole[pair] - held[slot] for pair, held in self._moments.items() if held[slot] is not None}
            if rest[0, 0].count >= MIN_ITEMS:
                try:
                    out[index] = self._values(rest)
                except UndefinedCKAError:
                    continue  # stays NaN, which makes the interval all of [-1, 1]
        return out
