"""Hard negatives: the training pages that the backbone itself takes for an answer, and that are none."""

from __future__ import annotations

import numpy as np
import torch

from miner_diag.probes.kinds import unit
from miner_diag.probes.probe_stack import ProbeError
from miner_diag.probes.retrieval_data import RetrievalData, layer_of

_BLOCK = 512  # queries scored at once


def mine_hard_negatives(train: RetrievalData, n: int, guard: float) -> np.ndarray:
    """Return the rows of the n hardest negatives of every training query.

    Those that the data set itself names come first; the others are mined by the cosine of the final layer. A page that
    answers the query, or looks the same as one that does, is no negative. Neither is a mined one that scores above
    `guard` times the query's best answer: it may answer the query, though nobody said so (the guard of NV-Retriever,
    Moreira et al. 2024, arXiv 2407.15831; whether MINER has one is not known). Where the best answer scores 0 or less,
    pages that score no higher than it are negatives.

    Parameters
    ----------
    train : RetrievalData
        The training split.
    n : int
        The number of negatives of each query.
    guard : float
        Above 0, at most 1; 1 leaves out only what scores higher than the answer.

    Returns
    -------
    ndarray [Q, n] int64
        Rows of pages, the hardest first; -1 where a query has fewer.

    Raises
    ------
    ProbeError
        If there are no more pages than negatives.
    """
    n_pages, n_queries = train.pages.shape[0], train.queries.shape[0]
    if n >= n_pages:
        raise ProbeError(
            f"{n} hard negatives a query need more than {n} training pages; there are {n_pages}. Lower hard_negatives"
        )
    found = np.full((n_queries, n), -1, dtype=np.int64)
    if not n:
        return found
    last = train.n_layers - 1
    queries, pages = (
        unit(torch.from_numpy(np.array(layer_of(side, last), dtype=np.float32)))
        for side in (train.queries, train.pages)
    )
    every = np.arange(n_pages)
    for first in range(0, n_queries, _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, n_queries))
        scores = (queries[rows] @ pages.T).numpy()
        answers = train.known_matches(rows, every)
        best = np.where(answers, scores, -np.inf).max(axis=1)
        ceiling = np.where(best > 0, guard * best, best)
        scores[answers | ~(scores <= ceiling[:, None])] = -np.inf
        least = -np.partition(-scores, n - 1, axis=1)[:, [n - 1]]
        above, equal = scores > least, scores == least
        # of equal scores the page that comes first
        equal &= np.cumsum(equal, axis=1, dtype=np.int32) <= n - above.sum(axis=1, keepdims=True)
        order = np.nonzero(above | equal)[1].reshape(len(rows), n)
        held = np.take_along_axis(scores, order, axis=1)
        ranked = np.argsort(-held, axis=1, kind="stable")
        order, held = (np.take_along_axis(array, ranked, axis=1) for array in (order, held))
        found[rows] = np.where(np.isfinite(held), order, -1)
    for query, given in train.given_negatives.items():
        listed = np.array(given, dtype=np.int64)
        named = listed[~train.known_matches(np.array([query]), listed)[0]][:n]
        mined = found[query][~np.isin(found[query], named)]
        found[query] = np.concatenate([named, mined])[:n]
    return found
