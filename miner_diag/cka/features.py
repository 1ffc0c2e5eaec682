"""The feature route: products of features instead of products of items.

For the linear kernel ``sum_ij K_ij L_ij = |X'Y|_F^2``, so one pass over the rows and a ``[D, D']`` matrix per pair do
what the Gram route does with ``n^2`` entries (Kornblith et al. 2019, eq. 3). With centred rows, ``k_i = |x_i|^2`` and
``l_i = |y_i|^2``, Song's debiased sum is

    |X'Y|_F^2 - n/(n-2) sum_i k_i l_i + sum(k) sum(l) / ((n-1)(n-2)),

because the rows of the kernel matrix then sum to zero and only the diagonal is missing from ``K~``.

Operations: ``n D D'`` per pair, twice that with row sums. Memory: ``8 D D'`` bytes per pair in work, `workspace` bytes
in all, whatever n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from miner_diag.cka.hsic import Estimator, centring_offsets, check_estimator, linear_row_sums
from miner_diag.cka.layers import Layer, blocks
from miner_diag.cka.sides import Sides
from miner_diag.cka.sums import PairSums

if TYPE_CHECKING:
    import torch

WORKSPACE = 256 * 2**20


def linear_sum(squared_frobenius: float, k: np.ndarray, l: np.ndarray, estimator: Estimator) -> float:  # noqa: E741
    """Pair sum of two linear kernels from ``|X'Y|_F^2`` and the squared row lengths `[N]` of centred rows."""
    check_estimator(estimator)
    if estimator == "biased":
        return float(squared_frobenius)
    n = len(k)
    return float(squared_frobenius - n / (n - 2) * (k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2)))


def feature_sums(sides: Sides, estimator: Estimator, *, rows: bool, workspace: int = WORKSPACE) -> PairSums:
    """Pair sums of linear kernels; parameters as in `gram.gram_sums`."""
    layers, n, n_x, dtype, device = sides.layers, sides.n, len(sides.x), sides.dtype, sides.device
    norms = [side.squared_norms.numpy() for side in layers]
    offsets = [centring_offsets(linear_row_sums(k, estimator), estimator) for k in norms]
    totals = np.zeros((len(layers), len(layers)))
    shares = np.zeros((len(layers), len(layers), n)) if rows else None
    for group in _groups(sides.pairs, layers, workspace):
        products = _products(layers, offsets, group, dtype, device)
        for a, b in group:
            inner = products[a, b][: layers[a].width, : layers[b].width]
            totals[a, b] = totals[b, a] = linear_sum(float(inner.square().sum()), norms[a], norms[b], estimator)
        if shares is not None:
            _fill_shares(shares, layers, offsets, products, dtype, device)
            for a, b in group:
                if estimator == "debiased":
                    shares[a, b] -= (norms[a] - 2 * offsets[a]) * (norms[b] - 2 * offsets[b])
                shares[b, a] = shares[a, b]
    second = slice(0, n_x) if sides.y is None else slice(n_x, None)
    own = np.einsum("lln->nl", shares) if shares is not None else None
    diagonal = np.stack([k - 2 * a for k, a in zip(norms, offsets, strict=True)], 1) if rows else None
    if diagonal is not None and estimator == "debiased":
        diagonal = np.zeros_like(diagonal)
    return PairSums(
        cross=totals[:n_x, second],
        self_x=totals.diagonal()[:n_x],
        self_y=totals.diagonal()[second],
        cross_rows=np.ascontiguousarray(shares[:n_x, second].transpose(2, 0, 1)) if shares is not None else None,
        self_rows_x=own[:, :n_x] if own is not None else None,
        self_rows_y=own[:, second] if own is not None else None,
        diagonal_x=diagonal[:, :n_x] if diagonal is not None else None,
        diagonal_y=diagonal[:, second] if diagonal is not None else None,
    )


def _groups(pairs: Sequence[tuple[int, int]], layers: Sequence[Layer], workspace: int) -> list[list[tuple[int, int]]]:
    """Pairs in runs whose product matrices fit the workspace together."""
    groups: list[list[tuple[int, int]]] = [[]]
    held = 0
    for a, b in pairs:
        size = 8 * (layers[a].width + 2) * (layers[b].width + 2)
        if groups[-1] and held + size > workspace:
            groups.append([])
            held = 0
        groups[-1].append((a, b))
        held += size
    return groups


def _block_rows(layers: Sequence[Layer]) -> int:
    return max(64, min(2048, 2**20 // max(side.width for side in layers)))


def _products(
    layers: Sequence[Layer],
    offsets: Sequence[np.ndarray],
    group: Sequence[tuple[int, int]],
    dtype: torch.dtype,
    device: torch.device,
) -> dict[tuple[int, int], torch.Tensor]:
    """[X, 1, a]'[Y, 1, b] of each pair, float64 `[D + 2, D' + 2]`, in one pass over the rows."""
    import torch

    used = sorted({index for pair in group for index in pair})
    products = {
        (a, b): torch.zeros(layers[a].width + 2, layers[b].width + 2, dtype=torch.float64, device=device)
        for a, b in group
    }
    for part in blocks(layers[0].n, _block_rows(layers)):
        right = {index: _augmented(layers[index], part, offsets[index], dtype, device, left=False) for index in used}
        for a, b in group:
            products[a, b] += right[a].T @ right[b]
    return products


def _fill_shares(
    shares: np.ndarray,
    layers: Sequence[Layer],
    offsets: Sequence[np.ndarray],
    products: dict[tuple[int, int], torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """sum_j A_ij B_ij over all j, diagonal included, as [x_i, -a_i, -1] C [y_i, -b_i, -1]'."""
    import torch

    used = sorted({index for pair in products for index in pair})
    factors = {pair: product.to(dtype) for pair, product in products.items()}
    for part in blocks(layers[0].n, _block_rows(layers)):
        left = {index: _augmented(layers[index], part, offsets[index], dtype, device, left=True) for index in used}
        for (a, b), factor in factors.items():
            row = (left[a] @ factor).mul_(left[b]).sum(1, dtype=torch.float64)
            shares[a, b, part] = row.cpu().numpy()


def _augmented(
    side: Layer, part: slice, offset: np.ndarray, dtype: torch.dtype, device: torch.device, *, left: bool
) -> torch.Tensor:
    """Centred rows with the two columns that centre their kernel: [x, -a, -1] on the left, [x, 1, a] on the right."""
    import torch

    extra = torch.from_numpy(offset[part])[:, None]
    ones = torch.ones_like(extra)
    columns = torch.cat([-extra, -ones] if left else [ones, extra], 1)
    return torch.cat([side.block(part, dtype, device), columns.to(device=device, dtype=dtype)], 1)
