"""The figures show what the tables hold."""

import numpy as np
import pandas as pd

from miner_diag.fusion.plots import sensitivity_figure, training_figure, weights_figure


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


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
    for numbers, threshold in zip(shown, (0.3, 0.5), strict=True):
        values = [row["validation_ndcg_at_5"] for row in rows if row["threshold"] == threshold]
        assert numbers == sorted(f"{value:.3f}" for value in values)
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
