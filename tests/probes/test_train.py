from dataclasses import replace

import numpy as np
import pytest
import torch

from miner_diag.probes import ProbeError, ProbeTrainOptions, RetrievalData, evaluate_probes, fit_probes
from miner_diag.probes.study import raw_ndcg
from miner_diag.retrieval import Relevance, ndcg_at_k, score_all
from tests.probes.helpers import only

QUICK = ProbeTrainOptions(
    epochs=4,
    batch_size=10,
    start="identity",
    learning_rate=1e-3,
    temperature=0.05,
    gate_learning_rate=1e-2,
    to_final=0.0,
    gate_l1=0.0,
)


def test_training_together_is_training_alone(small):
    """All layers in one batched problem give each probe what it would get by itself."""
    together = fit_probes(small, small, QUICK)
    for layer in range(3):
        alone = fit_probes(only(small, layer), only(small, layer), QUICK)
        np.testing.assert_allclose(together.last.gates[layer], alone.last.gates[0], atol=2e-5)
        np.testing.assert_allclose(together.last.weights[layer], alone.last.weights[0], atol=2e-4)
        np.testing.assert_allclose(together.curve[:, :, layer], alone.curve[:, :, 0], atol=1e-3)


def test_training_is_repeatable_and_the_seed_matters(small):
    first, again = fit_probes(small, small, QUICK), fit_probes(small, small, QUICK)
    np.testing.assert_array_equal(first.last.weights, again.last.weights)
    other = fit_probes(small, small, QUICK, seed=1)
    assert np.abs(first.last.weights - other.last.weights).max() > 0


def test_before_training_the_base_probe_is_the_raw_layer(small):
    raw = raw_ndcg(small)
    relevance = Relevance.of(np.arange(40), n_pages=40)
    for layer in range(3):
        expected = ndcg_at_k(score_all(small.queries[:, layer], small.pages[:, layer]), relevance)
        np.testing.assert_allclose(raw[layer], expected, atol=1e-12)
    untrained = fit_probes(small, small, replace(QUICK, epochs=0))
    np.testing.assert_allclose(untrained.ndcg[0], raw, atol=1e-12)
    assert untrained.n_steps == 0 and untrained.loss.shape == (0, 2, 3)


def test_what_is_kept_is_the_best_epoch_and_its_numbers_are_the_probes_own(small):
    fitted = fit_probes(small, small, QUICK)
    np.testing.assert_allclose(fitted.ndcg.mean(axis=2), fitted.curve.max(axis=0), atol=1e-12)
    np.testing.assert_array_equal(fitted.best_epoch, fitted.curve.argmax(axis=0))
    again = evaluate_probes(torch.from_numpy(fitted.stack.gates), torch.from_numpy(fitted.stack.weights), small)
    np.testing.assert_allclose(again, fitted.ndcg, atol=1e-9)
    for kind, name in enumerate(("base", "normalized_projection")):
        probe = fitted.stack.probe(1, name)
        scores = score_all(probe.apply(small.queries[:, 1], "query"), probe.apply(small.pages[:, 1], "page"))
        np.testing.assert_allclose(ndcg_at_k(scores, small.relevance), fitted.ndcg[kind, 1], atol=1e-9)


def test_stops_when_nothing_gets_better(small, rng):
    broken = small.shuffled(rng)
    fitted = fit_probes(small, broken, replace(QUICK, epochs=200, patience=2))
    assert len(fitted.loss) < 200
    assert (len(fitted.loss) - fitted.best_epoch >= 2).all()


def test_training_ends_when_the_last_probe_has_waited_and_until_then_all_are_evaluated(small, rng):
    fitted = fit_probes(small, small.shuffled(rng), replace(QUICK, epochs=200, patience=3, learning_rate=1e-2))
    n_epochs = len(fitted.loss)
    assert n_epochs == fitted.best_epoch.max() + 3 < 200
    assert fitted.best_epoch.min() + 3 < n_epochs  # some had waited long before
    assert fitted.curve.shape == (n_epochs + 1, 2, 3) and fitted.loss.shape == (n_epochs, 2, 3)
    np.testing.assert_array_equal(fitted.best_epoch, fitted.curve.argmax(axis=0))  # a late rise counts, too


def test_another_start_keeps_the_ridge_for_least_squares_alone():
    options = ProbeTrainOptions(ridge=0.5, epochs=7)
    assert options.with_start("least_squares") == options
    assert options.with_start("orthogonal") == ProbeTrainOptions(start="orthogonal", epochs=7)


