"""Layers of which it is known which carry the answer, and in which form."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ortho_group

from miner_diag.probes import RetrievalData, StudyOptions, study
from miner_diag.retrieval import Relevance

L, D, SIGNAL = 9, 80, 8
"""Layers, width, and neurons that carry the signal in layers 2 and 7."""


@pytest.fixture(scope="session")
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judged(queries, pages, hashes=None, documents=None):
    """Query i asks for page i."""
    n = len(queries)
    relevance = Relevance.of(np.arange(n), n_pages=len(pages))
    return RetrievalData.of(queries, pages, relevance, hashes or [f"h{i}" for i in range(len(pages))], documents)


def plant(n, rng, turn, rows):
    """Noise in all layers; 2: signal in a turned subspace; 5: every neuron carries some; 7: signal in `rows`."""
    queries, pages = rng.normal(size=(2, n, L, D))
    few, other, wide = rng.normal(size=(n, SIGNAL)), rng.normal(size=(n, SIGNAL)), rng.normal(size=(n, D))
    for side in (queries, pages):
        straight = side[:, 2].copy()
        straight[:, :SIGNAL] = 1.5 * few + 0.3 * rng.normal(size=few.shape)
        side[:, 2] = straight @ turn
        side[:, 5] = 0.65 * wide + rng.normal(size=wide.shape)
        side[:, 7, rows] = 1.5 * other + 0.3 * rng.normal(size=other.shape)
    return judged(queries.astype(np.float32), pages.astype(np.float32))


@pytest.fixture(scope="session")
def planted(one_thread):
    """Train and validation with planted layers, and what the stage finds in them."""
    rng = np.random.default_rng(1)
    turn, rows = ortho_group.rvs(D, random_state=2), rng.permutation(D)[:SIGNAL]
    train, validation = plant(1300, rng, turn, rows), plant(300, rng, turn, rows)
    options = StudyOptions(
        start="identity",
        temperature=0.05,
        learning_rate=1e-3,
        gate_learning_rate=1e-2,
        batch_size=128,
        to_final=0.0,
        gate_l1=0.0,
        n_seeds=1,
        epochs=12,
        resamples=50,
    )
    found = study(train, validation, options)
    return SimpleNamespace(train=train, validation=validation, rows=rows, options=options, found=found)


@pytest.fixture
def small(rng, one_thread):
    """Forty queries and pages of three layers that share a little."""
    meaning = rng.normal(size=(40, 3, 6))
    sides = (meaning + 0.7 * rng.normal(size=meaning.shape) for _ in range(2))
    return judged(*(side.astype(np.float32) for side in sides))
