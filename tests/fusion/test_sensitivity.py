"""The sensitivity table: a row for each cell, and each fusion trained once."""

from dataclasses import replace

import pytest

from miner_diag.fusion import FusionTrainOptions, SensitivityOptions, sensitivity_table, train
from tests.fusion.helpers import make_probes, materials_of

QUICK = FusionTrainOptions(epochs=1, batch_size=20, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2, seed=7)


def table_of(small, monkeypatch, **grid):
    trained = []

    def counting(system, *args, **how):
        trained.append(system)
        return train(system, *args, **how)

    monkeypatch.setattr("miner_diag.fusion.sensitivity.train", counting)
    table = sensitivity_table(materials_of(small), small, QUICK, SensitivityOptions(**grid))
    return table.to_dict("records"), trained


def test_sensitivity_has_a_row_for_each_cell_and_trains_each_fusion_once(small, monkeypatch):
    # alignment ratios 0.2, 0.4, 0.6, 0.6, 1
    table, trained = table_of(
        small, monkeypatch, shares=(0.25, 1.0), n_layers=(1, 2, 5, 9), thresholds=(0.5, 0.55, 0.3)
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


def test_sensitivity_takes_the_best_layers_and_the_kinds_the_ratio_names(small, monkeypatch):
    probes = make_probes()
    (row,), (system,) = table_of(small, monkeypatch, shares=(0.5,), n_layers=(3,), thresholds=(0.5,))
    best = sorted(range(4), key=lambda layer: -probes.scores[:, layer].max())[:2]
    assert row["layers"] == " ".join(map(str, [*sorted(best), 4]))
    named = ["normalized_projection" if probes.ratios[layer] < 0.5 else "base" for layer in sorted(best)]
    assert row["kinds"].split() == named == list(system.kinds[:-1])


def test_states_are_used(small, tmp_path, monkeypatch, caplog):
    options = SensitivityOptions(shares=(0.5,), n_layers=(2,), thresholds=(0.5,))
    lines = []
    first = sensitivity_table(materials_of(small), small, QUICK, options, state=tmp_path, report=lines.append)
    assert [path.name for path in tmp_path.iterdir()] == ["sensitivity-0.5-2-0.5.safetensors"] and len(lines) == 1
    monkeypatch.setattr("miner_diag.fusion.training.batch_loss", None)  # a training step would fail
    again = sensitivity_table(materials_of(small), small, QUICK, options, state=tmp_path)
    assert again.equals(first)
    monkeypatch.undo()
    sensitivity_table(materials_of(small), small, replace(QUICK, seed=1), options, state=tmp_path)
    assert "is the state of another training; it is put aside" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": ()}, "shares must hold at least one value; got none"),
        ({"shares": (0.5, 1.5)}, r"shares must be above 0 and at most 1; got \(0.5, 1.5\)"),
        ({"n_layers": (1,)}, r"n_layers must hold a number from 2 on, one layer is none to fuse; got \(1,\)"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SensitivityOptions(**options)
