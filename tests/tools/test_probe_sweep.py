"""The sweep settles one option of probe training after the other."""

import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from miner_diag.probes import ProbeTrainOptions
from tests.probes.helpers import pretend_embedded, retrieval_data
from tools.probe_sweep import PLAN, SweepOptions, run, sweep, sweep_frame, values_for

QUICK = ProbeTrainOptions(epochs=1, batch_size=10)


@pytest.fixture
def small(rng):
    """Forty queries and pages of three layers that share a little."""
    meaning = rng.normal(size=(40, 3, 6))
    sides = (meaning + 0.7 * rng.normal(size=meaning.shape) for _ in range(2))
    return retrieval_data(*(side.astype(np.float32) for side in sides))


def test_every_option_of_the_plan_exists_and_its_default_stands_first():
    names = {field.name for field in fields(ProbeTrainOptions)}
    for option, _, values in PLAN:
        assert option in names
        assert values[0] == getattr(ProbeTrainOptions(), option)


def test_settled_values_are_carried_on(small, monkeypatch):
    plan = (("temperature", "both", (0.05, 0.5)), ("learning_rate", "normalized_projection", (1e-4, 1e-2)))
    monkeypatch.setattr("tools.probe_sweep.PLAN", plan)
    monkeypatch.setattr("tools.probe_sweep.NOISE", 0.0)
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
    monkeypatch.setattr("tools.probe_sweep.PLAN", plan)
    for noise, settled in ((0.0, [False, True]), (1.0, [True, False])):
        monkeypatch.setattr("tools.probe_sweep.NOISE", noise)
        trials, _ = sweep(small, small, replace(QUICK, epochs=5, learning_rate=1e-2))
        assert trials[1].score > trials[0].score
        assert [trial.settled for trial in trials] == settled


def test_values_that_the_backbone_does_not_allow_are_left_out():
    assert values_for("rank", (None, 64, 192), 100, True) == [None, 64]
    assert values_for("sides", ("shared", "per-side"), 100, False) == ["shared"]
    assert values_for("temperature", (0.1,), 100, False) == [0.1]


@pytest.mark.parametrize("shared_layers", [True, False])
def test_the_command_writes_a_row_for_each_fit(shared_layers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.probe_sweep.PLAN", (("temperature", "both", (0.05, 0.1)),))
    monkeypatch.setattr("tools.probe_sweep.NOISE", 0.0)
    embedded = pretend_embedded(shared_layers=shared_layers)
    monkeypatch.setattr("tools.probe_sweep.open_corpus", lambda *given: embedded)
    run(SweepOptions(training=QUICK, seed=4, out=tmp_path))
    for folder in [tmp_path] if shared_layers else [tmp_path / "query", tmp_path / "page"]:
        table = pd.read_csv(folder / "sweep.csv")
        temperatures, seeds = (table[table["option"] == option] for option in ("temperature", "seed"))
        assert temperatures["value"].tolist() == [0.05, 0.1] and temperatures["settled"].sum() == 1
        kept = temperatures["score"][temperatures["settled"]].item()
        assert kept == temperatures["score"].max() == seeds["score"].iloc[0]
        assert seeds["value"].tolist() == [4, 5, 6]
        content = json.loads((folder / "run.json").read_text())
        assert content["command"] == "tools.probe_sweep" and content["options"]["training"]["epochs"] == 1
    assert embedded.taken == ["train", "validation"] * (1 if shared_layers else 2)
    assert "Settled: temperature" in capsys.readouterr().out
