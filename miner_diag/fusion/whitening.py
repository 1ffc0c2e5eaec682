"""Whitening of the final layer: where its part of the fusion, and every head that it is compared with, may start."""

from __future__ import annotations

import numpy as np

from miner_diag.fusion.errors import FusionError
from miner_diag.probes.retrieval_data import Vectors, rows_of

_BLOCK = 1024  # pages read at once


def whitening_map(pages: Vectors, shrinkage: float = 0.5) -> np.ndarray:
    """Return the symmetric matrix [D, D] that evens out the directions in which final embeddings of pages vary.

    ``W = ((1 - s) C + s (tr C / D) I)^(-1/2)``, C being the covariance of the unit vectors of the final layer and s the
    shrinkage; scaled so that its rows have length one on average, as those of the identity.

    Parameters
    ----------
    pages : vectors [P, L, D]
        Training pages; no label is used.
    shrinkage : float
        The share s, above 0 (nearly full whitening) to 1 (the identity).

    Raises
    ------
    FusionError
        If the shrinkage is out of range, there are fewer than two pages, or they are all the same.

    References
    ----------
    Su et al., "Whitening Sentence Representations for Better Semantics and Faster Retrieval", arXiv 2103.15316, 2021,
    without their mean; the shrinkage is Ledoit and Wolf's form with a share that is set, not estimated.
    """
    if not 0 < shrinkage <= 1:
        raise FusionError(f"shrinkage must be above 0 and at most 1; got {shrinkage}")
    n_pages, _, width = pages.shape
    if n_pages < 2:
        raise FusionError(f"whitening needs at least 2 training pages; got {n_pages}")
    total, crossed = np.zeros(width), np.zeros((width, width))
    for first in range(0, n_pages, _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, n_pages))
        states = np.asarray(rows_of(pages, rows)[:, -1], dtype=np.float64)
        states = states / np.linalg.norm(states, axis=1, keepdims=True)
        total, crossed = total + states.sum(axis=0), crossed + states.T @ states
    mean = total / n_pages
    covariance = (crossed - n_pages * np.outer(mean, mean)) / (n_pages - 1)
    spread = np.trace(covariance) / width
    if spread <= 1e-12:
        raise FusionError("the final embeddings of all training pages are the same; check the backbone and its pages")
    values, axes = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * spread * np.eye(width))
    matrix = (axes * values**-0.5) @ axes.T
    return (matrix / np.sqrt(np.square(matrix).sum() / width)).astype(np.float32)
