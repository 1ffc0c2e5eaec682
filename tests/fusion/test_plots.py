"""The figures show what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from miner_diag.fusion.plots import ablation_figure, folds_figure, sensitivity_figure, training_figure, weights_figure


@pytest.fixture
def ablation():
    rows = [
        ("backbone", None, None, None, ""),
        ("fusion", 0.05, 0.02, 0.08, "better"),
        ("final_layer_head", 0.02, -0.01, 0.05, "not distinguishable"),
        ("concat_pca", -0.1, -0.15, -0.05, "worse"),
        ("oracle_layer", None, None, None, ""),
    ]
    names = ["system", "difference_to_backbone", "difference_low", "difference_high", "verdict"]
    test = pd.DataFrame(rows, columns=names).assign(split="test")
    return pd.concat([test, test.assign(split="validation", difference_to_backbone=9.0)])


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def test_the_forest_is_of_one_split_and_the_best_is_on_top(ablation):
    (ax,) = ablation_figure(ablation, title="a title").axes
    assert labels(ax.yaxis) == ["concat pca", "final layer head", "fusion"]  # from below
    points = [container.lines[0] for container in ax.containers]
    np.testing.assert_allclose([line.get_xdata()[0] for line in points], [-0.1, 0.02, 0.05])
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, True]
    ends = [container.lines[2][0].get_segments()[0][:, 0] for container in ax.containers]
    np.testing.assert_allclose(ends, [[-0.15, -0.05], [-0.01, 0.05], [0.02, 0.08]])


def test_weights_have_a_bar_a_layer_and_a_dot_a_seed():
    table = pd.DataFrame(
        {
            "seed": [0, 0, 1, 1],
            "layer": [2, 6, 2, 6],
            "kind": ["base", "normalized_projection"] * 2,
            "weight": [0.2, 1.0, 0.4, 0.8],
            "kept_share": [0.5, 1.0, 0.5, 1.0],
        }
    )
    (ax,) = weights_figure(table).axes
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0.3, 0.9])
    dots = [line for line in ax.lines if line.get_marker() == "."]
    np.testing.assert_allclose([line.get_ydata() for line in dots], [[0.2, 0.4], [1.0, 0.8]])
    assert labels(ax.xaxis) == ["2", "6"]
    assert [text.get_text() for text in ax.texts] == ["50% kept", "100% kept"]


def test_sensitivity_has_a_panel_a_threshold():
    rows = [
        {"threshold": t, "n_layers": n, "kept_share": share, "validation_ndcg_at_5": t / 10 + n / 100 + share / 1000}
        for t in (0.3, 0.5)
        for n in (2, 3)
        for share in (0.25, 1.0)
    ]
    figure = sensitivity_figure(pd.DataFrame(rows), title="t")
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["threshold 0.3", "threshold 0.5"]
    shown = [sorted(text.get_text() for text in ax.texts) for ax in panels]
    for found, threshold in zip(shown, (0.3, 0.5), strict=True):
        values = [row["validation_ndcg_at_5"] for row in rows if row["threshold"] == threshold]
        assert found == sorted(f"{value:.3f}" for value in values)
    assert {ax.collections[0].get_clim() for ax in panels} == {(0.05025, 0.081)}  # one scale of colours


def test_training_has_a_line_a_seed():
    curves = pd.DataFrame(
        [
            {"system": system, "seed": seed, "epoch": epoch, "validation_ndcg_at_5": 0.1 * epoch + seed}
            for system in ("fusion", "final_layer_head", "no_bias")
            for seed in (0, 1)
            for epoch in range(3)
        ]
    )
    (ax,) = training_figure(curves, ("fusion", "final_layer_head")).axes
    assert len(ax.lines) == 4
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1.0, 1.1, 1.2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["fusion", "final layer head"]


def test_folds_are_relative_to_each_folds_backbone_and_end_with_all_together():
    rows = [
        {
            "fold": fold,
            "role": role,
            "difference_to_backbone": gain,
            "difference_low": gain - 0.01,
            "difference_high": gain + 0.01,
            "backbone_ndcg_at_5": 0.4 + 0.1 * fold,
        }
        for fold in (0, 1)
        for role, gain in (("fusion", 0.04), ("head", 0.02), ("", 0.0))
    ]
    pooled = [
        {
            "system": system,
            "ndcg_at_5": 0.4 + gain,
            "difference_to_backbone": gain,
            "difference_low": gain - 0.01,
            "difference_high": gain + 0.01,
        }
        for system, gain in (("fusion", 0.02), ("head", 0.01), ("backbone", 0.0))
    ]
    (ax,) = folds_figure(pd.DataFrame(rows), pd.DataFrame(pooled)).axes
    fusion, head = ([*container.lines[0].get_ydata()] for container in ax.containers)
    np.testing.assert_allclose(fusion, [0.1, 0.08, 0.05])
    np.testing.assert_allclose(head, [0.05, 0.04, 0.025])
    assert labels(ax.xaxis) == ["0", "1", "all"]
