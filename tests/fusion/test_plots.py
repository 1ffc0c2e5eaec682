"""The figures show what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from miner_diag.fusion.plots import sensitivity_figure, training_figure, weights_figure
from miner_diag.fusion.sensitivity import with_seed_noise


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


@pytest.fixture
def weights():
    return pd.DataFrame(
        {
            "seed": [0, 0, 1, 1],
            "layer": [2, 6, 2, 6],
            "kind": ["base", "normalized_projection"] * 2,
            "weight": [0.2, 1.0, 0.2, 0.8],
            "kept_share": [0.5, 1.0, 0.5, 1.0],
        }
    )


def test_weights_show_every_seed_beside_the_others_and_the_mean(weights):
    (ax,) = weights_figure(weights).axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([line.get_ydata() for line in dots], [[0.2, 0.2], [1.0, 0.8]])
    assert all(len(set(line.get_xdata())) == 2 for line in dots)  # equal weights do not hide each other
    means = [
        line.get_ydata()[0] for line in ax.lines if line.get_marker() == "None" and len(set(line.get_xdata())) == 2
    ]
    np.testing.assert_allclose(means[:2], [0.2, 0.9])
    assert [label.splitlines()[:2] for label in labels(ax.xaxis)] == [
        ["layer 2", "base probe"],
        ["layer 6", "normalized projection"],
    ]


def test_weights_of_several_retrievers_have_a_panel_each(weights):
    both = pd.concat([weights.assign(model="a"), weights.assign(model="b", weight=0.5)])
    assert [ax.get_title() for ax in weights_figure(both).axes] == ["a", "b"]


@pytest.fixture
def grid():
    rows = [
        {"threshold": t, "n_layers": n, "kept_share": share, "validation_ndcg_at_5": t / 10 + n / 100 + share / 1000}
        for t in (0.3, 0.5)
        for n in (2, 3)
        for share in (0.25, 1.0)
    ]
    return pd.DataFrame(rows)


def test_sensitivity_is_in_seed_deviations_from_the_framed_default(grid):
    table = with_seed_noise(grid, share=1.0, n_layers=2, threshold=0.5, scores=[0.1, 0.11, 0.12])
    assert table["default"].sum() == 1 and table["seed_sd"].tolist() == pytest.approx([0.01] * 8)
    figure = sensitivity_figure(table)
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title()[-3:] for ax in panels] == ["0.5", "0.3"]
    assert [len(ax.patches) for ax in panels] == [1, 0]
    assert panels[0].patches[0].get_xy() == pytest.approx((1.03, 0.03))  # second share, first number of layers
    default = 0.05 + 0.02 + 0.001
    expected = {
        f"{v:.3f}\n{round((v - default) / 0.01) or 0:+d}".replace("+0", "±0") for v in grid["validation_ndcg_at_5"]
    }
    assert {text.get_text() for ax in panels for text in ax.texts} == expected
    assert len({ax.collections[0].get_clim() for ax in panels}) == 1  # one scale of colours
    assert figure.get_supxlabel().endswith("3 seeds of the fixed mask).")


def test_sensitivity_without_seed_noise_says_so(grid):
    figure = sensitivity_figure(grid)
    assert "not recorded" in figure.get_supxlabel()
    shown = sorted(text.get_text() for ax in figure.axes for text in ax.texts)
    assert shown == sorted(f"{value:.3f}" for value in grid["validation_ndcg_at_5"])


def test_one_seed_has_no_noise(grid):
    assert with_seed_noise(grid, share=9, n_layers=2, threshold=0.5, scores=[0.1])["seed_sd"].isna().all()


def curves_of(*systems):
    return pd.DataFrame(
        [
            {"system": system, "seed": seed, "epoch": epoch, "validation_ndcg_at_5": score + 0.01 * seed + 0.1 * number}
            for number, system in enumerate(systems)
            for seed in (0, 1)
            for epoch, score in enumerate((0.1, 0.3, 0.2))
        ]
    )


def test_training_has_a_panel_a_system_a_line_a_seed_and_rings_the_chosen_epoch():
    figure = training_figure(curves_of("miner", "final_layer_head"))
    assert [ax.texts[0].get_text() for ax in figure.axes] == ["MINER", "head: the fusion's form"]
    for number, ax in enumerate(figure.axes):
        *lines, rings = ax.lines
        np.testing.assert_allclose(
            [line.get_ydata() for line in lines], np.add.outer([0, 0.01], [0.1, 0.3, 0.2]) + 0.1 * number
        )
        assert rings.get_xdata().tolist() == [1, 1]
    assert np.ptp(figure.axes[0].get_ylim()) == pytest.approx(np.ptp(figure.axes[1].get_ylim()))


def test_of_many_systems_both_forms_and_the_best_head_are_drawn():
    curves = curves_of("scalar_mix", "miner", "final_layer_mlp", "final_layer_linear", "trained_maps", "no_bias")
    shown = [ax.texts[0].get_text() for ax in training_figure(curves).axes]
    assert shown == ["MINER", "ours", "head: linear"]
