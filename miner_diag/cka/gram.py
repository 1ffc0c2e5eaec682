"""The Gram route: kernel matrices of all layers, tile by tile, never whole.

For a strip of columns J and a block of rows I the products ``X_l[I] X_l[J]'`` of all layers stand side by side in one
tile ``[I, L, J]``; centring rides along as two extra columns of the factors, so a tile comes out centred. The pair sums
are then, for each row of the tile, one product ``[L, J] x [J, M]``, summed over rows and tiles in float64. Tiles below
the diagonal are skipped: what they would add to a row is the column sum of their mirror image.

Operations: ``n^2 / 2`` times (sum of widths + products of layers); RBF twice that. Memory: `workspace` bytes, whatever
n, plus ``8 n`` bytes per pair if row sums are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from miner_diag.cka.hsic import Estimator, centring_offsets, linear_row_sums
from miner_diag.cka.layers import Layer
from miner_diag.cka.sides import Sides
from miner_diag.cka.sums import PairSums

if TYPE_CHECKING:
    import torch

WORKSPACE = 320 * 2**20
_ROWS, _COLUMNS = 512, 1024


@dataclass(frozen=True)
class _Tile:
    """Entries of all centred kernel matrices for some rows and columns."""

    values: torch.Tensor
    """`[I, L, J]`."""
    rows: slice
    columns: slice
    """Columns of this tile; they start with the rows' own square where `square` > 0."""
    square: int
    """Leading columns that are the same items as the rows; the rest lies above the diagonal."""


def gram_sums(sides: Sides, estimator: Estimator, *, rows: bool, workspace: int = WORKSPACE) -> PairSums:
    """Pair sums of all layers of one side with all of the other.

    Parameters
    ----------
    sides : Sides
        The layers, the kernel, and the precision and place of the products.
    estimator : "debiased" or "biased"
        Which centring; see `hsic`.
    rows : bool
        Whether to keep the per-item row sums.
    workspace : int
        Bytes that buffers may take together.
    """
    layers, n, n_x = sides.layers, sides.n, len(sides.x)
    offsets = _offsets(sides, estimator, workspace)
    total = _Accumulator(n, n_x, len(layers) - n_x, rows, sides.device)
    for tile in _tiles(sides, offsets, estimator, workspace):
        total.add(tile)
    diagonal = None
    if rows and estimator == "biased":
        own = (
            np.ones((n, len(layers)))
            if sides.kernel == "rbf"
            else np.stack([s.squared_norms.numpy() for s in layers], 1)
        )
        diagonal = own - 2 * offsets.cpu().numpy().T
    elif rows:
        diagonal = np.zeros((n, len(layers)))
    return total.finish(diagonal)


def _offsets(sides: Sides, estimator: Estimator, workspace: int) -> torch.Tensor:
    """Centring offsets `[L, N]`, float64. RBF row sums cost a pass of their own."""
    import torch

    if sides.kernel == "linear":
        sums = np.stack([linear_row_sums(side.squared_norms.numpy(), estimator) for side in sides.layers])
    else:
        device_sums = torch.zeros(len(sides.layers), sides.n, dtype=torch.float64, device=sides.device)
        for tile in _tiles(sides, torch.zeros_like(device_sums), estimator, workspace):
            device_sums[:, tile.rows] += tile.values.sum(2, dtype=torch.float64).T
            device_sums[:, tile.columns][:, tile.square :] += tile.values[:, :, tile.square :].sum(
                0, dtype=torch.float64
            )
        sums = device_sums.cpu().numpy()
    return torch.from_numpy(np.stack([centring_offsets(row, estimator) for row in sums])).to(sides.device)


