"""What a difference is worth: hand-made p values, families, clusters, verdicts, and independence of the company."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.evaluation import EvaluationError, SystemValues, compare_systems
from miner_diag.evaluation.compare import ALPHA, verdict
from miner_diag.stats import StatisticsOptions, smallest_detectable

DEFAULTS = StatisticsOptions()


def system(name, values, backbone="backbone", head=None, role=None):
    roles = {"backbone": "backbone", "head": "head", "fusion": "fusion"}
    return SystemValues(name, role or roles.get(name, "baseline"), np.asarray(values, dtype=float), backbone, head)


def systems_of(values, bounds=()):
    """A backbone, a head, and others, as one fusion run has them."""
    made = []
    for name, table in values.items():
        if name in ("backbone", *bounds):
            made.append(system(name, table, None, None, "bound" if name in bounds else "backbone"))
        else:
            made.append(system(name, table, "backbone", None if name == "head" else "head"))
    return made


def compare(values, *, bounds=(), clusters=None, statistics=DEFAULTS):
    return compare_systems(systems_of(values, bounds), clusters=clusters, statistics=statistics)


@pytest.fixture
def base(rng):
    """Ten queries: few enough that every sign pattern is counted, and all p values are known."""
    return rng.uniform(0.2, 0.6, size=(1, 10))


# --- hand-derived numbers


def test_p_values_and_families_by_hand(base, rng):
    up = rng.uniform(0.05, 0.3, size=(1, 10))
    result = compare(
        {
            "backbone": base,
            "head": base + 0.1,
            "fusion": base + 0.1 + up,
            "worse": base - up,
            "same": base.copy(),
        }
    )
    # all ten differences have one sign: 2 of 1,024 patterns are as extreme. The two of the fusion are one family
    one_sign = 2 / 1024
    fusion = result["fusion"]
    assert (fusion.to_backbone.p_value, fusion.to_head.p_value) == (one_sign, one_sign)
    assert (fusion.to_backbone.p_holm, fusion.to_head.p_holm) == (2 * one_sign, 2 * one_sign)
    assert fusion.to_backbone.family == fusion.to_head.family == "headline"
    # the head that the others are compared with is a family of its own here
    assert (result["head"].to_backbone.p_holm, result["head"].to_backbone.family) == (one_sign, "context")
    # ablation: worse to backbone, worse to head, same to backbone (1), same to head
    for difference in (result["worse"].to_backbone, result["worse"].to_head, result["same"].to_head):
        assert difference.p_value == one_sign and difference.p_holm == pytest.approx(4 * one_sign)
        assert difference.family == "ablation"
    assert result["same"].to_backbone.p_value == result["same"].to_backbone.p_holm == 1.0
    assert result.families == {"headline": 2, "context": 1, "ablation": 4}
    assert {s.name: (s.verdict, s.verdict_to_head) for s in result.systems} == {
        "backbone": ("", ""),
        "head": ("better", ""),
        "fusion": ("better", "better"),
        "worse": ("worse", "worse"),
        "same": ("not distinguishable", "worse"),
    }


def test_every_fusion_of_a_call_is_in_the_headline_family(base):
    made = []
    for model, gain in (("a", 0.1), ("b", 0.2)):
        made += [
            SystemValues(f"{model}/backbone", "backbone", base),
            SystemValues(f"{model}/head", "head", base + 0.05, f"{model}/backbone"),
            SystemValues(f"{model}/fusion", "fusion", base + gain, f"{model}/backbone", f"{model}/head"),
            SystemValues(f"{model}-late", "late", base + 0.3, f"{model}/backbone"),
        ]
    result = compare_systems(made, clusters=None, statistics=DEFAULTS)
    assert result.families == {"headline": 4, "context": 4}  # two heads and two late-interaction retrievers
    assert result["a/fusion"].to_backbone.p_holm == pytest.approx(4 * 2 / 1024)
    assert result["b-late"].to_backbone.family == "context"


def test_the_detectable_difference_is_that_of_the_means_over_seeds_and_does_not_depend_on_the_gain(base, rng):
    wave = rng.normal(0, 0.1, size=(2, 10))
    values = {"backbone": base, "up": base + 0.3 + wave, "down": base - 0.3 + wave, "same": base.copy()}
    result = compare(values | {"head": base + 0.1})
    expected = smallest_detectable(wave.mean(axis=0))
    for name in ("up", "down"):
        assert result[name].to_backbone.detectable == pytest.approx(expected)
        assert result[name].to_head.detectable == pytest.approx(expected)
    assert result["same"].to_backbone.detectable is None
    documents = list("aabbccddee")  # the least p of five documents is 2 / 32: no difference is found, however large
    assert compare(values | {"head": base}, clusters=documents)["up"].to_backbone.detectable is None
    assert (
        compare({name: table[:, :1] for name, table in values.items()} | {"head": base[:, :1]})[
            "up"
        ].to_backbone.detectable
        is None
    )


def test_the_backbone_has_no_difference_and_the_head_none_to_itself(base):
    result = compare({"backbone": base, "head": base + 0.1})
    assert result["backbone"].to_backbone is None and result["backbone"].to_head is None
    assert result["head"].to_head is None
    assert result["head"].to_backbone.value == pytest.approx(0.1)
    assert result["head"].to_backbone.other == "backbone"


def test_bounds_are_shown_and_not_compared(base):
    values = {"backbone": base, "head": base + 0.1, "other": base + 0.2}
    plain, with_bound = compare(values), compare(values | {"oracle": base + 0.4}, bounds=("oracle",))
    assert with_bound["oracle"].value == pytest.approx(base.mean() + 0.4)
    assert with_bound["oracle"].to_backbone is None and with_bound["oracle"].to_head is None
    assert with_bound["oracle"].verdict == with_bound["oracle"].verdict_to_head == ""
    assert with_bound.families == plain.families  # and make no family larger
    for name in values:
        assert with_bound[name] == plain[name]


def test_the_caption_states_families_and_what_intervals_are_over(base):
    values = {"backbone": base, "head": base + 0.1, "fusion": base + 0.2, "no_bias": base}
    documents = ["a"] * 5 + ["b"] * 3 + ["c"] * 2
    caption = compare(values, clusters=documents).caption()
    for words in (
        "95% intervals",
        "over 3 documents",
        "and over seeds",
        "headline (the fusion with its backbone and with its head, for every fusion): 2 comparisons",
        "ablation (every other system with backbone and head): 2 comparisons",
        "further retrievers with the backbone): 1 comparison;",
    ):
        assert words in caption, words
    assert "over 10 single queries" in compare(values).caption()
    assert "Nothing is compared" in compare({"backbone": base}).caption()


def test_documents_and_kishs_effective_number_stand_side_by_side(base):
    """(5 + 3 + 2)^2 / (25 + 9 + 4) = 100 / 38."""
    result = compare({"backbone": base}, clusters=["a"] * 5 + ["b"] * 3 + ["c"] * 2)
    assert result.n_documents == 3
    assert result.effective_documents == pytest.approx(100 / 38)
    assert "effective number 2.6" in result.over


# --- what a row says does not depend on the other rows


def rows_of(result):
    """Everything but what depends on the family."""
    return {
        system.name: (
            system.value,
            system.interval,
            [
                None if d is None else (d.other, d.value, d.interval, d.p_value, d.family)
                for d in (system.to_backbone, system.to_head)
            ],
        )
        for system in result.systems
    }


@settings(deadline=None, max_examples=20)
@given(
    order=st.permutations(["backbone", "head", "fusion", "no_bias", "one_seed", "oracle"]),
    dropped=st.sets(st.sampled_from(["fusion", "no_bias", "one_seed", "oracle"])),
    by_document=st.booleans(),
)
def test_permuting_and_dropping_systems_changes_nothing(order, dropped, by_document):
    rng = np.random.default_rng(4)
    table = {
        "backbone": rng.random((1, 30)),
        "head": rng.random((3, 30)),
        "fusion": rng.random((3, 30)),
        "no_bias": rng.random((2, 30)),
        "one_seed": rng.random((1, 30)),
        "oracle": rng.random((1, 30)),
    }
    clusters = [f"d{number // 4}" for number in range(30)] if by_document else None
    everything = rows_of(compare(table, bounds=("oracle",), clusters=clusters))
    kept = {name: table[name] for name in order if name not in dropped}
    of_kept = rows_of(compare(kept, bounds=("oracle",), clusters=clusters))
    if {"fusion", "no_bias", "one_seed"} <= dropped:  # then no system names a head, and this one is not a chosen one
        everything.pop("head")
        of_kept.pop("head")
    assert of_kept == {name: everything[name] for name in of_kept}


def test_the_adjusted_p_value_depends_on_its_own_family_only(base, rng):
    values = {"backbone": base, "head": base + 0.1, "fusion": base + rng.uniform(0.1, 0.3, (1, 10)), "a": base - 0.1}
    more = values | {f"row {number}": base + rng.normal(size=(1, 10)) for number in range(5)}
    small, large = compare(values), compare(more)
    assert small["fusion"] == large["fusion"] and small["head"] == large["head"]
    assert large["a"].to_backbone.p_holm > small["a"].to_backbone.p_holm
    assert large["a"].to_backbone.p_value == small["a"].to_backbone.p_value


def test_the_seed_is_that_of_the_options(rng):
    values = {"backbone": rng.random((1, 40)), "head": rng.random((2, 40)), "fusion": rng.random((2, 40))}
    same, other = (compare(values, statistics=StatisticsOptions(seed=seed)) for seed in (0, 1))
    assert rows_of(compare(values)) == rows_of(same)
    assert rows_of(same)["fusion"] != rows_of(other)["fusion"]


# --- statistical properties


def test_identical_systems_are_not_distinguishable(rng):
    values = rng.random((3, 80))
    result = compare({"backbone": values[:1], "head": values[:1], "twin": values[:1]})
    for name in ("head", "twin"):
        difference = result[name].to_backbone
        assert difference.verdict == "not distinguishable" and difference.p_holm == 1.0
        assert (difference.interval.low, difference.value, difference.interval.high) == (0, 0, 0)
    assert result["twin"].verdict_to_head == "not distinguishable"


def test_noise_around_the_backbone_is_not_distinguishable_and_planted_differences_are(rng):
    base = rng.uniform(0.3, 0.7, size=(1, 300))
    noisy = lambda shift: base + shift + 0.15 * rng.normal(size=(5, 300))  # noqa: E731
    result = compare(
        {"backbone": base, "head": noisy(0.0), "noise": noisy(0.0), "better": noisy(0.05), "worse": noisy(-0.05)}
    )
    assert {s.name: s.verdict for s in result.systems} == {
        "backbone": "",
        "head": "not distinguishable",
        "noise": "not distinguishable",
        "better": "better",
        "worse": "worse",
    }
    assert result["better"].to_backbone.interval.low > 0 > result["worse"].to_backbone.interval.high
    assert result["better"].verdict_to_head == "better" and result["noise"].verdict_to_head == "not distinguishable"


def test_differences_are_of_means_over_seeds(rng):
    values = {"backbone": rng.random((1, 40)), "head": rng.random((3, 40)), "fusion": rng.random((5, 40))}
    result = compare(values)
    for name, table in values.items():
        interval = result[name].interval
        assert result[name].value == interval.value == pytest.approx(table.mean())
        assert interval.low <= interval.value <= interval.high
    gain = values["fusion"].mean() - values["backbone"].mean()
    assert result["fusion"].to_backbone.value == pytest.approx(gain)
    # between unequal numbers of seeds, too
    assert result["fusion"].to_head.value == pytest.approx(values["fusion"].mean() - values["head"].mean())
    assert result["head"].to_backbone.interval.n == 40


def test_clusters_are_what_is_resampled(base, rng):
    values = {"backbone": base, "head": base + rng.uniform(0.05, 0.3, size=(1, 10))}
    plain, clustered = compare(values), compare(values, clusters=["a"] * 5 + ["b"] * 5)
    assert plain["head"].verdict == "better" and plain.n_documents is None
    assert plain["head"].interval.n_clusters is None
    # two documents have four sign patterns, two of them as extreme: p = 1/2
    head = clustered["head"]
    assert head.to_backbone.p_value == 0.5 and head.verdict == "not distinguishable"
    assert head.to_backbone.interval.n_clusters == head.interval.n_clusters == clustered.n_documents == 2
    assert head.to_backbone.value == pytest.approx(plain["head"].to_backbone.value)


def test_documents_that_share_their_fortune_widen_the_interval(rng):
    documents = np.repeat(np.arange(12), 20)
    luck = rng.normal(0, 0.1, size=12)[documents]
    base = rng.uniform(0.3, 0.5, size=(1, 240))
    values = {"backbone": base, "head": base + luck + 0.02 * rng.normal(size=(2, 240))}
    width = lambda difference: difference.interval.high - difference.interval.low  # noqa: E731
    plain, clustered = (compare(values, clusters=c)["head"].to_backbone for c in (None, documents.astype(str)))
    assert width(clustered) > 2 * width(plain)


def test_confidence_is_that_of_the_intervals(rng):
    values = {"backbone": rng.random((1, 40)), "head": rng.random((2, 40))}
    narrow, wide = (compare(values, statistics=StatisticsOptions(confidence=level)) for level in (0.5, 0.99))
    assert (narrow.confidence, wide["head"].to_backbone.interval.confidence) == (0.5, 0.99)
    ends = [result["head"].to_backbone.interval for result in (narrow, wide)]
    assert ends[0].high - ends[0].low < ends[1].high - ends[1].low


def test_a_single_query_has_a_value_and_no_interval():
    result = compare({"backbone": [[0.4]], "head": [[0.5]]})
    assert result["head"].value == 0.5 and result["head"].interval is None
    difference = result["head"].to_backbone
    assert difference.value == pytest.approx(0.1) and difference.verdict == ""
    assert (difference.interval, difference.p_value, difference.p_holm) == (None, None, None)
    assert result.families == {}


def test_verdicts_follow_the_adjusted_p_value():
    assert (verdict(0.1, 0.049), verdict(-0.1, 0.049)) == ("better", "worse")
    assert verdict(0.1, ALPHA) == "not distinguishable"
    assert verdict(None, None) == verdict(0.1, None) == ""


# --- bad input


def test_what_does_not_fit_is_named(base):
    def refused(systems, match, clusters=None):
        with pytest.raises(EvaluationError, match=match):
            compare_systems(systems, clusters=clusters, statistics=DEFAULTS)

    refused([], "at least one system; got none")
    backbone = system("backbone", base, None)
    refused([backbone, backbone], "names of their own; 'backbone' stands twice")
    refused([backbone, system("head", base[:, :4])], r"the same 10 queries for every system; head has \[1, 4\]")
    refused([backbone, system("head", base[0])], r"values must be \[seeds, queries\]")
    refused([backbone], "the document of each of the 10 queries; got 3", clusters=["a", "b", "c"])
    refused([backbone, system("fusion", base, "backbone", "head")], "the head 'head', which is not another one")
    refused([system("backbone", base, "backbone")], "the backbone 'backbone', which is not another one")


def test_all_orders_of_a_small_table_agree(base, rng):
    values = {"backbone": base, "head": base + 0.1, "fusion": base + rng.random((2, 10))}
    results = [rows_of(compare({name: values[name] for name in order})) for order in itertools.permutations(values)]
    assert all(result == results[0] for result in results)