def test_training_helps_the_training_pairs(small):
    fitted = fit_probes(small, small, replace(QUICK, epochs=30, patience=30))
    assert (fitted.loss[-1].mean(axis=1) < fitted.loss[0].mean(axis=1)).all()
    assert (fitted.curve[-1, 1] > fitted.curve[0, 1]).all()


def test_pages_that_answer_the_query_are_masked_and_counted(rng, one_thread):
    # two queries a page, and pages 2 and 3 look the same: in a batch of all 8 pairs, each query of pages 0 and 1 has
    # one other cell of its own page, each of the four queries of pages 2 and 3 has three: 4 * 1 + 4 * 3 = 16
    vectors = rng.normal(size=(8, 2, 5)).astype(np.float32)
    relevance = Relevance.of(np.repeat(np.arange(4), 2), n_pages=4)
    data = RetrievalData.of(vectors, vectors[:4], relevance, ["a", "b", "c", "c"])
    fitted = fit_probes(data, data, replace(QUICK, epochs=1, batch_size=8))
    assert fitted.n_steps == 1
    assert (fitted.n_masked, fitted.n_negatives) == (16, 8 * 7 - 16)


def test_masking_keeps_equal_pages_from_being_pushed_apart(rng, one_thread):
    """Twelve queries, all of one page: every other cell is masked, so there is nothing to learn."""
    vectors = rng.normal(size=(12, 2, 5)).astype(np.float32)
    pages = np.concatenate([vectors[:1], rng.normal(size=(3, 2, 5)).astype(np.float32)])
    data = RetrievalData.of(vectors, pages, Relevance.of(np.zeros(12, dtype=int), n_pages=4), list("abcd"))
    fitted = fit_probes(data, data, replace(QUICK, epochs=2, batch_size=12, weight_decay=0.0))
    assert fitted.loss == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(fitted.last.gates, 1.0, atol=1e-6)


@pytest.mark.parametrize("options", [{"rank": 2}, {"sides": "per-side"}, {"gate_l1": 1.0}, {"to_final": 1.0}])
def test_options_do_what_they_say(small, options):
    plain, fitted = (fit_probes(small, small, replace(QUICK, **more)) for more in ({}, options))
    if "rank" in options:
        assert (np.linalg.matrix_rank(fitted.last.weights[:, 0], tol=1e-4) == 2).all()
    elif "sides" in options:
        assert fitted.last.gates.shape == (3, 2, 6) and fitted.last.weights.shape == (3, 2, 6, 6)
        assert np.abs(fitted.last.gates[:, 0] - fitted.last.gates[:, 1]).max() > 0
    elif "gate_l1" in options:
        assert (spread(fitted.last.gates) > spread(plain.last.gates)).all()
    else:
        assert (to_final(fitted.last, small) > to_final(plain.last, small))[:-1].all()


def spread(gates):
    """L2 over L1: larger where fewer gates carry the weight."""
    return (np.sqrt((gates**2).mean(axis=-1)) / np.abs(gates).mean(axis=-1))[:, 0]


def to_final(stack, data):
    final = data.pages[:, -1] / np.linalg.norm(data.pages[:, -1], axis=1, keepdims=True)
    z = [stack.probe(layer, "normalized_projection").apply(data.pages[:, layer]) for layer in range(3)]
    return np.array([(outputs * final).sum(axis=1).mean() for outputs in z])


def test_a_loss_that_is_not_finite_names_layer_kind_and_step(small):
    spoilt = small.queries.copy()
    spoilt[:, 1] = np.nan
    with pytest.raises(
        ProbeError, match=r"loss of the base probe of layer 1 is nan at step 1; lower its learning rate"
    ):
        fit_probes(replace(small, queries=spoilt), small, QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0; got nan"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"patience": 0}, "patience must be at least 1; got 0"),
        ({"gate_l1": -1.0}, "gate_l1 must be at least 0; got -1.0"),
        ({"start": "least_squares", "ridge": 0.0}, "ridge must be above 0"),
        ({"start": "identity", "ridge": 0.5}, "ridge is an option of start least_squares and has no effect with start"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ProbeTrainOptions(**options)


def test_bad_inputs_are_named(small):
    with pytest.raises(ProbeError, match="rank must be at most the width, 6; got 7"):
        fit_probes(small, small, replace(QUICK, rank=7))
    with pytest.raises(ProbeError, match="different things in a dual encoder; probe one side against"):
        fit_probes(small, small, QUICK, shared_layers=False)
    with pytest.raises(ProbeError, match=r"same layers and width; got \[3, 6\] and \[1, 6\]"):
        fit_probes(small, only(small, 0), QUICK)
    with pytest.raises(ValueError, match="queries and pages must have the same layers and width"):
        replace(small, queries=small.queries[:, :2])
