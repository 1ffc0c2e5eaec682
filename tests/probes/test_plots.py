"""The figures show what the tables hold."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from miner_diag.probes.plots import probe_curves, ratio_against_benefit, salience_curves


@pytest.fixture
def table():
    rows = []
    for layer in range(4):
        for number, kind in enumerate(("base", "normalized_projection")):
            value = 0.1 * layer + 0.05 * number
            rows.append(
                {
                    "layer": layer,
                    "kind": kind,
                    "raw_ndcg_at_5": 0.1 * layer,
                    "validation_ndcg_at_5": value,
                    "low": value - 0.02,
                    "high": value + 0.03,
                    "difference_to_other_kind": 0.05 if number else -0.05,
                    "difference_low": -0.01,
                    "difference_high": 0.09,
                    "alignment_ratio_page_final": 0.25 * (layer + 1),
                    "alignment_ratio_query_page": None if layer == 0 else 1.5,
                    "chosen_kind": "base" if layer > 1 else "normalized_projection",
                    "selected": layer in (1, 3),
                }
            )
    return pd.DataFrame(rows)


def test_probe_curves_draw_every_layer_and_mark_what_is_kept(table):
    ax = probe_curves(table, chance=0.01, title="a title")
    raw = next(line for line in ax.lines if line.get_label() == "raw layer")
    np.testing.assert_allclose(raw.get_ydata(), [0, 0.1, 0.2, 0.3])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"base probe", "normalized projection", "layer is kept", "random order (0.010)"} <= set(labels)
    rings = [line for line in ax.lines if line.get_markersize() == 13]
    assert sorted(round(float(x)) for ring in rings for x in ring.get_xdata()) == [1, 3]
    assert ax.get_title() == "a title" and "nDCG@5" in ax.get_ylabel()


def test_ratio_leaves_out_layers_without_one(table):
    left, right = ratio_against_benefit(table, threshold=0.5).axes
    assert sorted(text.get_text() for text in left.texts) == ["0", "1", "2", "3"]
    assert sorted(text.get_text() for text in right.texts) == ["1", "2", "3"]


def test_labels_of_layers_that_lie_together_stand_apart(table):
    column = "alignment_ratio_page_final"
    together = table.assign(**{column: 0.5 + 1e-3 * table["layer"]})
    figure = ratio_against_benefit(together, threshold=0.5)
    figure.draw_without_rendering()
    left = figure.axes[0]
    boxes = [text.get_window_extent() for text in left.texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
    points = left.transData.transform(together[["alignment_ratio_page_final", "difference_to_other_kind"]])
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_lines_to_labels_pass_by_other_points(table):
    """Four layers that lie as those of page-text do: the second's label can't stand right above the third's point."""
    near = table.assign(alignment_ratio_query_page=[1.444, 1.444, 1.476, 1.476, 1.511, 1.511, 1.416, 1.416])
    far = near.tail(2).assign(layer=9, alignment_ratio_query_page=0.66)
    benefit = np.repeat([0.148, 0.135, 0.143, 0.132, 0.0], 2)
    near = pd.concat([near, far]).assign(
        difference_to_other_kind=benefit,
        difference_low=benefit - 0.03,
        difference_high=benefit + 0.03,
    )
    figure = ratio_against_benefit(near, threshold=0.5)
    figure.draw_without_rendering()
    ax = next(ax for ax in figure.axes if "their pages" in ax.get_xlabel())
    points = ax.transData.transform(
        np.unique(near[["alignment_ratio_query_page", "difference_to_other_kind"]].to_numpy(), axis=0)
    )
    for text in ax.texts:
        own, end = ax.transData.transform(text.xy), text.get_window_extent().get_points().mean(axis=0)
        others = points[np.abs(points - own).max(axis=1) > 0.5]
        steps = own + np.linspace(0, 1, 50)[:, None] * (end - own)
        nearest = np.abs(steps[:, None] - others).max(axis=2).min()
        assert nearest > 3 * figure.dpi / 72, text.get_text()  # a marker is 5 points wide


def test_the_legend_of_the_curves_covers_none_of_them(table):
    ax = probe_curves(table, chance=0.01)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    assert not legend.overlaps(ax.get_window_extent())
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1


def test_figures_are_the_callers_alone(table):
    """Pyplot knows nothing of them: it neither shows them a second time nor keeps them in memory."""
    before = mpl.get_backend()
    plt.switch_backend("svg")
    try:
        probe_curves(table, chance=0.01)
        ratio_against_benefit(table, threshold=0.5)
        assert mpl.get_backend() == "svg" and plt.get_fignums() == []
    finally:
        plt.switch_backend(before)


def test_salience_has_a_panel_per_kind_and_a_line_per_layer():
    frame = pd.DataFrame(
        [
            {"kind": kind, "layer": layer, "neurons": share, "salience": share**0.5}
            for kind in ("base", "normalized_projection")
            for layer in range(20)
            for share in (0.5, 1.0)
        ]
    )
    figure = salience_curves(frame, title="t")
    assert [ax.get_title() for ax in figure.axes] == ["base probe", "normalized projection"]
    assert all(len(ax.lines) == 22 for ax in figure.axes)  # and two guides
    assert len(figure.axes[1].get_legend().get_texts()) == 3  # a deep backbone names three of its layers
