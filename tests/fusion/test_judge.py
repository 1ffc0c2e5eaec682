"""What a difference is worth: hand-made p values, families, clusters, verdicts."""

import numpy as np
import pytest

from miner_diag.fusion import judge_systems
from miner_diag.fusion.judge import verdict
from miner_diag.stats import Interval


@pytest.fixture
def base(rng):
    """Ten queries: few enough that every sign pattern is counted, and all p values are known."""
    return rng.uniform(0.2, 0.6, size=(1, 10))


def judgements(values, **more):
    found = judge_systems(values, np.random.default_rng(0), **({"head": "head"} | more))
    return {judgement.name: judgement for judgement in found}


def test_p_values_and_families_by_hand(base, rng):
    up = rng.uniform(0.05, 0.3, size=(1, 10))
    found = judgements(
        {
            "backbone": base,
            "head": base + 0.1,
            "better": base + 0.1 + up,
            "worse": base - up,
            "same": base.copy(),
        }
    )
    # all ten differences have one sign: 2 of 1,024 patterns. Against the backbone four are compared, and three of them
    # have that p (times 4, 3, 2, made rising); "same" has 1
    for name in ("head", "better", "worse"):
        assert found[name].p_backbone == pytest.approx(4 * 2 / 1024)
    assert found["same"].p_backbone == 1.0
    # against the head three are compared (not the backbone): all of them differ from it in all queries
    for name in ("better", "worse", "same"):
        assert found[name].p_head == pytest.approx(3 * 2 / 1024)
    told = {name: (judgement.verdict, judgement.verdict_to_head) for name, judgement in found.items()}
    assert told == {
        "backbone": ("", ""),
        "head": ("better", ""),
        "better": ("better", "better"),
        "worse": ("worse", "worse"),
        "same": ("not distinguishable", "worse"),
    }


def test_the_backbone_has_no_difference_and_the_head_none_to_itself(base):
    found = judgements({"backbone": base, "head": base + 0.1})
    assert found["backbone"].to_backbone is None and found["backbone"].p_backbone is None
    assert found["backbone"].to_head is None and found["head"].to_head is None
    assert found["head"].to_backbone.value == pytest.approx(0.1)
    assert found["head"].p_backbone == pytest.approx(2 / 1024)  # a family of one


def test_systems_that_use_the_answers_are_shown_and_not_compared(base):
    values = {"backbone": base, "head": base + 0.1, "other": base + 0.2}
    plain = judgements(values)
    found = judgements(values | {"oracle": base + 0.4}, bounds=("oracle",))
    assert found["oracle"].ndcg.value == pytest.approx(base.mean() + 0.4)
    assert (found["oracle"].to_backbone, found["oracle"].p_backbone, found["oracle"].to_head) == (None, None, None)
    assert found["oracle"].verdict == found["oracle"].verdict_to_head == ""
    for name in values:  # and make no family larger
        assert (found[name].p_backbone, found[name].p_head) == (plain[name].p_backbone, plain[name].p_head)


def test_identical_systems_are_not_distinguishable(rng):
    values = rng.random((3, 80))
    found = judgements({"backbone": values[:1], "head": values[:1], "twin": values[:1]})
    for name in ("head", "twin"):
        judgement = found[name]
        assert judgement.verdict == "not distinguishable" and judgement.p_backbone == 1.0
        assert (judgement.to_backbone.low, judgement.to_backbone.value, judgement.to_backbone.high) == (0, 0, 0)
    assert found["twin"].verdict_to_head == "not distinguishable"


