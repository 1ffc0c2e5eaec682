"""Where a projection starts: the identity, a random rotation, or the linear map closest to the final layer."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from miner_diag.probes.retrieval_data import RetrievalData, Vectors, layer_of, rows_of

Start = Literal["identity", "orthogonal", "least_squares"]

_BLOCK = 512  # items read at once


def starting_weights(
    start: Start, train: RetrievalData, *, n_sides: int, ridge: float, rng: np.random.Generator
) -> Tensor:
    """Return W [L, S, D, D] float32 for every layer and side.

    Parameters
    ----------
    start : str
        identity: the layer's own coordinates. orthogonal: a random rotation, which keeps all cosines.
        least_squares: the W that minimises ``|W LayerNorm(h_l) - normalize(e)|^2`` over the training items, e being the
        final layer of the same item, with a ridge.
    train : RetrievalData
        The training items.
    n_sides : int
        1: queries and pages share a probe. 2: each has its own.
    ridge : float
        Ridge of least squares, in units of the mean of the diagonal of the layer's second moments.
    rng : Generator
        Generator for the rotations.
    """
    n_layers, width = train.n_layers, train.width
    if start == "identity":
        return torch.eye(width).expand(n_layers, n_sides, width, width).clone()
    if start == "orthogonal":
        q, r = np.linalg.qr(rng.normal(size=(n_layers, n_sides, width, width)))
        signs = np.sign(np.diagonal(r, axis1=-2, axis2=-1))  # makes the law of q that of a uniform rotation
        return torch.from_numpy((q * signs[..., None, :]).astype(np.float32))
    sides: list[list[Vectors]] = [train.probed] if n_sides == 1 else [[train.queries], [train.pages]]
    return torch.stack([_least_squares(vectors, ridge) for vectors in sides], dim=1)


def low_rank(weights: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Split W [..., D, D] into left [..., D, r] and right [..., r, D], whose product is its best rank-r approximation.

    Examples
    --------
    >>> left, right = low_rank(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2)
    >>> (left @ right).diagonal().round(decimals=4).tolist()
    [3.0, 2.0, 0.0]
    """
    # NumPy's solvers: torch's batched LU (MKL) failed here on 7 matrices of 384 x 384.
    u, s, v = np.linalg.svd(weights.double().numpy(), full_matrices=False)
    root = np.sqrt(s[..., :rank])
    left, right = u[..., :rank] * root[..., None, :], root[..., None] * v[..., :rank, :]
    return torch.from_numpy(left.astype(np.float32)), torch.from_numpy(right.astype(np.float32))


def least_squares_map(train: RetrievalData, layer: int, unit_input: bool, ridge: float = 0.01) -> np.ndarray:
    """Return W [D, D] float32 that minimises ``|W x - normalize(e)|^2`` over queries and pages, with a ridge.

    Parameters
    ----------
    train : RetrievalData
        The training items; e is an item's final layer.
    layer : int
        The layer of x.
    unit_input : bool
        Whether x is brought to unit length first.
    ridge : float
        Ridge, in units of the mean of the diagonal of the layer's second moments.
    """
    x, e = (
        np.concatenate([layer_of(side, number) for side in (train.queries, train.pages)]).astype(np.float64)
        for number in (layer, train.n_layers - 1)
    )
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    if unit_input:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    moments = x.T @ x
    moments += ridge * np.trace(moments) / len(moments) * np.eye(len(moments))
    solved: np.ndarray = np.linalg.solve(moments, x.T @ e).T.astype(np.float32)
    return solved


def _least_squares(sides: list[Vectors], ridge: float) -> Tensor:
    """Return W [L, D, D] from second moments summed block by block in float64."""
    _, n_layers, width = sides[0].shape
    moments = torch.zeros(n_layers, width, width, dtype=torch.float64)
    crossed = torch.zeros_like(moments)
    for vectors in sides:
        for first in range(0, vectors.shape[0], _BLOCK):
            rows = np.arange(first, min(first + _BLOCK, vectors.shape[0]))
            block = torch.from_numpy(rows_of(vectors, rows)).double().transpose(0, 1)  # [L, B, D]
            given = torch.nn.functional.layer_norm(block, (width,))
            wanted = torch.nn.functional.normalize(block[-1], dim=-1)  # [B, D]
            moments += given.transpose(1, 2) @ given
            crossed += given.transpose(1, 2) @ wanted
    scale = moments.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)
    moments += (ridge * scale)[:, None, None] * torch.eye(width, dtype=torch.float64)
    solved = torch.from_numpy(np.linalg.solve(moments.numpy(), crossed.numpy())).transpose(1, 2)  # rows: coordinates
    # Only directions of W matter; a common size keeps one learning rate right for all layers.
    size = solved.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return (solved / size * width**0.5).float()
