"""CKA without each group of items, exactly, from sums: what a cluster-robust interval of few groups needs.

With few groups (a dozen documents) the influence of a group is not the sum of the influences of its items: pairs within
it count once, not twice. For U-centred matrices A, B (rows summing to zero), m the items left and, for a group g,
``u_j = sum_{i in g} A_ij``, ``a = sum_{j in g} u_j`` (``v``, ``b`` likewise of B), Song's formula gives for the rest

    T - 2 sum_{i in g} r_i + sum_{i, j in g} A_ij B_ij + a b / ((m-1)(m-2)) - 2/(m-2) sum_{j not in g} u_j v_j

times ``1 / (m (m-3))``, which cancels in CKA. The biased form has ``m^2`` and ``m`` in place of the two divisors. Costs
``n d (G + mean group size)`` per layer and ``n G`` per pair; the linear kernel only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from miner_diag.cka.hsic import Estimator, centring_offsets, check_estimator, linear_row_sums
from miner_diag.cka.layers import Layer, blocks
from miner_diag.cka.sides import Sides
from miner_diag.cka.sums import PairSums

if TYPE_CHECKING:
    import torch

MAX_GROUPS = 256
_BLOCK_ROWS = 512


def leave_groups_out(sides: Sides, sums: PairSums, estimator: Estimator, groups: np.ndarray) -> np.ndarray:
    """CKA without group g `[G, L, M]`; NaN where the rest has none.

    Parameters
    ----------
    sides : Sides
        What was compared, by the linear kernel.
    sums : PairSums
        Its sums, with rows.
    estimator : "debiased" or "biased"
        That of the sums.
    groups : ndarray [N] of int
        Group number of each item, 0 … G - 1.
    """
    check_estimator(estimator)
    assert sums.cross_rows is not None and sums.self_rows_x is not None and sums.self_rows_y is not None
    outside, own = _outside_and_own(sides, estimator, groups)
    within = _within(sides, estimator, groups)
    sizes = np.bincount(groups).astype(np.float64)
    left = sides.n - sizes
    first, second = (left - 1) * (left - 2), (left - 2) / 2
    if estimator == "biased":
        first, second = left**2, left / 2
    fewest = 4 if estimator == "debiased" else 2

    def rest(total: np.ndarray, rows: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sums [G, ...] without each group, of the pairs of layers (a, b)."""
        left_out = np.zeros((len(sizes), *rows.shape[1:]))
        np.add.at(left_out, groups, rows)
        shape = (-1, *(1,) * (left_out.ndim - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            corrections = own[:, a] * own[:, b] / first.reshape(shape) - outside[:, a, b] / second.reshape(shape)
        return total - 2 * left_out + within[:, a, b] + corrections

    x = np.arange(len(sides.x))
    y = x if sides.y is None else len(x) + np.arange(len(sides.y))
    cross = rest(sums.cross, sums.cross_rows, x[:, None], y[None, :])
    self_x, self_y = rest(sums.self_x, sums.self_rows_x, x, x), rest(sums.self_y, sums.self_rows_y, y, y)
    gone = (left < fewest)[:, None]
    self_x = np.where(gone | ~(self_x > 1e-9 * sums.self_x), np.nan, self_x)
    self_y = np.where(gone | ~(self_y > 1e-9 * sums.self_y), np.nan, self_y)
    return cross / np.sqrt(self_x)[:, :, None] / np.sqrt(self_y)[:, None, :]


def _outside_and_own(sides: Sides, estimator: Estimator, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``sum_{j not in g} u_j v_j`` for all pairs of layers `[G, A, A]` and ``a`` `[G, A]`."""
    import torch

    layers, count = sides.layers, int(groups.max()) + 1
    numbers = torch.from_numpy(groups).to(sides.device)
    sums = []
    for side in layers:
        total = torch.zeros(count, side.width + 2, dtype=torch.float64, device=sides.device)
        for part in blocks(sides.n, _BLOCK_ROWS):
            total.index_add_(0, numbers[part], _factors(side, part, estimator, sides.device)[1])
        sums.append(total)
    outside = torch.zeros(count, len(layers), len(layers), dtype=torch.float64, device=sides.device)
    own_sums = torch.zeros(count, len(layers), dtype=torch.float64, device=sides.device)
    for part in blocks(sides.n, _BLOCK_ROWS):
        group_of = numbers[part]
        to_groups = []
        for side, total in zip(layers, sums, strict=True):
            left, right = _factors(side, part, estimator, sides.device)
            to_group = left @ total.T
            if estimator == "debiased":  # an item is no neighbour of itself
                to_group[torch.arange(len(group_of), device=group_of.device), group_of] -= (left * right).sum(1)
            to_groups.append(to_group)
        u = torch.stack(to_groups, 2)  # [B, G, A]
        by_group = u.transpose(0, 1)  # [G, B, A]
        outside += by_group.transpose(1, 2) @ by_group
        # [B, A]: to the item's own group, which does not stay
        own = u[torch.arange(len(group_of), device=group_of.device), group_of]
        outside.index_add_(0, group_of, own[:, :, None] * own[:, None, :], alpha=-1)
        own_sums.index_add_(0, group_of, own)
    return outside.cpu().numpy(), own_sums.cpu().numpy()


def _within(sides: Sides, estimator: Estimator, groups: np.ndarray) -> np.ndarray:
    """``sum_{i, j in g} A_ij B_ij`` for all pairs of layers `[G, A, A]`."""
    import torch

    layers, count = sides.layers, int(groups.max()) + 1
    within = np.zeros((count, len(layers), len(layers)))
    for group, members in enumerate(_members(groups, count)):
        for part in blocks(len(members), _BLOCK_ROWS):
            tiles = []
            for side in layers:
                left = _factors(side, members[part], estimator, sides.device)[0]
                right = _factors(side, members, estimator, sides.device)[1]
                tile = left @ right.T
                if estimator == "debiased":
                    tile[:, part].diagonal().zero_()
                tiles.append(tile.ravel())
            flat = torch.stack(tiles)
            within[group] += (flat @ flat.T).cpu().numpy()
    return within


def _members(groups: np.ndarray, count: int) -> Iterator[np.ndarray]:
    order = np.argsort(groups, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(groups, minlength=count))[:-1])


def _factors(
    side: Layer, rows: slice | np.ndarray, estimator: Estimator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """[x, -a, -1] and [x, 1, a], whose products are the centred kernel (see `gram`), float64."""
    import torch

    block = side.block(rows, torch.float64, device)
    norms = side.squared_norms.numpy()
    offset = torch.from_numpy(centring_offsets(linear_row_sums(norms, estimator), estimator)[rows]).to(device)[:, None]
    ones = torch.ones_like(offset)
    return torch.cat([block, -offset, -ones], 1), torch.cat([block, ones, offset], 1)
