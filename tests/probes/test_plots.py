"""The figures show what the tables hold."""

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
            rows.append({
                "layer": layer, "kind": kind, "raw_ndcg_at_5": 0.1 * layer, "validation_ndcg_at_5": value,
                "low": value - 0.02, "high": value + 0.03, "difference_to_other_kind": 0.05 if number else -0.05,
                "difference_low": -0.01, "difference_high": 0.09, "alignment_ratio_page_final": 0.25 * (layer + 1),
                "alignment_ratio_query_page": None if layer == 0 else 1.5, "chosen_kind": "base" if layer > 1 else
                "normalized_projection", "selected": layer in (1, 3),
            })  # fmt: skip
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
