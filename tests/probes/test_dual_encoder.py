"""A dual encoder: each side's layers against the other side's final embedding, whatever the depths and widths."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from miner_diag.cka.distinct import DistinctItems
from miner_diag.probes import ProbeError, ProbeTrainOptions, RetrievalData, evaluate_probes, fit_probes, salience
from miner_diag.probes.retrieval_data import final_at_every_layer
from miner_diag.probes.splits import take_split
from miner_diag.probes.study import comparisons, raw_ndcg
from miner_diag.retrieval import Relevance, ndcg_at_k, score_all

N, MEANING = 300, 8
OPTIONS = ProbeTrainOptions(
    epochs=12, batch_size=50, start="identity", learning_rate=1e-2, temperature=0.05, to_final=0.0, gate_l1=0.0
)


@pytest.fixture(scope="module")
def encoders(one_thread):
    """Three layers of 12 for queries, five of 20 for pages; only the final ones share a space, of 8 coordinates."""
    rng = np.random.default_rng(5)
    turn = ortho_group.rvs(20, random_state=1).astype(np.float32)

    def split():
        meaning = rng.normal(size=(N, MEANING))
        queries, pages = rng.normal(size=(N, 3, 12)), rng.normal(size=(N, 5, 20))
        for side in (queries, pages):
            side[:, -1] = 0
            side[:, -1, :MEANING] = meaning + 0.3 * rng.normal(size=meaning.shape)
        pages[:, 2, :MEANING] = 3 * pages[:, -1, :MEANING]  # has it in other coordinates
        pages[:, 2] = pages[:, 2] @ turn
        return queries.astype(np.float32), pages.astype(np.float32)

    return SimpleNamespace(train=split(), validation=split())


def of_pages(sides):
    queries, pages = sides
    final = final_at_every_layer(queries[:, -1], *pages.shape[1:])
    return RetrievalData.of(final, pages, Relevance.of(np.arange(N), N), [str(n) for n in range(N)], fixed="query")


def of_queries(sides):
    queries, pages = sides
    final = final_at_every_layer(pages[:, -1], *queries.shape[1:])
    return RetrievalData.of(queries, final, Relevance.of(np.arange(N), N), [str(n) for n in range(N)], fixed="page")


def test_a_layer_of_one_encoder_is_set_against_the_other_ones_final_embedding(encoders):
    train, validation = of_pages(encoders.train), of_pages(encoders.validation)
    fitted = fit_probes(train, validation, OPTIONS, shared_layers=False)
    assert fitted.stack.gates.shape == (5, 1, 20)
    means = fitted.ndcg.mean(axis=2)
    assert means[1, 2] > 0.5 > 0.1 > means[:, [0, 1, 3]].max(), means
    assert means[0, 4] > 0.8  # the final layer itself


def test_the_fixed_side_passes_no_probe(encoders):
    """Scores are those of the probed side's vectors with the embeddings as they are."""
    validation = of_pages(encoders.validation)
    fitted = fit_probes(of_pages(encoders.train), validation, replace(OPTIONS, epochs=2), shared_layers=False)
    queries, pages = encoders.validation
    again = evaluate_probes(torch.from_numpy(fitted.stack.gates), torch.from_numpy(fitted.stack.weights), validation)
    for kind, name in enumerate(("base", "normalized_projection")):
        z = fitted.stack.probe(2, name).apply(pages[:, 2], "page")
        scores = score_all(np.pad(queries[:, -1], ((0, 0), (0, 8))), z)
        np.testing.assert_allclose(again[kind, 2], ndcg_at_k(scores, validation.relevance), atol=1e-9)
    base, projected = salience(fitted.stack, validation)
    np.testing.assert_allclose(base, np.abs(fitted.stack.gates[:, 0]), rtol=1e-6)
    assert (projected[:, MEANING:] < 1e-6).all()  # the embedding of the other side has nothing there


def test_either_side_can_be_probed_and_raw_final_layers_are_the_retriever(encoders):
    queries, pages = encoders.validation
    narrow = Relevance.of(np.arange(N), N)
    expected = ndcg_at_k(score_all(queries[:, -1, :MEANING], pages[:, -1, :MEANING]), narrow)
    for data in (of_pages(encoders.validation), of_queries(encoders.validation)):
        np.testing.assert_allclose(raw_ndcg(data)[-1], expected, atol=1e-9)


def test_layers_are_compared_with_their_own_encoders_final_one(encoders):
    for data, n_layers in ((of_pages(encoders.validation), 5), (of_queries(encoders.validation), 3)):
        all_items = DistinctItems.of(range(N))
        to_final, query_page = comparisons(data, all_items, all_items, False, 0.95)
        assert len(to_final) == n_layers and set(query_page) == {None}
        assert to_final[-1].cka.value == pytest.approx(1)


def test_two_probes_for_the_one_side_are_refused(encoders):
    data = of_pages(encoders.train)
    with pytest.raises(ProbeError, match="sides must be shared for a dual encoder, where only one side has a probe"):
        fit_probes(data, data, replace(OPTIONS, sides="per-side"), shared_layers=False)


def test_embeddings_that_share_no_space_are_refused(encoders):
    queries, _ = encoders.train
    with pytest.raises(ValueError, match="final embeddings are 12 wide, the layers to probe 6; scores between"):
        final_at_every_layer(queries[:, -1], 5, 6)
    assert final_at_every_layer(queries[:, -1], 5, 9).shape == (N, 5, 9)  # what is cut off is zero


@pytest.mark.parametrize(
    ("shared", "side", "message"),
    [
        (False, None, "some-model is a dual encoder, whose layers must not be paired: name"),
        (True, "page", "some-model has one stack of layers"),
    ],
)
def test_a_side_is_named_for_a_dual_encoder_and_only_there(shared, side, message):
    embedded = SimpleNamespace(backbone=SimpleNamespace(name="some-model", shared_layers=shared))
    with pytest.raises(ProbeError, match=message):
        take_split(embedded, None, "train", 4.0, side=side)