def _tiles(sides: Sides, offsets: torch.Tensor, estimator: Estimator, workspace: int) -> Iterator[_Tile]:
    """Every pair of items once: the squares on the diagonal whole, of the rest the part above it."""
    import torch

    layers, n, dtype, device = sides.layers, sides.n, sides.dtype, sides.device
    n_rows, n_columns = _tile_size(n, [side.width for side in layers], dtype.itemsize, workspace)
    right = [torch.empty(n_columns, side.width + 2, dtype=dtype, device=device) for side in layers]
    storage = torch.empty(n_rows * len(layers) * n_columns, dtype=dtype, device=device)
    on_diagonal = max(n_rows // 2, 1)
    buffer = torch.empty(n_rows * (max(side.width for side in layers) + 2), dtype=dtype, device=device)
    norms = torch.stack([side.squared_norms for side in layers]).to(device)
    for strip in range(0, n, n_columns):
        end = min(strip + n_columns, n)
        for layer, side in enumerate(layers):
            _fill(right[layer], side, slice(strip, end), offsets[layer], left=False)
        # Blocks of full height above the diagonal; on it of half of that, as the lower half of a square is done twice.
        starts = [*range(0, strip, n_rows), *range(strip, end, on_diagonal)]
        for start, stop in zip(starts, [*starts[1:], end], strict=True):
            columns = slice(max(start, strip), end)
            shape = (stop - start, len(layers), end - columns.start)
            values = storage[: shape[0] * shape[1] * shape[2]].view(shape)
            for layer, side in enumerate(layers):
                left = buffer[: shape[0] * (side.width + 2)].view(shape[0], side.width + 2)
                _fill(left, side, slice(start, stop), offsets[layer], left=True)
                column = right[layer][columns.start - strip : end - strip]
                if sides.kernel == "linear":
                    torch.mm(left, column.T, out=values[:, layer])
                else:
                    products = left[:, :-2] @ column[:, :-2].T
                    near = _rbf(products, norms[layer, start:stop], norms[layer, columns], sides.sigmas[layer])
                    shift = offsets[layer, start:stop, None] + offsets[layer, None, columns]
                    values[:, layer] = near.sub_(shift.to(dtype))
            square = stop - start if start >= strip else 0
            if square and estimator == "debiased":
                values[:, :, :square].diagonal(dim1=0, dim2=2).zero_()
            yield _Tile(values, slice(start, stop), columns, square)


def _fill(out: torch.Tensor, side: Layer, rows: slice, offset: torch.Tensor, *, left: bool) -> None:
    """Rows with two more columns: [x, -a, -1] on the left times [x, 1, a] on the right is x'x - a_i - a_j."""
    block = out[: rows.stop - rows.start]
    side.fill(block[:, :-2], rows)
    if left:
        block[:, -2] = -offset[rows]
        block[:, -1] = -1
    else:
        block[:, -2] = 1
        block[:, -1] = offset[rows]


def _rbf(products: torch.Tensor, norms_i: torch.Tensor, norms_j: torch.Tensor, sigma: float) -> torch.Tensor:
    """exp(-d^2 / (2 sigma^2)) from inner products; a squared distance below 0 is rounding and means 0."""
    squared = products.mul_(-2).add_((norms_i[:, None] + norms_j[None, :]).to(products.dtype))
    return squared.clamp_(min=0).mul_(-0.5 / sigma**2).exp_()


def _tile_size(n: int, widths: Sequence[int], itemsize: int, workspace: int) -> tuple[int, int]:
    """Rows and columns of a tile: the largest that fit the workspace, columns a multiple of rows."""
    n_rows, n_columns = _ROWS, _COLUMNS

    def needed() -> int:
        # the strip, the tile twice (once more transposed, for column sums), one block of rows in two copies
        strip = n_columns * sum(w + 2 for w in widths)
        return itemsize * (strip + 2 * n_rows * n_columns * len(widths) + 2 * max(n_rows, n_columns) * max(widths))

    while needed() > workspace and n_columns > 32:
        n_columns //= 2
        n_rows = min(n_rows, n_columns)
    return min(n_rows, n), min(n_columns, -(-n // n_rows) * n_rows)


class _Accumulator:
    """Running float64 sums over tiles."""

    def __init__(self, n: int, n_x: int, n_y: int, rows: bool, device: torch.device) -> None:
        import torch

        self.n_x, self.n_y, self.rows = n_x, n_y, rows
        kept = n if rows else 1
        self.cross = torch.zeros(kept, n_x, n_y or n_x, dtype=torch.float64, device=device)
        self.own = torch.zeros(kept, n_x + n_y, dtype=torch.float64, device=device) if n_y else None

    def add(self, tile: _Tile) -> None:
        """Count the square once (it holds both orders of each pair), the rest twice."""
        square, rest = tile.values[:, :, : tile.square], tile.values[:, :, tile.square :]
        if not self.rows:
            for part, weight in ((square, 1.0), (rest, 2.0)):
                if part.shape[2]:
                    cross, own = self._products(part)
                    self.cross[0].add_(cross.sum(0), alpha=weight)
                    if self.own is not None and own is not None:
                        self.own[0].add_(own.sum(0), alpha=weight)
            return
        self._add_rows(tile.rows, tile.values)
        if rest.shape[2]:
            below = slice(tile.columns.start + tile.square, tile.columns.stop)
            self._add_rows(below, rest.permute(2, 1, 0).contiguous())

    def _add_rows(self, rows: slice, values: torch.Tensor) -> None:
        cross, own = self._products(values)
        self.cross[rows] += cross
        if self.own is not None and own is not None:
            self.own[rows] += own

    def _products(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Sum products over J of `[I, L (+ M), J]`: `[I, L, M]` and, for two sides, squares `[I, L + M]`."""
        import torch

        if not self.n_y:
            return torch.bmm(values, values.transpose(1, 2)).double(), None
        x, y = values[:, : self.n_x], values[:, self.n_x :]
        return torch.bmm(x, y.transpose(1, 2)).double(), torch.linalg.vector_norm(values, dim=2).double().square()

    def finish(self, diagonal: np.ndarray | None) -> PairSums:
        cross, n_x = self.cross.cpu().numpy(), self.n_x
        own = np.einsum("nll->nl", cross) if self.own is None else self.own.cpu().numpy()
        own_x, own_y = (own, own) if self.own is None else (own[:, :n_x], own[:, n_x:])
        kept = self.rows
        return PairSums(
            cross=cross.sum(0),
            self_x=own_x.sum(0),
            self_y=own_y.sum(0),
            cross_rows=cross if kept else None,
            self_rows_x=own_x if kept else None,
            self_rows_y=own_y if kept else None,
            diagonal_x=diagonal[:, :n_x] if diagonal is not None else None,
            diagonal_y=(diagonal if self.own is None else diagonal[:, n_x:]) if diagonal is not None else None,
        )
