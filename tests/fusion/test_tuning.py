"""Tuning and training of rows: the same budget for all, chosen on validation."""

from dataclasses import replace

import numpy as np
import pytest

from miner_diag.fusion import (
    FusionError,
    FusionTrainOptions,
    TrainedSystem,
    TuningOptions,
    best_head,
    chosen_rows,
    train,
    tune_all,
)
from miner_diag.fusion import training as training_module
from miner_diag.fusion import tuning as tuning_module
from tests.fusion.helpers import content_of, materials_of

QUICK = FusionTrainOptions(epochs=2, batch_size=20, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2, seed=7)
TWO = TuningOptions(n_seeds=2, rate_scales=(0.1, 1.0))


@pytest.fixture
def run(small):
    def make(*names, options=TWO, training=QUICK, **how):
        rows = [row for row in chosen_rows(("all",)) if row.name in names]
        systems = tune_all(rows, materials_of(small), small, training, options, **how)
        return {system.name: system for system in systems}

    return make


def test_validation_chooses_the_rate_with_the_first_seed(run, small):
    system = run("final_layer_linear")["final_layer_linear"]
    (row,) = (row for row in chosen_rows() if row.name == system.name)
    trials = {}
    for scale in TWO.rate_scales:
        options = replace(QUICK, learning_rate=scale * 3e-3, weight_learning_rate=scale * 3e-2)
        start = row.build(materials_of(small), np.random.default_rng([7, 1]))
        trials[scale] = train(start, small, small, options, name=row.name)
    best = max(trials, key=lambda scale: trials[scale].score)
    assert system.training.learning_rate == pytest.approx(best * 3e-3)
    assert system.training.weight_learning_rate == pytest.approx(best * 3e-2)
    assert content_of(system.runs[0].system) == content_of(trials[best].system)


def test_each_row_has_its_seeds_and_what_is_not_trained_has_one(run):
    systems = run("backbone", "concat_pca", "no_bias", "random_mask")
    assert {name: len(system.runs) for name, system in systems.items()} == {
        "backbone": 1,
        "concat_pca": 1,
        "no_bias": 2,
        "random_mask": 2,
    }
    assert systems["backbone"].n_parameters == systems["concat_pca"].n_parameters == 0
    first, second = systems["random_mask"].runs
    assert (first.system.masks != second.system.masks).any()  # drawn anew for each seed
    assert systems["no_bias"].validation.shape == (2, 40) and systems["no_bias"].seconds > 0


def test_rows_do_not_depend_on_their_company(run):
    alone, among = (
        run("fixed_mask")["fixed_mask"],
        run("backbone", "no_bias", "fixed_mask", "trained_maps")["fixed_mask"],
    )
    for one, other in zip(alone.runs, among.runs, strict=True):
        assert content_of(one.system) == content_of(other.system)


def test_own_options_of_a_row_are_used(run):
    systems = run("trained_maps", "fusion_mrl")
    assert systems["fusion_mrl"].training.mrl and not systems["trained_maps"].training.mrl
    assert content_of(systems["trained_maps"].runs[0].system) != content_of(systems["fusion_mrl"].runs[0].system)


def test_hard_negatives_are_mined_once_for_all_trainings_and_are_those_of_the_row(run, small, monkeypatch):
    asked, mine = [], tuning_module.mine_hard_negatives
    monkeypatch.setattr(tuning_module, "mine_hard_negatives", lambda *args: (asked.append(args[1:]), mine(*args))[1])
    monkeypatch.setattr(training_module, "mine_hard_negatives", lambda *_: pytest.fail("mined for one training"))
    of_rows = {row.name: row.training for row in chosen_rows(("all",))}
    run("backbone", "miner", "final_layer_linear")
    assert of_rows["miner"]["hard_negatives"] == 16
    assert sorted(asked) == [(0, FusionTrainOptions.guard), (16, FusionTrainOptions.guard)]


