from dataclasses import fields

from miner_diag.probes import TrainOptions
from miner_diag.probes.sweep import PLAN, sweep, sweep_frame, values_for

QUICK = TrainOptions(epochs=1, batch_size=10)


def test_every_option_of_the_plan_exists_and_the_defaults_are_among_its_values():
    names = {field.name for field in fields(TrainOptions)}
    for option, _, values in PLAN:
        assert option in names
        default = getattr(TrainOptions(), option)
        assert default in values or (option == "sides" and default == "auto")


def test_settled_values_are_carried_on(small, monkeypatch):
    plan = (("temperature", "both", (0.05, 0.5)), ("learning_rate", "normalized_projection", (1e-4, 1e-2)))
    monkeypatch.setattr("miner_diag.probes.sweep.PLAN", plan)
    first, second = sweep(small, small, QUICK)
    settled = next(trial for trial in first if trial.settled)
    assert settled.score == max(trial.score for trial in first)
    assert [trial.option for trial in second] == ["learning_rate"] * 2
    frame = sweep_frame([*first, *second])
    assert len(frame) == 4 and frame["settled"].sum() == 2


def test_values_that_the_backbone_does_not_allow_are_left_out():
    assert values_for("rank", (None, 64, 192), 100, True) == [None, 64]
    assert values_for("sides", ("shared", "per-side"), 100, False) == ["per-side"]
    assert values_for("temperature", (0.1,), 100, False) == [0.1]
