"""What each difference between the forms is worth: paired with miner, one family, in words and in a picture."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.corpus import Corpus
from miner_diag.evaluation.differences import (
    HEAD,
    ORDER,
    differences_figure,
    differences_sentences,
    differences_table,
    of_run,
)
from miner_diag.evaluation.scored_system import Measures, ScoredSystem, compare_scored
from miner_diag.fusion.miner_rows import DIFFERENCES
from miner_diag.names import plain_system
from miner_diag.stats import StatisticsOptions, holm

N_QUERIES, SEEDS = 60, 3
DOCUMENTS = [f"d{number // 5}" for number in range(N_QUERIES)]
STATISTICS = StatisticsOptions()
PART = Corpus("c", "hidden", 0, (), (), {}, {}, None, part="test")
GAINS = {"miner": 0.02, "trained_maps": 0.06, "whitened": 0.01, "miner_whitened": 0.03, "miner_our_mask": 0.02}


def system(name, role, values, backbone="m: backbone", head="m: final_layer_linear", model="m"):
    seeds = (None,) if len(values) == 1 else tuple(range(len(values)))
    measures = Measures({"ndcg_at_5": values})
    return ScoredSystem(model, "r", name, role, f"what {name} is", measures, seeds, 8, 32.0, backbone, head)


@pytest.fixture(scope="module")
def systems():
    """A backbone, heads and forms whose gains over the backbone are planted, alike for all queries but for noise."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.6, size=(1, N_QUERIES))

    def gained(gain, seeds=SEEDS):
        return base + gain + 0.002 * rng.normal(size=(seeds, N_QUERIES))

    rows = [system("backbone", "backbone", base, None, None)]
    rows.append(system("final_layer_linear", "head", gained(0.015), head=None))
    for name, gain in GAINS.items():
        role = "fusion" if name in ("miner", "trained_maps") else "baseline" if name == "whitened" else "variant"
        rows.append(system(name, role, gained(gain, 1 if name == "whitened" else SEEDS)))
    return rows


@pytest.fixture(scope="module")
def table(systems):
    return differences_table(of_run(systems, "m", ""), PART, DOCUMENTS, STATISTICS)


def test_each_system_stands_beside_miner_in_the_order_of_the_labels(table):
    names = table["system"].tolist()
    assert names == [name for name in ORDER if name in {*GAINS, "backbone", HEAD}]
    rows = table.set_index("system")
    for name, gain in GAINS.items():
        if name != "miner":
            assert rows.loc[name, "difference_to_miner"] == pytest.approx(gain - GAINS["miner"], abs=2e-3)
        assert rows.loc[name, "difference_to_backbone"] == pytest.approx(gain, abs=2e-3)
    assert np.isnan(rows.loc["miner", "difference_to_miner"]), "nothing is compared with itself"
    assert rows.loc["backbone", "difference_to_miner"] == pytest.approx(-0.02, abs=2e-3)
    assert rows.loc[HEAD, "difference_to_miner"] == pytest.approx(-0.005, abs=2e-3)
    for name in rows.index.drop("miner"):
        columns = ("miner_difference_low", "difference_to_miner", "miner_difference_high")
        low, value, high = rows.loc[name, list(columns)]
        assert low <= value <= high
    same = rows.loc["miner_our_mask"]
    assert same["miner_difference_low"] < 0 < same["miner_difference_high"]


def test_it_is_one_family_by_holm(table):
    tested = table["miner_p_value"].notna()
    assert tested.sum() == len(table) - 1 and not tested[table["system"] == "miner"].any()
    np.testing.assert_allclose(table.loc[tested, "miner_p_holm"], holm(table.loc[tested, "miner_p_value"].tolist()))


def test_differences_to_the_backbone_are_those_of_the_evaluation(systems, table):
    comparison = compare_scored(systems, DOCUMENTS, STATISTICS)
    for row in comparison.systems:
        name = row.name.removeprefix("m: ")
        if name in GAINS:
            own = table.set_index("system").loc[name]
            ends = row.to_backbone.interval.low, row.to_backbone.interval.high
            assert (own["difference_low"], own["difference_high"]) == ends
            assert (own["p_value"], own["low"]) == (row.to_backbone.p_value, row.interval.low)


def test_without_switched_rows_there_is_no_table(systems):
    switched = {difference.name for difference in DIFFERENCES}
    assert differences_table([s for s in systems if s.name not in switched], PART, DOCUMENTS, STATISTICS) is None
    assert differences_table([s for s in systems if s.name != "miner"], PART, DOCUMENTS, STATISTICS) is None


def test_a_run_among_others_is_told_by_its_label(systems):
    other = [system(f"{s.name} (b)", s.role, s.ndcg, s.backbone, s.head) for s in systems if s.role != "backbone"]
    named = [system(f"{s.name} (a)", s.role, s.ndcg, s.backbone, s.head) for s in systems if s.role != "backbone"]
    stranger = system("miner", "fusion", systems[0].ndcg, model="another")
    found = of_run([systems[0], *named, *other, stranger], "m", "a")
    assert [s.name for s in found][: len(systems)] == [s.name for s in systems]
    assert all(s.model == "m" and s.key != "m: miner (b)" for s in found)


def test_sentences_answer_the_four_questions(table):
    text = " ".join(differences_sentences(table, "the test split"))
    assert "MINER's form as its authors describe it adds +0.0" in text and "(+" in text
    assert "The best head on the final layer less miner: -0.0" in text
    assert "miner has 3" in text  # a third of the gain of ours was planted
    assert "with whitened final layer +0.0" in text and "with our mask" in text
    assert "Whitening the final layer, without labels and without a fusion, adds +0.0" in text


def test_no_share_is_told_of_a_gain_that_is_none(systems):
    worse = [s if s.name != "miner" else system("miner", "fusion", systems[0].ndcg - 0.01) for s in systems]
    lost = differences_table(of_run(worse, "m", ""), PART, DOCUMENTS, STATISTICS)
    assert not any("of that gain" in line for line in differences_sentences(lost, "x"))


def test_the_figure_names_every_system_and_fills_what_is_established(table):
    figure = differences_figure(table)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [plain_system(name) for name in table["system"]]
    marks = [container.lines[0] for container in ax.containers]
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks], table["difference_to_miner"].fillna(0.0))
    sure = table["miner_p_holm"].lt(0.05) | table["system"].eq("miner")
    assert [mark.get_markerfacecolor() != "white" for mark in marks] == sure.tolist()
    assert "m on" in figure.get_suptitle() and "queries" in figure.get_supxlabel()