def test_a_run_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    finished = run("no_bias", "fixed_mask", state=tmp_path / "finished")
    calls, loss = [], training_module.batch_loss
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stopping(*args):
            calls.append(1)
            if len(calls) > 9:  # the second row is under way
                raise KeyboardInterrupt
            return loss(*args)

        patch.setattr(training_module, "batch_loss", stopping)
        run("no_bias", "fixed_mask", state=tmp_path / "stopped")
    resumed = run("no_bias", "fixed_mask", state=tmp_path / "stopped")
    for name, system in finished.items():
        assert system.training == resumed[name].training
        for one, other in zip(system.runs, resumed[name].runs, strict=True):
            assert content_of(one.system) == content_of(other.system)


def test_states_are_named_for_row_rate_and_seed_and_are_not_trained_again(run, tmp_path, monkeypatch):
    first = run("backbone", "trained_maps", "query_specific", state=tmp_path)
    names = {path.stem for path in tmp_path.iterdir()}
    best = first["trained_maps"].training.learning_rate / QUICK.learning_rate
    assert names == {
        "trained_maps-0.1-7",
        "trained_maps-1-7",
        f"trained_maps-{best:g}-8",
        "query_specific-7",
        "query_specific-8",
    }
    monkeypatch.setattr(training_module, "batch_loss", None)  # a training step would fail
    again = run("backbone", "trained_maps", "query_specific", state=tmp_path)
    for name, system in first.items():
        assert [content_of(one.system) for one in system.runs] == [content_of(one.system) for one in again[name].runs]


def test_what_is_reported_names_each_row(run):
    lines = []
    run("backbone", "no_bias", report=lines.append)
    assert [line.split()[0] for line in lines] == ["backbone", "no_bias"]
    assert all("validation" in line and "parameters" in line for line in lines)


def test_every_row_carries_role_words_and_seeds(run):
    systems = run("backbone", "final_layer_linear", "trained_maps")
    assert {name: system.role for name, system in systems.items()} == {
        "backbone": "backbone",
        "final_layer_linear": "head",
        "trained_maps": "fusion",
    }
    assert systems["trained_maps"].what.endswith("layers 0, 1, 3, 4, adaptive mask")
    assert systems["trained_maps"].seeds == (7, 8) and systems["backbone"].seeds == (None,)


def test_query_specific_weights_are_trained_on_each_seeds_fusion(run):
    systems = run("trained_maps", "query_specific")
    fusion, variant = systems["trained_maps"], systems["query_specific"]
    assert (variant.role, len(variant.runs), variant.n_parameters) == ("variant", 2, 4 * 16)
    assert variant.training == fusion.training and variant.seeds == fusion.seeds
    for one, base in zip(variant.runs, fusion.runs, strict=True):
        for name, tensor in base.system.state_dict().items():
            assert (one.system.state_dict()[name] == tensor).all(), name
        assert one.score >= base.score - 1e-12


def test_a_row_on_the_fusion_needs_the_fusion(run):
    with pytest.raises(FusionError, match="systems must hold trained_maps; got backbone"):
        run("backbone", "query_specific")


# --- the head that counts


def system_of(name, role, score):
    runs = (type("Run", (), {"ndcg": np.full(4, score), "seconds": 0.0})(),)
    return TrainedSystem(name, role, "", QUICK, runs, 1)


def test_the_best_head_is_validations():
    systems = [
        system_of("final_layer_linear", "head", 0.4),
        system_of("final_layer_mlp", "head", 0.5),
        system_of("final_layer_head", "head", 0.45),
        system_of("trained_maps", "fusion", 0.9),
    ]
    assert best_head(systems) == "final_layer_mlp"
    with pytest.raises(
        FusionError, match="systems must hold one of final_layer_vector, final_layer_linear, final_layer_head, "
    ):
        best_head([system_of("trained_maps", "fusion", 0.9)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_seeds": 0}, "n_seeds must be at least 1; got 0"),
        ({"rate_scales": ()}, r"rate_scales must hold numbers above 0; got \(\)"),
        ({"rate_scales": (1.0, 0.0)}, "rate_scales must hold numbers above 0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TuningOptions(**options)
