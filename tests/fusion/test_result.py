"""Tuning and training of rows: the same budget for all, chosen on validation; bounds and the sensitivity table."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from miner_diag.fusion import (
    AblationOptions,
    FusionConfig,
    FusionError,
    FusionTrainOptions,
    MaskOptions,
    SensitivityOptions,
    TrainedSystem,
    ndcg_of,
    oracle,
    rows,
    run_rows,
    sensitivity,
    train,
)
from miner_diag.fusion.result import best_head, run_query_specific
from miner_diag.fusion.systems import SingleProbe

TRAINING = sys.modules["miner_diag.fusion.train"]
QUICK = FusionTrainOptions(epochs=2, batch_size=20, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2, seed=7)
TWO = AblationOptions(n_seeds=2, rate_scales=(0.1, 1.0))


@pytest.fixture
def run(small, make_probed):
    def make(*names, options=TWO, training=QUICK, **how):
        found = rows(make_probed(), small, small, FusionConfig(), MaskOptions())
        some = [row for row in found if row.name in names]
        return {entry.name: entry for entry in run_rows(some, small, small, training, options, **how)}

    return make


def content(system):
    return {name: tensor.numpy().tobytes() for name, tensor in system.state_dict().items()}


def test_validation_chooses_the_rate_with_the_first_seed(run, small, make_probed):
    entry = run("final_layer_linear")["final_layer_linear"]
    row = next(
        row for row in rows(make_probed(), small, small, FusionConfig(), MaskOptions()) if row.name == entry.name
    )
    trials = {}
    for scale in TWO.rate_scales:
        options = replace(QUICK, learning_rate=scale * 3e-3, weight_learning_rate=scale * 3e-2)
        trials[scale] = train(row.build(np.random.default_rng([7, 1])), small, small, options, name=row.name)
    best = max(trials, key=lambda scale: trials[scale].score)
    assert entry.options.learning_rate == pytest.approx(best * 3e-3)
    assert entry.options.weight_learning_rate == pytest.approx(best * 3e-2)
    assert content(entry.runs[0].system) == content(trials[best].system)


def test_each_row_has_its_seeds_and_what_is_not_trained_has_one(run):
    found = run("backbone", "concat_pca", "no_bias", "random_mask")
    assert {name: len(entry.runs) for name, entry in found.items()} == {
        "backbone": 1,
        "concat_pca": 1,
        "no_bias": 2,
        "random_mask": 2,
    }
    assert found["backbone"].n_parameters == found["concat_pca"].n_parameters == 0
    first, second = found["random_mask"].runs
    assert (first.system.masks != second.system.masks).any()  # drawn anew for each seed
    assert found["no_bias"].validation.shape == (2, 40) and found["no_bias"].seconds > 0


def test_rows_do_not_depend_on_their_company(run):
    alone, among = run("fixed_mask")["fixed_mask"], run("backbone", "no_bias", "fixed_mask", "fusion")["fixed_mask"]
    for mine, its in zip(alone.runs, among.runs, strict=True):
        assert content(mine.system) == content(its.system)


def test_own_options_of_a_row_are_used(run):
    found = run("fusion", "fusion_mrl")
    assert found["fusion_mrl"].options.mrl and not found["fusion"].options.mrl
    assert content(found["fusion"].runs[0].system) != content(found["fusion_mrl"].runs[0].system)


def test_a_run_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    whole = run("no_bias", "fixed_mask", state=tmp_path / "whole")
    calls, loss = [], TRAINING.batch_loss
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stopping(*args):
            calls.append(1)
            if len(calls) > 9:  # the second row is under way
                raise KeyboardInterrupt
            return loss(*args)

        patch.setattr(TRAINING, "batch_loss", stopping)
        run("no_bias", "fixed_mask", state=tmp_path / "stopped")
    resumed = run("no_bias", "fixed_mask", state=tmp_path / "stopped")
    for name, entry in whole.items():
        assert entry.options == resumed[name].options
        for mine, its in zip(entry.runs, resumed[name].runs, strict=True):
            assert content(mine.system) == content(its.system)


def test_what_is_told_names_each_row(run):
    told = []
    run("backbone", "no_bias", told=told.append)
    assert [line.split()[0] for line in told] == ["backbone", "no_bias"]
    assert all("validation" in line and "parameters" in line for line in told)


def test_entries_judge_other_splits_and_widths(run, small):
    entry = run("fusion")["fusion"]
    np.testing.assert_array_equal(entry.ndcg(small), entry.validation)
    short = entry.ndcg(small, width=4)
    assert short.shape == (2, 40)
    np.testing.assert_array_equal(short[0], ndcg_of(entry.runs[0].system, small, width=4))


def test_query_specific_weights_are_trained_on_each_seeds_fusion(run, small):
    fusion = run("fusion")["fusion"]
    variant = run_query_specific(fusion, small, small)
    assert (variant.name, len(variant.runs), variant.n_parameters) == ("query_specific", 2, 4 * 16)
    for mine, its in zip(variant.runs, fusion.runs, strict=True):
        for name, tensor in its.system.state_dict().items():
            assert (mine.system.state_dict()[name] == tensor).all(), name
        assert mine.score >= its.score - 1e-12


# --- the head that counts, and the bound


def entry_of(name, score):
    runs = (type("Run", (), {"ndcg": np.full(4, score), "seconds": 0.0})(),)
    return TrainedSystem(name, "", QUICK, runs, 1)


def test_the_best_head_is_validations():
    entries = [
        entry_of("final_layer_linear", 0.4),
        entry_of("final_layer_mlp", 0.5),
        entry_of("final_layer_head", 0.45),
        entry_of("fusion", 0.9),
    ]
    assert best_head(entries) == "final_layer_mlp"
    with pytest.raises(FusionError, match="systems must hold one of final_layer_linear, final_layer_head, "):
        best_head([entry_of("fusion", 0.9)])


def test_the_oracle_is_the_best_of_layers_and_fusion_for_each_query(small, make_probed, rng):
    probed, fusion = make_probed(), rng.random((3, 40))
    found = oracle(probed, small, fusion)
    layers = [ndcg_of(SingleProbe(probed, layer, kind), small) for layer, kind in enumerate(probed.kinds)]
    np.testing.assert_allclose(found, np.max([*layers, fusion.mean(axis=0)], axis=0)[None])
    assert found.mean() >= max(layer.mean() for layer in layers)


# --- sensitivity


def table_of(small, probed, monkeypatch, **grid):
    trained = []

    def counting(system, *args, **how):
        trained.append(system)
        return train(system, *args, **how)

    monkeypatch.setattr("miner_diag.fusion.result.train", counting)
    options = SensitivityOptions(**grid)
    return sensitivity(probed, small, small, FusionConfig(), replace(QUICK, epochs=1), options), trained


def test_sensitivity_has_a_row_for_each_cell_and_trains_each_fusion_once(small, make_probed, monkeypatch):
    probed = make_probed()  # alignment ratios 0.2, 0.4, 0.6, 0.6, 1
    table, trained = table_of(
        small, probed, monkeypatch, shares=(0.25, 1.0), n_layers=(1, 2, 5, 9), thresholds=(0.5, 0.55, 0.3)
    )
    assert [(row["threshold"], row["n_layers"], row["kept_share"]) for row in table] == [
        (threshold, n, share) for threshold in (0.5, 0.55, 0.3) for n in (2, 5) for share in (0.25, 1.0)
    ]  # one layer is none to fuse, and there are not nine
    by_cell = {(row["threshold"], row["n_layers"], row["kept_share"]): row for row in table}
    for n in (2, 5):
        for share in (0.25, 1.0):  # 0.5 and 0.55 name the same kinds
            same = [by_cell[threshold, n, share]["validation_ndcg_at_5"] for threshold in (0.5, 0.55)]
            assert same[0] == same[1]
    kinds = {(row["layers"], row["kinds"], row["kept_share"]) for row in table}
    assert len(trained) == len(kinds) < len(table)
    masks = [system.masks.sum(dim=1).tolist() for system in trained]
    assert {tuple(kept) for kept in masks} == {(4, 16), (16, 16), (4, 4, 4, 4, 16), (16,) * 5}


def test_sensitivity_takes_the_best_layers_and_the_kinds_the_ratio_names(small, make_probed, monkeypatch):
    probed = make_probed()
    (row,), (system,) = table_of(small, probed, monkeypatch, shares=(0.5,), n_layers=(3,), thresholds=(0.5,))
    best = sorted(range(4), key=lambda layer: -probed.scores[:, layer].max())[:2]
    assert row["layers"] == " ".join(map(str, [*sorted(best), 4]))
    named = ["normalized_projection" if probed.ratios[layer] < 0.5 else "base" for layer in sorted(best)]
    assert row["kinds"].split() == named == list(system.kinds[:-1])


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
        AblationOptions(**options)
