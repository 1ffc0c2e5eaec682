"""Where selection, patience and correlation are decided by an edge: equal worth, exactly delta, the last epoch."""

from dataclasses import replace

import numpy as np
import pytest

from miner_diag.probes import FusedScores, ProbeTrainOptions, SelectionRule, fit_probes, select
from miner_diag.probes.compare_kinds import correlate, spearman
from miner_diag.retrieval import Relevance
from tests.probes.helpers import retrieval_data


def one_of_two(right, n=4):
    """Scores [n, 2] of n queries that all ask for page 0: the first `right` find it, the others rank it second."""
    scores = np.tile(np.array([0.0, 1.0], dtype=np.float32), (n, 1))
    scores[:right] = [1.0, 0.0]
    return scores


def fused(*rights):
    layers = np.stack([one_of_two(right) for right in rights])
    return FusedScores(layers, Relevance.of(np.zeros(4, dtype=int), n_pages=2))


def test_greedy_does_not_take_a_layer_that_adds_nothing():
    assert select(fused(2, 2, 2), SelectionRule("greedy")) == [2]


def test_greedy_demands_more_than_the_gain_asked_for():
    # layer 0 lifts the sum from 2 of 4 queries in first place to 4 of 4: with the final layer wrong by less
    strong = np.stack([10 * one_of_two(4), one_of_two(2)])
    both = FusedScores(strong, Relevance.of(np.zeros(4, dtype=int), n_pages=2))
    gain = 1.0 - both.ndcg(frozenset([1])).mean()
    assert select(both, SelectionRule("greedy", min_gain=gain * 0.999, gain_confidence=0)) == [0, 1]
    assert select(both, SelectionRule("greedy", min_gain=gain)) == [1]


def test_within_delta_takes_a_layer_at_exactly_delta():
    three = fused(0, 2, 4)
    alone = [three.ndcg(frozenset([layer])).mean() for layer in range(3)]
    delta = alone[2] - alone[1]
    assert alone[1] >= alone[2] - delta  # no rounding in the way
    assert select(three, SelectionRule("within_delta", delta=delta)) == [1, 2]
    assert select(three, SelectionRule("within_delta", delta=delta * 0.999)) == [2]


def test_top_k_takes_the_later_of_two_equal_layers():
    assert select(fused(2, 2, 0, 4), SelectionRule("top_k", top_k=2)) == [1, 3]


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_probes_that_are_perfect_before_training_wait_for_patience_and_no_longer(one_thread, patience):
    vectors = np.repeat(np.eye(8, dtype=np.float32)[:, None], 2, axis=1)
    data = retrieval_data(vectors, vectors)
    options = ProbeTrainOptions(
        epochs=20, batch_size=8, start="identity", patience=patience, learning_rate=1e-5, gate_learning_rate=1e-5
    )
    fitted = fit_probes(data, data, options)
    assert (fitted.curve == 1).all() and (fitted.best_epoch == 0).all()
    assert len(fitted.loss) == patience
    assert len(fit_probes(data, data, replace(options, epochs=1)).loss) == 1


def test_a_correlation_over_documents_draws_documents(rng):
    """Two documents that disagree: a resample is one of them twice or both, so rho takes three values."""
    predictor = [0.1, 0.2, 0.3, 0.4]
    base = np.zeros((4, 40))
    up, down = np.array([0.1, 0.4, 0.7, 1.0]), np.array([0.2, 0.1, 0.0, -0.1])
    projected = np.repeat(np.stack([up, down], axis=1), 20, axis=1) + 0.01 * rng.normal(size=(4, 40))
    ndcg, clusters = np.stack([base, projected]), ["up"] * 20 + ["down"] * 20
    got = correlate("ratio", predictor, ndcg, np.random.default_rng(0), clusters=clusters, n_resamples=200)
    means = [projected[:, :20].mean(axis=1), projected[:, 20:].mean(axis=1), projected.mean(axis=1)]
    possible = [spearman(np.array(predictor), mean) for mean in means]
    assert (got.rho.low, got.rho.high) == (min(possible), max(possible)) == (-1, 1)
    assert (got.rho.n, got.rho.n_clusters) == (40, 2)
    alone = correlate("ratio", predictor, ndcg, np.random.default_rng(0), n_resamples=200)
    assert (alone.rho.low, alone.rho.high, alone.rho.n_clusters) == (1, 1, None)  # half of the queries says: up


def test_spearman_takes_mean_ranks_of_ties_and_keeps_its_sign():
    x, y = np.array([1.0, 2.0, 2.0, 4.0]), np.array([4.0, 1.0, 2.0, 3.0])
    ranks = np.array([1, 2.5, 2.5, 4]), np.array([4, 1, 2, 3])
    assert spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