def test_noise_around_the_backbone_is_not_distinguishable_and_planted_differences_are(rng):
    base = rng.uniform(0.3, 0.7, size=(1, 300))
    noisy = lambda shift: base + shift + 0.15 * rng.normal(size=(5, 300))  # noqa: E731
    found = judgements(
        {"backbone": base, "head": noisy(0.0), "noise": noisy(0.0), "better": noisy(0.05), "worse": noisy(-0.05)}
    )
    told = {name: judgement.verdict for name, judgement in found.items()}
    assert told == {
        "backbone": "",
        "head": "not distinguishable",
        "noise": "not distinguishable",
        "better": "better",
        "worse": "worse",
    }
    assert found["better"].to_backbone.low > 0 > found["worse"].to_backbone.high
    assert found["better"].verdict_to_head == "better" and found["noise"].verdict_to_head == "not distinguishable"


def test_differences_are_of_means_over_seeds(rng):
    values = {"backbone": rng.random((1, 40)), "head": rng.random((3, 40)), "fusion": rng.random((5, 40))}
    found = judgements(values)
    for name in values:
        assert found[name].ndcg.value == pytest.approx(values[name].mean())
        assert found[name].ndcg.low <= found[name].ndcg.value <= found[name].ndcg.high
    assert found["fusion"].to_backbone.value == pytest.approx(values["fusion"].mean() - values["backbone"].mean())
    assert found["head"].to_backbone.n == 40


def test_difference_between_unequal_numbers_of_seeds_is_that_of_the_means(rng):
    values = {"backbone": rng.random((1, 40)), "head": rng.random((3, 40)), "fusion": rng.random((5, 40))}
    found = judgements(values)
    assert found["fusion"].to_head.value == pytest.approx(values["fusion"].mean() - values["head"].mean())


def test_clusters_are_what_is_resampled(base, rng):
    values = {"backbone": base, "head": base + rng.uniform(0.05, 0.3, size=(1, 10))}
    plain = judgements(values)["head"]
    clustered = judgements(values, clusters=["a"] * 5 + ["b"] * 5)["head"]
    assert plain.verdict == "better" and plain.to_backbone.n_clusters is None
    # two documents have four sign patterns, two of them as extreme: p = 1/2
    assert clustered.p_backbone == 0.5 and clustered.verdict == "not distinguishable"
    assert clustered.to_backbone.n_clusters == clustered.ndcg.n_clusters == 2
    assert clustered.to_backbone.value == pytest.approx(plain.to_backbone.value)


def test_documents_that_share_their_fortune_widen_the_interval(rng):
    documents = np.repeat(np.arange(12), 20)
    luck = rng.normal(0, 0.1, size=12)[documents]
    base = rng.uniform(0.3, 0.5, size=(1, 240))
    values = {"backbone": base, "head": base + luck + 0.02 * rng.normal(size=(2, 240))}
    width = lambda judgement: judgement.to_backbone.high - judgement.to_backbone.low  # noqa: E731
    plain, clustered = judgements(values)["head"], judgements(values, clusters=documents.astype(str))["head"]
    assert width(clustered) > 2 * width(plain)


def test_confidence_is_that_of_the_intervals(rng):
    values = {"backbone": rng.random((1, 40)), "head": rng.random((2, 40))}
    narrow, wide = (judgements(values, confidence=level)["head"] for level in (0.5, 0.99))
    assert (narrow.ndcg.confidence, wide.to_backbone.confidence) == (0.5, 0.99)
    assert narrow.to_backbone.high - narrow.to_backbone.low < wide.to_backbone.high - wide.to_backbone.low


def test_the_same_seed_gives_the_same_judgement(rng):
    values = {"backbone": rng.random((1, 40)), "head": rng.random((2, 40)), "fusion": rng.random((2, 40))}
    assert judgements(values) == judgements(values)


def test_verdicts_follow_the_adjusted_p_value():
    gain = Interval(0.1, 0.05, 0.2, 0.95, 10)
    loss = Interval(-0.1, -0.2, -0.05, 0.95, 10)
    assert (verdict(gain, 0.049), verdict(loss, 0.049)) == ("better", "worse")
    assert verdict(gain, 0.05) == "not distinguishable"
    assert verdict(None, None) == ""
