"""The loss of probes by hand: InfoNCE both ways, temperature, masked cells, and both penalties."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from miner_diag.probes import ProbeTrainOptions
from miner_diag.probes.train import _loss, _Parameters
from tests.probes.helpers import retrieval_data

PLAIN = ProbeTrainOptions(start="identity", temperature=0.3, gate_l1=0.0, to_final=0.0)
ROWS = np.arange(4), np.arange(4)


@pytest.fixture
def four(rng, one_thread):
    return retrieval_data(*rng.normal(size=(2, 4, 3, 5)).astype(np.float32))


def loss_of(data, options, known=None, gates=None):
    parameters = _Parameters(data, options, 1, np.random.default_rng(0), "cpu")
    if gates is not None:
        with torch.no_grad():
            parameters.gates.copy_(torch.from_numpy(gates))
    known = np.eye(4, dtype=bool) if known is None else known
    loss, penalty = _loss(parameters, data, ROWS, known, options, "cpu")
    return loss.detach().numpy(), float(penalty.detach())


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def by_loops(queries, pages, temperature, hidden):
    """Mean over pairs of -log softmax, each query against pages and each page against queries, halved."""
    cells = np.exp(unit(queries) @ unit(pages).T / temperature) * ~hidden
    terms = [-np.log(cells[i, i] / cells[i].sum()) - np.log(cells[i, i] / cells[:, i].sum()) for i in range(len(cells))]
    return 0.5 * np.mean(terms)


@pytest.mark.parametrize("temperature", [0.3, 1.7])
def test_infonce_both_ways_with_masked_cells(four, temperature):
    known = np.eye(4, dtype=bool)
    known[0, 2] = known[3, 1] = True
    loss, penalty = loss_of(four, replace(PLAIN, temperature=temperature), known)
    hidden = known & ~np.eye(4, dtype=bool)
    for layer in range(3):
        queries, pages = (side[:, layer].astype(np.float64) for side in (four.queries, four.pages))
        assert loss[0, layer] == pytest.approx(by_loops(queries, pages, temperature, hidden), rel=1e-5)
        queries, pages = (side - side.mean(axis=1, keepdims=True) for side in (queries, pages))  # LayerNorm
        assert loss[1, layer] == pytest.approx(by_loops(queries, pages, temperature, hidden), rel=1e-5)
    assert penalty == 0


def test_the_penalty_of_gates_is_l1_over_l2_whatever_their_size(four):
    gates = np.random.default_rng(4).normal(size=(3, 1, 5)).astype(np.float32)
    wanted = sum(np.abs(gate).mean() / np.sqrt(np.square(gate).mean()) for gate in gates[:, 0])
    for scale in (1, 10):
        assert loss_of(four, replace(PLAIN, gate_l1=0.7), gates=scale * gates)[1] == pytest.approx(
            0.7 * wanted, rel=1e-5
        )


def test_the_penalty_to_final_is_one_less_the_cosine_with_the_items_own_embedding(four):
    wanted = 0.0
    for side in (four.queries.astype(np.float64), four.pages.astype(np.float64)):
        for layer in range(3):
            for states in (side[:, layer], side[:, layer] - side[:, layer].mean(axis=1, keepdims=True)):
                wanted += 0.5 * (1 - (unit(states) * unit(side[:, -1])).sum(axis=1)).mean()
    assert loss_of(four, replace(PLAIN, to_final=0.4))[1] == pytest.approx(0.4 * wanted, rel=1e-5)
