from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ortho_group

from miner_diag.probes import ProbeTrainOptions, StudyOptions, run_study
from tests.handbooks import save_retriever, write_handbooks
from tests.probes.helpers import SIGNAL, D, plant, retrieval_data


@pytest.fixture(scope="session")
def planted(one_thread):
    """Train and validation with planted layers, and what the stage finds in them."""
    rng = np.random.default_rng(1)
    turn, rows = ortho_group.rvs(D, random_state=2), rng.permutation(D)[:SIGNAL]
    train, validation = plant(1300, rng, turn, rows), plant(300, rng, turn, rows)
    training = ProbeTrainOptions(
        start="identity",
        temperature=0.05,
        learning_rate=1e-3,
        gate_learning_rate=1e-2,
        batch_size=128,
        to_final=0.0,
        gate_l1=0.0,
        epochs=12,
    )
    result = run_study(train, validation, StudyOptions(training=training, resamples=50), n_seeds=1)
    return SimpleNamespace(train=train, validation=validation, rows=rows, study=result)


@pytest.fixture
def small(rng, one_thread):
    """Forty queries and pages of three layers that share a little."""
    meaning = rng.normal(size=(40, 3, 6))
    sides = (meaning + 0.7 * rng.normal(size=meaning.shape) for _ in range(2))
    return retrieval_data(*(side.astype(np.float32) for side in sides))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small retriever of four hidden states."""
    return save_retriever(tmp_path_factory.mktemp("retrievers") / "small-bert")


@pytest.fixture(scope="session")
def documents(tmp_path_factory):
    """Twenty handbooks of five pages."""
    return write_handbooks(tmp_path_factory.mktemp("documents") / "handbooks")
