"""Which neurons carry a probe's signal, and how few of them hold most of it."""

from __future__ import annotations

import numpy as np
import torch

from miner_diag.arrays import real_array
from miner_diag.probes.kinds import unit
from miner_diag.probes.probe_stack import Probe, ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData, Side, layer_of

_BLOCK = 4096  # pairs held at once


def salience(stack: ProbeStack, data: RetrievalData) -> tuple[np.ndarray, np.ndarray]:
    """Return the salience of every neuron, [L, D] float32 for base probes and [L, D] for normalized projections.

    Base: ``s_j = g_j^2``, the weight of neuron j in the cosine of two gated vectors; ``|g_query,j g_page,j|`` where
    sides have gates of their own, ``|g_j|`` where one side is fixed.

    Normalized projection: ``s_j = max(0, mean over true pairs of z_qj z_pj - mean z_qj * mean z_pj)``, means over the
    true pairs: what output coordinate j adds to the cosine of a true pair beyond what it adds to any pair. Summed over
    j without the max it is the mean cosine of true pairs less that of pairs at random. A coordinate that is the same
    for all items gets 0, and so does one that speaks against true pairs.

    Parameters
    ----------
    stack : ProbeStack
        The probes.
    data : RetrievalData
        The training split, over whose true pairs is averaged.
    """
    base = np.abs(stack.gates[:, 0] * (stack.gates[:, -1] if data.fixed is None else 1))
    projected = np.stack(
        [projection_salience(stack.probe(layer, "normalized_projection"), data) for layer in range(data.n_layers)]
    )
    return base.astype(np.float32), projected.astype(np.float32)


def projection_salience(probe: Probe, data: RetrievalData) -> np.ndarray:
    """Return the salience [D] of one projection's output coordinates; the formula is in `salience`."""
    query_rows, page_rows = data.pairs
    queries, pages = layer_of(data.queries, probe.layer), layer_of(data.pages, probe.layer)

    def mapped(vectors: np.ndarray, side: Side) -> np.ndarray:
        return unit(torch.from_numpy(vectors)).numpy() if side == data.fixed else probe.apply(vectors, side)

    both, query_sum, page_sum = np.zeros((3, data.width))
    for first in range(0, len(query_rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        z_query = mapped(queries[query_rows[part]], "query").astype(np.float64)
        z_page = mapped(pages[page_rows[part]], "page").astype(np.float64)
        both += (z_query * z_page).sum(axis=0)
        query_sum += z_query.sum(axis=0)
        page_sum += z_page.sum(axis=0)
    n = len(query_rows)
    return np.maximum(both / n - query_sum / n * page_sum / n, 0.0)


def concentration(values: np.ndarray) -> np.ndarray:
    """Return the share [D] of all salience that the 1, 2, … D most salient neurons hold.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or all are 0.

    Examples
    --------
    >>> concentration(np.array([1.0, 6.0, 3.0]))
    array([0.6, 0.9, 1. ])
    """
    values = real_array(values, "salience").astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"salience must be [D], one number for each neuron; got {list(values.shape)}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("salience must be finite and at least 0")
    if not values.any():
        raise ValueError(f"all {len(values)} neurons have salience 0, so there are no shares")
    return np.minimum(np.cumsum(np.sort(values)[::-1]) / values.sum(), 1.0)


def neurons_for(values: np.ndarray, share: float = 0.9) -> int:
    """Return how many of the most salient neurons it takes to hold `share` of the salience.

    Raises
    ------
    ValueError
        If the share is not above 0 and at most 1, and as in `concentration`.

    Examples
    --------
    >>> neurons_for(np.array([1.0, 6.0, 3.0]))
    2
    """
    check_share(share, "share")
    return int(np.searchsorted(concentration(values), share - 1e-12)) + 1


def check_share(share: float, name: str) -> None:
    """Raise ValueError unless `share` is above 0 and at most 1."""
    if not 0 < share <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1; got {share}")
