import numpy as np
import pytest

from miner_diag.probes import FusedScores, SelectionRule, select, stability
from miner_diag.retrieval import Relevance


def scores_of(quality, rng, n=60):
    """Score matrices [L, n, n] whose diagonal, the true pairs, stands out by `quality`."""
    return np.stack([rng.normal(size=(n, n)) + q * np.eye(n) for q in quality]).astype(np.float32)


@pytest.fixture
def fused(rng):
    # layers 0 and 3 add to the final layer 4; 1 and 2 are noise
    return FusedScores(scores_of([2.0, 0.0, 0.0, 2.5, 2.0], rng), Relevance.of(np.arange(60), n_pages=60))


def test_greedy_takes_what_adds_and_leaves_noise(fused):
    assert select(fused, SelectionRule("greedy")) == [0, 3, 4]
    assert select(fused, SelectionRule("greedy", min_gain=1.0)) == [4]


def test_greedy_takes_no_layer_whose_gain_may_be_noise(rng):
    """The gain lies in one document of ten: an interval over documents holds 0, one over its queries does not."""
    scores = scores_of([1.5, 3.0], rng)
    scores[0, 12:] = 0.0  # beyond the first two documents of six queries the inner layer says nothing
    relevance = Relevance.of(np.arange(60), n_pages=60)
    documents = [f"d{row // 6}" for row in range(60)]
    by_query, by_document = (FusedScores(scores, relevance, clusters) for clusters in (None, documents))
    lenient = SelectionRule("greedy", gain_confidence=0)
    assert select(by_query, lenient) == select(by_document, lenient) == [0, 1]
    assert select(by_document, SelectionRule("greedy")) == [1]
    # one document has no spread of its own
    assert select(FusedScores(scores, relevance, ["d"] * 60), SelectionRule("greedy")) == [1]


def test_top_k_and_within_delta_keep_the_final_layer(fused):
    assert select(fused, SelectionRule("top_k", top_k=1)) == [4]
    assert select(fused, SelectionRule("top_k", top_k=2)) == [3, 4]
    assert select(fused, SelectionRule("within_delta", delta=0.3)) == [0, 3, 4]
    assert select(fused, SelectionRule("within_delta", delta=1.0)) == [0, 1, 2, 3, 4]


def test_the_final_layer_stays_even_where_it_is_noise(rng):
    fused = FusedScores(scores_of([3.0, 0.0], rng), Relevance.of(np.arange(60), n_pages=60))
    for rule in ("top_k", "within_delta", "greedy"):
        assert 1 in select(fused, SelectionRule(rule, **({"top_k": 1} if rule == "top_k" else {})))


def test_fused_score_is_the_sum(fused):
    alone = FusedScores(fused.scores[[0, 4]].sum(axis=0, keepdims=True), fused.relevance)
    np.testing.assert_array_equal(fused.ndcg(frozenset([0, 4])), alone.ndcg(frozenset([0])))


def test_resampling_weights_are_repeated_queries(fused, rng):
    drawn = rng.integers(0, 60, 60)
    weights = np.bincount(drawn, minlength=60).astype(float)
    repeated = FusedScores(fused.scores[:, drawn], Relevance.of(drawn, n_pages=60))
    for rule in ("top_k", "within_delta", "greedy"):
        assert select(fused, SelectionRule(rule), weights) == select(repeated, SelectionRule(rule))


def test_stability_of_a_clear_choice_and_of_a_toss(fused, rng):
    sure = stability([fused, fused], SelectionRule("greedy"), rng, n_resamples=20)
    assert (sure.frequency[[0, 3, 4]] >= 0.9).all() and sure.frequency[[1, 2]].max() < 0.7
    assert (sure.n_resamples, sure.n_seeds, sure.by_seed) == (20, 2, ((0, 3, 4), (0, 3, 4)))
    noise = FusedScores(scores_of([0.0] * 4, rng), fused.relevance)
    toss = stability([noise], SelectionRule("top_k", top_k=2), rng, n_resamples=50)
    assert toss.frequency[3] == 1.0 and toss.frequency.sum() == pytest.approx(2)
    assert toss.frequency[:3].max() < 1.0


def test_documents_are_drawn_whole(fused, rng):
    """With two documents, a resample is one of three: either twice, or both."""
    of_two = FusedScores(fused.scores, fused.relevance, ("a",) * 30 + ("b",) * 30)
    stable = stability([of_two], SelectionRule("within_delta"), rng, n_resamples=30)
    possible = {tuple(select(fused, SelectionRule("within_delta"), np.repeat(w, 30))) for w in ([2, 0], [1, 1], [0, 2])}
    assert len(possible) <= 3 and stable.frequency[4] == 1.0


def test_options_out_of_range_are_named(fused):
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        SelectionRule(top_k=0)
    with pytest.raises(ValueError, match="delta and min_gain must be at least 0"):
        SelectionRule(delta=-0.1)
    with pytest.raises(ValueError, match="top_k is an option of rule top_k and has no effect with rule greedy; leave"):
        SelectionRule(top_k=2)
    with pytest.raises(ValueError, match="min_gain is an option of rule greedy and has no effect with rule top_k"):
        SelectionRule("top_k", min_gain=0.1)
    with pytest.raises(ValueError, match="top_k must be at most the number of layers, 5; got 6"):
        select(fused, SelectionRule("top_k", top_k=6))
