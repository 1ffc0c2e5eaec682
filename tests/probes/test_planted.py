"""Where the answer is known: the stage finds the layers, the kinds and the neurons, and nothing where nothing is."""

import numpy as np
import pytest

from miner_diag.probes import neurons_for


def test_the_layers_that_carry_the_answer_are_kept_and_no_other(planted):
    assert planted.study.selected == (2, 5, 7, 8)  # 8 is the final one, which always stays
    assert (planted.study.stability.frequency[[2, 5, 7, 8]] > 0.9).all()
    assert planted.study.stability.frequency[[0, 1, 3, 4, 6]].max() < 0.5


def test_each_gets_the_kind_it_needs(planted):
    kinds = [verdict.chosen for verdict in planted.study.verdicts]
    assert kinds[2] == "normalized_projection"
    assert kinds[5] == kinds[7] == "base"
    assert planted.study.verdicts[7].preferred == "base"  # by the test, not by default


def test_nine_in_ten_planted_neurons_are_among_the_most_salient(planted):
    base, _ = planted.study.salience
    salient = np.argsort(-base[7])[: len(planted.rows)]
    assert len(set(salient) & set(planted.rows)) >= 0.9 * len(planted.rows)
    assert neurons_for(base[7]) < 0.7 * base.shape[1]


def test_the_signal_is_beyond_chance_and_elsewhere_is_none(planted):
    result = planted.study
    for layer in range(9):
        best = max(result.ndcg[0][layer].low, result.ndcg[1][layer].low)
        assert (best > 10 * result.chance) == (layer in (2, 5, 7)), layer


def test_shuffled_pairs_fall_to_chance(planted):
    result = planted.study
    broken = [control for control in result.controls if control.name == "shuffled_pairs"]
    assert len(broken) == 18
    n = len(planted.validation.queries)
    spread = np.sqrt(result.chance / n)  # at most: nDCG lies in [0, 1], so its variance is below its mean
    assert all(abs(control.ndcg.value - result.chance) < 4 * spread for control in broken)
    assert abs(np.mean([control.ndcg.value for control in broken]) - result.chance) < 2 * spread


def test_training_on_shuffled_pairs_helps_nowhere(planted):
    """Evaluated on true pairs: what is left is what the start had, or less."""
    start = {(c.kind, c.layer): c.ndcg.value for c in planted.study.controls if c.name == "start"}
    after = [control for control in planted.study.controls if control.name == "shuffled_training"]
    assert len(after) == len(start) == 18
    spread = np.sqrt(2 * planted.study.chance / len(planted.validation.queries))  # of a difference by luck, at most
    for control in after:
        assert control.over_start.value < 4 * spread, control
        assert control.over_start.value == pytest.approx(control.ndcg.value - start[control.kind, control.layer])
    assert start["base", 7] == pytest.approx(planted.study.raw[7].value)


def test_from_a_start_that_knows_nothing_only_true_pairs_lead_away_from_chance(planted):
    true, shuffled = (
        {c.layer: c.ndcg.value for c in planted.study.controls if c.name == f"unaligned_{name}"}
        for name in ("true", "shuffled")
    )
    spread = np.sqrt(planted.study.chance / len(planted.validation.queries))
    assert all(abs(value - planted.study.chance) < 4 * spread for value in shuffled.values())
    assert min(true[layer] for layer in (2, 5, 7)) > 0.2


def test_random_labels_gain_next_to_nothing(planted):
    random = planted.study.random_selection
    believed = planted.study.fused.value - planted.study.raw[-1].value
    assert random.mean_gain < 0.1 * believed
    assert random.frequency[-1] == 1.0
