from dataclasses import fields, replace

from miner_diag.probes import ProbeTrainOptions
from miner_diag.probes.sweep import PLAN, sweep, sweep_frame, values_for

QUICK = ProbeTrainOptions(epochs=1, batch_size=10)


def test_every_option_of_the_plan_exists_and_its_default_stands_first():
    names = {field.name for field in fields(ProbeTrainOptions)}
    for option, _, values in PLAN:
        assert option in names
        default = getattr(ProbeTrainOptions(), option)
        assert values[0] == ("shared" if option == "sides" else default)


def test_settled_values_are_carried_on(small, monkeypatch):
    plan = (("temperature", "both", (0.05, 0.5)), ("learning_rate", "normalized_projection", (1e-4, 1e-2)))
    monkeypatch.setattr("miner_diag.probes.sweep.PLAN", plan)
    monkeypatch.setattr("miner_diag.probes.sweep.NOISE", 0.0)
    first, second, seeds = sweep(small, small, QUICK)
    settled = next(trial for trial in first if trial.settled)
    assert settled.score == max(trial.score for trial in first)
    assert [trial.option for trial in second] == ["learning_rate"] * 2
    frame = sweep_frame([*first, *second])
    assert len(frame) == 4 and frame["settled"].sum() == 2
    best = max(second, key=lambda trial: trial.ndcg[1].mean())
    assert [trial.value for trial in seeds] == [0, 1, 2] and [trial.settled for trial in seeds] == [True, False, False]
    assert (seeds[0].ndcg == best.ndcg).all() and (seeds[1].ndcg != best.ndcg).any()


def test_a_gain_within_the_noise_moves_no_default(small, monkeypatch):
    plan = (("temperature", "both", (5.0, 0.05)),)
    monkeypatch.setattr("miner_diag.probes.sweep.PLAN", plan)
    for noise, settled in ((0.0, [False, True]), (1.0, [True, False])):
        monkeypatch.setattr("miner_diag.probes.sweep.NOISE", noise)
        trials, _ = sweep(small, small, replace(QUICK, epochs=5, learning_rate=1e-2))
        assert trials[1].score > trials[0].score
        assert [trial.settled for trial in trials] == settled


def test_values_that_the_backbone_does_not_allow_are_left_out():
    assert values_for("rank", (None, 64, 192), 100, True) == [None, 64]
    assert values_for("sides", ("shared", "per-side"), 100, False) == ["per-side"]
    assert values_for("temperature", (0.1,), 100, False) == [0.1]
