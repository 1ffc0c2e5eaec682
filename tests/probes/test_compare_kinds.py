import numpy as np
import pytest

from miner_diag.probes import best_threshold, compare_kinds, correlate, predicted_kinds, score_rule
from miner_diag.probes.compare_kinds import THRESHOLDS, KindVerdict, left_out_hits, spearman
from miner_diag.stats import Interval


def verdicts(*benefits, sure=True):
    rows = []
    for layer, benefit in enumerate(benefits):
        preferred = None if not sure or not benefit else ("normalized_projection" if benefit > 0 else "base")
        rows.append(KindVerdict(layer, Interval(benefit, benefit, benefit, 0.95, 9), 0.01, preferred))
    return rows


def test_the_kind_is_the_tests_and_base_where_it_has_none(rng):
    better = rng.random((3, 200))
    ndcg = np.stack(
        [
            np.array([better[0] - 0.2, better[1], better[2]]),
            np.array([better[0], better[1] - 0.2, rng.permutation(better[2])]),
        ]
    )
    compared = compare_kinds(ndcg, rng)
    assert [v.preferred for v in compared] == ["normalized_projection", "base", None]
    assert [v.chosen for v in compared] == ["normalized_projection", "base", "base"]
    assert compared[0].benefit.value == pytest.approx(0.2) and compared[0].p_holm < 0.01


def test_few_documents_can_decide_less_than_many_queries(rng):
    ndcg = np.stack([np.full((1, 40), 0.4), np.full((1, 40), 0.5) + 0.01 * rng.normal(size=(1, 40))])
    assert compare_kinds(ndcg, rng)[0].preferred == "normalized_projection"
    # four documents: 2 of 16 sign patterns are as extreme, p = 0.125
    grouped = compare_kinds(ndcg, rng, clusters=[f"d{i % 4}" for i in range(40)])[0]
    assert grouped.p_holm == pytest.approx(0.125) and grouped.preferred is None


def test_predicted_kinds():
    assert predicted_kinds([0.4, 0.5, None, 1.0], 0.5) == [
        "normalized_projection",
        "base",
        "normalized_projection",
        "base",
    ]


def test_rule_by_hand():
    compared = verdicts(0.1, -0.02, 0.0, 0.04)
    # base named for layers 1 and 3: right at 0 and 1, wrong at 3, which loses 0.04 of four layers
    score = score_rule([0.2, 0.8, 0.3, 0.9], compared, 0.5)
    assert (score.hits, score.n) == (2, 3)
    assert score.loss == pytest.approx(0.04 / 4)


def test_best_threshold_separates_where_it_can():
    compared = verdicts(0.1, 0.1, -0.1, -0.1)
    best = best_threshold([0.7, 0.8, 1.1, 1.2], compared)
    assert (best.hits, best.n) == (4, 4) and 0.8 < best.threshold <= 1.1
    assert THRESHOLDS[0] == 0.1 and THRESHOLDS[-1] == 1.5
    # a wide gap is found whichever layer is left out; without 0.8, the threshold between 0.7 and 1.1 sinks below it
    assert left_out_hits([0.1, 0.12, 1.4, 1.5], compared) == (4, 4)
    assert left_out_hits([0.7, 0.8, 1.1, 1.2], compared) == (3, 4)


def test_left_out_hits_are_less_flattering(rng):
    """Ratios that know nothing: the best threshold looks good on its own layers and not on the one left out."""
    own = out = 0
    for _ in range(30):
        ratios, compared = rng.random(6).tolist(), verdicts(*(0.1 * rng.choice([-1, 1], 6)))
        own += best_threshold(ratios, compared).hits
        out += left_out_hits(ratios, compared)[0]
    assert own > out + 20


def test_correlation_of_a_predictor_that_knows_and_one_that_does_not(rng):
    benefit = np.array([0.5, 0.4, 0.3, 0.2, 0.1])
    ndcg = np.stack([np.zeros((5, 300)), benefit[:, None] + 0.02 * rng.normal(size=(5, 300))])
    knows = correlate("ratio", [0.1, 0.2, 0.3, 0.4, 0.5], ndcg, rng)
    assert knows.rho.value == -1 and knows.rho.high < -0.9
    assert knows.p_value == pytest.approx(2 / 120)  # of 5! orders, this one and its reverse
    idle = correlate("ratio", [0.3, 0.1, 0.5, 0.2, 0.4], ndcg, rng)
    assert idle.p_value > 0.3


def test_correlation_does_not_exist_for_a_constant_or_two_layers(rng):
    ndcg = rng.random((2, 4, 20))
    assert correlate("x", [1.0] * 4, ndcg, rng) is None
    assert correlate("x", [1.0, None, 2.0, None], ndcg, rng) is None
    assert correlate("x", [1.0, 2.0, 3.0, 4.0], np.stack([ndcg[0], ndcg[0]]), rng) is None


def test_spearman_with_ties_by_hand():
    # ranks of x: 1.5, 1.5, 3; of y: 1, 2, 3; covariance 1.5, norms sqrt(1.5) and sqrt(2)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1.5 / np.sqrt(3), abs=1e-9)


def test_many_layers_are_permuted_at_random(rng):
    ndcg = np.stack([np.zeros((12, 50)), np.linspace(0, 1, 12)[:, None] + np.zeros((12, 50))])
    # 2 of 12! orders are as extreme, so none is drawn; the order seen counts with the 10,000 drawn ones
    assert correlate("x", list(range(12)), ndcg, rng).p_value == pytest.approx(1 / 10_001, rel=1e-12)
