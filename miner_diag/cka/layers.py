"""Any array of embeddings as checked layers whose rows come centred, scaled and block by block.

A layer is never copied whole. What is kept beside the caller's array are its mean, a power of two that brings its rows
to an ordinary length (CKA ignores an isotropic scale, so 1e30 and 1e-30 need no special care later), and the squared
length of every centred row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from miner_diag.cka.arrays import split_layers
from miner_diag.cka.errors import UndefinedCKAError

if TYPE_CHECKING:
    import torch

MIN_ITEMS = 4
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Layer:
    """One side of a CKA: `n` items in `width` dimensions, read in centred blocks."""

    name: str
    """How messages call it."""
    values: torch.Tensor
    """The caller's rows `[N, D]`, not copied, in their own dtype and on their own device."""
    scale: float
    """A power of two that makes the rows of ordinary length; 1 where they are that already."""
    mean: torch.Tensor
    """Mean row times `scale`, float64 `[D]`, on the CPU."""
    squared_norms: torch.Tensor
    """Squared lengths of the centred, scaled rows, float64 `[N]`, on the CPU."""

    @property
    def n(self) -> int:
        """Number of items."""
        return self.values.shape[0]

    @property
    def width(self) -> int:
        """Number of dimensions."""
        return self.values.shape[1]

    def block(self, rows: slice | np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Centred and scaled rows `[B, D]`, rounded once, after centring."""
        import torch

        raw = self.values[rows]
        return self._centred(raw, torch.empty(raw.shape, dtype=dtype, device=device))

    def fill(self, out: torch.Tensor, rows: slice) -> None:
        """Write centred and scaled rows into `out` `[B, D]`, in its dtype and on its device."""
        self._centred(self.values[rows], out)

    def _centred(self, raw: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return _centre(raw, self.scale, self.mean, out, fine=self._fine(out.dtype))

    def _fine(self, dtype: torch.dtype) -> bool:
        """Whether the rounding of the mean itself would show: an offset far above the spread."""
        import torch

        rounding = torch.finfo(dtype).eps * float(torch.linalg.vector_norm(self.mean))
        return rounding > 1e-7 * math.sqrt(float(self.squared_norms.mean()))


def as_layers(
    layer_embeddings: Any,
    names: Sequence[str] | None = None,
    *,
    dtype: torch.dtype | None = None,
    argument: str = "layer_embeddings",
) -> list[Layer]:
    """Check embeddings and make them layers.

    Parameters
    ----------
    layer_embeddings : array or tensor [N, L, D], or sequence of arrays or tensors [N, D_l]
        Any float or integer dtype, any strides, read-only or not.
    names : sequence of str [L], optional
        What messages and results call the layers; ``layer 0``, ``layer 1``, … if not given.
    dtype : torch.dtype, optional
        Precision of mean and row lengths, at least that of the rows; float64 if not given.
    argument : str
        Name of the caller's argument, for messages.

    Raises
    ------
    UndefinedCKAError
        If a side has fewer than four items, is constant over items, or holds NaN or Inf.
    ValueError
        If shapes are not as above or row counts differ.
    """
    sides = split_layers(layer_embeddings, argument)
    if names is None:
        names = [f"layer {i}" for i in range(len(sides))]
    if len(names) != len(sides):
        raise ValueError(f"names must have one entry per layer: {argument} has {len(sides)}, names has {len(names)}")
    rows = [side.shape[0] for side in sides]
    if len(set(rows)) > 1:
        raise ValueError(
            f"{argument}: all layers must hold the same items row by row, got row counts {rows}; "
            "select the common items, in one order, first"
        )
    import torch

    return [_checked(side, name, dtype or torch.float64) for side, name in zip(sides, names, strict=True)]


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover `n` rows, `size` at a time."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _checked(values: torch.Tensor, name: str, dtype: torch.dtype) -> Layer:
    import torch

    n, width = values.shape
    if n < MIN_ITEMS:
        raise UndefinedCKAError(f"{name} has n={n}, d={width}: CKA needs at least {MIN_ITEMS} items; add items")
    work = torch.promote_types(values.dtype, dtype)
    ends, sums = [], []
    for rows in blocks(n, _BLOCK_ROWS):
        part = values[rows].to(work)
        ends += [part.amax(), -part.amin()]
        sums.append(part.sum(0).double())
    largest = float(torch.stack(ends).max())
    if not math.isfinite(largest):
        raise UndefinedCKAError(_where_not_finite(values, name))
    scale = _power_of_two(largest)
    if 2.0**-40 < scale < 2.0**40:
        scale = 1.0  # nothing overflows or underflows on the way to the spread
        mean = torch.stack(sums).sum(0) / n
    else:
        mean = (
            torch.stack([(values[rows].to(work) * scale).double().sum(0) for rows in blocks(n, _BLOCK_ROWS)]).sum(0) / n
        )
    norms, mean = _centred_norms(values, scale, mean.cpu(), work)
    total = float(norms.sum())
    ulp = torch.finfo(values.dtype).eps
    if total <= 4 * n * width * (ulp * largest * scale) ** 2 and _is_constant(values, ulp):
        raise UndefinedCKAError(
            f"{name} is the same for all {n} items (d={width}), so CKA is undefined; "
            "drop this layer or check how it was pooled"
        )
    rescale = _power_of_two(math.sqrt(total / n))
    if scale == 1 and 2.0**-8 <= rescale <= 2.0**8:
        rescale = 1.0  # rows of ordinary length need no multiplication
    return Layer(name, values, scale * rescale, mean * rescale, norms * rescale**2)


def _centred_norms(
    values: torch.Tensor, scale: float, mean: torch.Tensor, work: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared lengths of centred rows and the mean that they were centred by, refined until nothing of it is left."""
    import torch

    n, width = values.shape
    buffer = torch.empty(min(n, _BLOCK_ROWS), width, dtype=work, device=values.device)
    for _ in range(3):
        norms, left = [], torch.zeros(width, dtype=torch.float64, device=values.device)
        for rows in blocks(n, _BLOCK_ROWS):
            part = values[rows]
            centred = _centre(part, scale, mean, buffer[: len(part)], fine=True)
            norms.append(torch.linalg.vector_norm(centred, dim=1, dtype=torch.float64).square())
            left += centred.sum(0)
        squared, left = torch.cat(norms).cpu(), left.cpu() / n
        mean = mean + left
        if left @ left <= torch.finfo(work).eps ** 2 * squared.mean():
            break
    return squared, mean


def _power_of_two(size: float) -> float:
    """Find the power of two that brings a positive size into [1, 2); 1 for 0."""
    return 1.0 if size == 0 else math.ldexp(1.0, min(1 - math.frexp(size)[1], 1023))


def _centre(raw: torch.Tensor, scale: float, mean: torch.Tensor, out: torch.Tensor, *, fine: bool) -> torch.Tensor:
    """(raw * scale - mean) into out; `fine` takes the mean off in two parts, so that its rounding does not count."""
    import torch

    work = torch.promote_types(raw.dtype, out.dtype)
    raw = raw.to(device=out.device, dtype=work)
    direct = work == out.dtype
    if scale != 1:
        raw = torch.mul(raw, scale, out=out) if direct else raw * scale
    high = mean.to(work)
    centred = torch.sub(raw, high.to(out.device), out=out) if direct else raw - high.to(out.device)
    if fine:
        centred.sub_((mean - high.to(mean.dtype)).to(device=out.device, dtype=work))
    return out if direct else out.copy_(centred)


def _is_constant(values: torch.Tensor, ulp: float) -> bool:
    """Whether every column differs by at most one unit in the last place over the items."""
    low, high = values.amin(0).double(), values.amax(0).double()
    # Halves cannot overflow where the difference of two large float64 numbers could.
    return bool((high / 2 - low / 2 <= ulp / 2 * low.abs().maximum(high.abs())).all())


def _where_not_finite(values: torch.Tensor, name: str) -> str:
    bad = ~values.isfinite()
    item, column = (int(v) for v in bad.nonzero()[0])
    n, width = values.shape
    return (
        f"{name} (n={n}, d={width}) holds {float(values[item, column])} at item {item}, dimension {column} "
        f"({int(bad.sum())} such entries); remove these items or extract them again in a wider dtype"
    )
