"""Exact CKA in one pass over batches of any size, mergeable over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miner_diag.arrays import refuse_other_labels
from miner_diag.cka.arrays import split_layers
from miner_diag.cka.cka_matrix_result import CKAMatrix, assemble
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.hsic import Estimator, check_estimator
from miner_diag.cka.jackknife import exactly_one
from miner_diag.cka.layers import MIN_ITEMS
from miner_diag.cka.moments import PairMoments, total
from miner_diag.cka.sides import zero_hsic
from miner_diag.cka.stream_state import StreamState

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
        With 2 or more, `compute` gives a delete-one-block jackknife interval, which accounts for batches that are alike
        within themselves. Batches are dealt to the blocks in turn, unless `update` is told a batch's block. 0: no
        interval.
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
        check_estimator(estimator)
        if blocks < 0 or blocks == 1:
            raise ValueError(f"blocks must be 0 (no interval) or at least 2, got {blocks}")
        self.estimator: Estimator = estimator
        self.blocks = blocks
        self.confidence = confidence
        self._state = StreamState()

    @property
    def n(self) -> int:
        """Rows so far."""
        return self._state.n

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each layer, first side then second; empty before the first batch."""
        return tuple(len(reference) for reference in self._state.references)

    def update(self, x: Any, y: Any = None, *, block: int | None = None) -> StreamingCKA:
        """Add a batch and return self.

        Parameters
        ----------
        x : array or tensor [B, D] or [B, L, D], or sequence of [B, D_l]
            The layers of the first side, B >= 1.
        y : array or tensor [B, D'] or [B, M, D'], or sequence of [B, D'_m], optional
            The same items on the other side (``x[:, -1]`` for layer against final); all pairs within x if not given.
        block : int, optional
            Number of the block that these rows belong to, 0 … blocks - 1; in turn if not given.

        Raises
        ------
        ValueError
            If shapes do not fit each other or the batches before, an entry is NaN or Inf, or there is no such block.
            Nothing is then added.
        """
        if block is not None and not 0 <= block < self.blocks:
            raise ValueError(f"block must be 0 … blocks - 1 with blocks = {self.blocks}; got {block}")
        refuse_other_labels({"x": x, "y": y})
        sides_x = [side.double().cpu().numpy() for side in split_layers(x, "x")]
        sides_y = [] if y is None else [side.double().cpu().numpy() for side in split_layers(y, "y")]
        sides = [*sides_x, *sides_y]
        self._check(sides, len(sides_x), len(sides_y))
        if len(sides[0]) == 0:
            return self
        if not self.n:
            self._state = StreamState.beginning(sides, len(sides_x), self.blocks)
        self._state.add(sides, block)
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
        state, added = self._state, other._state
        if self.n == 0:
            self._state = StreamState.from_arrays(added.to_arrays(), self.blocks)
            return self
        if (state.n_x, state.n_y, self.widths) != (added.n_x, added.n_y, other.widths):
            raise ValueError(
                f"streams must hold the same layers: {state.n_x} and {state.n_y} of widths {self.widths} here, "
                f"{added.n_x} and {added.n_y} of widths {other.widths} in the other"
            )
        state.merge(added)
        return self

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
            low, high = self._state.low[index], self._state.high[index]
            ulp = np.finfo(np.float64).eps
            if (high / 2 - low / 2 <= ulp / 2 * np.maximum(np.abs(low), np.abs(high))).all():
                raise UndefinedCKAError(
                    f"{name} is the same for all {self.n} items (d={len(low)}), so CKA is undefined; "
                    "drop this layer or check how it was pooled"
                )
        sums = {pair: total([m for m in by_block if m is not None]) for pair, by_block in self._state.moments.items()}
        values = exactly_one(self._values(sums))
        left_out = groups = None
        if self.blocks:
            left_out, sizes = self._leave_blocks_out(sums, values.shape)
            groups = np.repeat(np.arange(len(sizes)), sizes)
        widths = self.widths
        return assemble(
            values,
            names=self._names(),
            widths=widths,
            n_x=self._state.n_x,
            n=self.n,
            estimator=self.estimator,
            route="streaming",
            operations={"streaming": float(self.n * sum(widths[a] * widths[b] for a, b in self._state.moments))},
            confidence=self.confidence,
            left_out_groups=left_out,
            groups=groups,
        )

    def state(self) -> dict[str, np.ndarray]:
        """Everything the stream holds as named arrays, to save or to send; `from_state` brings it back."""
        options = np.array([self.estimator == "debiased", self.blocks, self.confidence])
        return {"options": options, **self._state.to_arrays()}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray]) -> StreamingCKA:
        """Rebuild the stream whose `state` this was."""
        missing = {"options", "counts", "scales"} - set(arrays)
        if missing:
            raise ValueError(f"this is not the state of a StreamingCKA: {', '.join(sorted(missing))} missing")
        debiased, blocks, confidence = (float(v) for v in arrays["options"])
        stream = cls("debiased" if debiased else "biased", blocks=int(blocks), confidence=confidence)
        stream._state = StreamState.from_arrays(arrays, stream.blocks)
        return stream

    def _check(self, sides: Sequence[np.ndarray], n_x: int, n_y: int) -> None:
        rows, widths = [len(side) for side in sides], tuple(side.shape[1] for side in sides)
        if len(set(rows)) > 1:
            raise ValueError(f"rows of a batch must pair item by item, got row counts {rows}")
        if self.n and (n_x, n_y, widths) != (self._state.n_x, self._state.n_y, self.widths):
            raise ValueError(
                f"every batch must hold the same layers: {self._state.n_x} and {self._state.n_y} of widths "
                f"{self.widths} before, {n_x} and {n_y} of widths {widths} in this batch"
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
        return [f"x layer {i}" for i in range(self._state.n_x)] + [f"y layer {i}" for i in range(self._state.n_y)]

    def _second(self) -> slice:
        return slice(self._state.n_x, None) if self._state.n_y else slice(0, self._state.n_x)

    def _values(self, moments: Mapping[tuple[int, int], PairMoments]) -> np.ndarray:
        """CKA `[L, M]`; NaN is impossible, an error says which layer has none."""
        size = self._state.n_x + self._state.n_y
        sums = np.zeros((size, size))
        for (a, b), pair in moments.items():
            sums[a, b] = sums[b, a] = pair.pair_sum(self.estimator)
        for index, name in enumerate(self._names()):
            own = moments[index, index]
            terms = own.norms_xy if self.estimator == "debiased" else 0.0
            if not max(terms, float(np.vdot(own.product, own.product))) < _LIMIT * sums[index, index]:
                raise zero_hsic(name, int(own.count), self.widths[index], self.estimator)
        norms = np.sqrt(sums.diagonal())
        return (sums / norms[:, None] / norms[None, :])[: self._state.n_x, self._second()]

    def _leave_blocks_out(
        self, sums: Mapping[tuple[int, int], PairMoments], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, list[int]]:
        """Return CKA without each block that holds rows `[G, L, M]` (NaN where the rest has none), and their sizes."""
        sizes = {slot: int(part.count) for slot, part in enumerate(self._state.moments[0, 0]) if part is not None}
        if len(sizes) < 2:
            raise ValueError("an interval needs rows in at least 2 blocks, got one batch; pass smaller batches")
        out = np.full((len(sizes), *shape), np.nan)
        for index, slot in enumerate(sizes):
            moments = self._state.moments
            rest = {pair: sums[pair] - part for pair, blocks in moments.items() if (part := blocks[slot])}
            if rest[0, 0].count >= MIN_ITEMS:
                try:
                    out[index] = self._values(rest)
                except UndefinedCKAError:
                    continue  # stays NaN, which makes the interval all of [-1, 1]
        return out, list(sizes.values())
