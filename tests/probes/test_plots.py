"""The figures show what the tables hold."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from miner_diag.probes.plots import probe_figure, ratio_figure, salience_figure
from miner_diag.probes.ratio_table import ratio_table


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
                    "p_holm": 0.01,
                    "difference_high": 0.09,
                    "alignment_ratio_page_final": 0.25 * (layer + 1),
                    "alignment_ratio_query_page": None if layer == 0 else 1.5,
                    "chosen_kind": "base" if layer > 1 else "normalized_projection",
                    "selected": layer in (1, 3),
                }
            )
    return pd.DataFrame(rows)


def test_probe_curves_draw_every_layer_and_mark_what_is_kept(table):
    figure = probe_figure(table.assign(chance=0.01, model="m", data="d"))
    (ax,) = figure.axes
    raw = next(line for line in ax.lines if line.get_label() == "raw layer")
    np.testing.assert_allclose(raw.get_ydata(), [0, 0.1, 0.2, 0.3])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"base probe", "normalized projection", "kept layer", "random order (0.010)"} <= set(labels)
    rings = [line for line in ax.lines if line.get_markersize() == 11]
    assert sorted(round(float(x)) for ring in rings for x in ring.get_xdata()) == [1, 3]
    assert "m on d" in figure.get_suptitle() and "nDCG@5" in ax.get_ylabel()


def test_ratio_leaves_out_layers_without_one(table):
    above, below = ratio_figure(ratio_table(table)).axes
    assert numbers(above) == ["0", "1", "2", "3"] and numbers(below) == ["1, 2, 3"]  # which lie at one point


def test_the_ratio_table_says_how_ratio_and_benefit_go_together(table):
    falling = table.assign(difference_to_other_kind=-table["layer"].astype(float))
    ratios = ratio_table(falling).set_index("reading")
    assert ratios.loc["alignment_ratio_page_final", "spearman"].eq(-1).all()
    assert ratios.loc["alignment_ratio_query_page", "spearman"].isna().all()  # one ratio for all layers
    assert "Spearman -1.00 over 4 layers" in ratio_figure(ratio_table(falling)).axes[0].get_xlabel()


def test_a_number_stands_on_its_point_and_layers_that_lie_together_share_one_text(table):
    apart = ratio_table(table.assign(difference_to_other_kind=0.05 * table["layer"]))
    ax = ratio_figure(apart).axes[0]
    points = {str(row.layer): (row.ratio, row.difference) for row in apart.itertuples() if "page_final" in row.reading}
    assert {text.get_text(): text.get_position() for text in ax.texts if text.get_text().strip()[0].isdigit()} == points
    column = "alignment_ratio_page_final"
    together = ratio_figure(
        ratio_table(table.assign(**{column: 0.5 + 1e-5 * (table["layer"] > 1) + 0.4 * (table["layer"] > 2)}))
    )
    assert numbers(together.axes[0]) == ["0, 1, 2", "3"]


def numbers(ax):
    return sorted(text.get_text() for text in ax.texts if text.get_text().strip()[0].isdigit())


def test_the_legend_of_the_curves_covers_none_of_them(table):
    figure = probe_figure(table)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    legend = ax.get_legend().get_window_extent()
    assert not legend.overlaps(ax.get_window_extent())
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1


def test_figures_are_the_callers_alone(table):
    """Pyplot knows nothing of them: it neither shows them a second time nor keeps them in memory."""
    before = mpl.get_backend()
    plt.switch_backend("svg")
    try:
        probe_figure(table)
        ratio_figure(ratio_table(table))
        assert mpl.get_backend() == "svg" and plt.get_fignums() == []
    finally:
        plt.switch_backend(before)


def test_salience_is_the_share_of_neurons_that_holds_it():
    frame = pd.DataFrame(
        [
            {"kind": kind, "layer": layer, "neurons": share, "salience": 1 - (1 - share) ** (layer + 1)}
            for kind in ("base", "normalized_projection")
            for layer in range(20)
            for share in np.arange(1, 11) / 10
        ]
    )
    figure = salience_figure(frame)
    assert [ax.get_title() for ax in figure.axes] == ["base probe", "normalized projection"]
    for ax in figure.axes:
        curves = [line for line in ax.lines if len(line.get_xdata()) == 20]
        assert [line.get_ydata()[0] for line in curves] == [0.5, 0.8, 0.9]  # all alike: 50 %, 75 %, 90 %, in tenths
        assert [line.get_ydata()[1] for line in curves] == [0.3, 0.5, 0.7]  # 1 - 0.7² = 0.51, 1 - 0.5² = 0.75, 0.91
        assert [text.get_text() for text in ax.texts] == ["50%", "75%", "90%"]
