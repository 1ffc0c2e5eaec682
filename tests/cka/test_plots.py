"""The figures say what they draw, draw every number they are given, and can be read."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb

from miner_diag.cka.diagnosis import Rules, diagnose
from miner_diag.cka.plots import ALIGNED, cka_heat_map, cka_matrix_figure, depth_figure, layer_figure, matrix_table
from miner_diag.cka.table import layer_table, page_matrix_frame
from miner_diag.tables import with_subject

MEASURES = ("cka_page_final", "cka_query_final", "cka_query_page")


@pytest.fixture(scope="module")
def table(planted):
    facts = {"model": "m", "data": "d", "confidence": 0.95, "ratio_threshold": 0.5}
    return with_subject(layer_table(planted.diagnosis), **facts)


@pytest.fixture
def figure(table):
    return layer_figure(table)


def made_up(n_layers):
    """A table of layers of any depth."""
    rng = np.random.default_rng(n_layers)
    measures = [
        f"{name}_{view}" for name in ("cka", "alignment_ratio") for view in ("page_final", "query_final", "query_page")
    ]
    rows = {"layer": range(n_layers), "retrieval_aligned": [layer > n_layers - 3 for layer in range(n_layers)]}
    for measure in (*measures, "ndcg_at_5"):
        value = rng.uniform(0.1, 0.9, n_layers)
        rows |= {measure: value, f"{measure}_low": value - 0.1, f"{measure}_high": value + 0.1}
    kinds = ["normalized_projection"] * (n_layers - 1) + ["base"]
    null = {"cka_query_page_null_p95": 0.05, "cka_query_page_null_mean": None, "cka_query_page_p": 0.01}
    return pd.DataFrame(rows).assign(probe_kind=kinds, chance_ndcg_at_5=0.01, ratio_threshold=0.5, n_queries=80, **null)


def curve(ax):
    """The solid line through all layers."""
    return next(line for line in ax.get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) > 1)


def shades(ax):
    return [collection for collection in ax.collections if isinstance(collection, PolyCollection)]


def drawn_boxes(figure, texts):
    """Extents of the texts that show, in pixels."""
    figure.canvas.draw()
    return {text: text.get_window_extent() for text in texts if text.get_visible() and text.get_text().strip()}


def test_a_panel_for_each_comparison_and_one_for_ndcg(figure):
    assert [ax.get_title() for ax in figure.axes[:3]] == ["page to final", "query to final", "query to its page"]
    labels = [figure.axes[number].get_ylabel() for number in (0, 3, 6)]
    assert labels[0] == "CKA (debiased)" and "alignment ratio" in labels[1] and "nDCG@5" in labels[2]
    assert "layer" in figure.axes[6].get_xlabel() and len(figure.axes) == 7
    assert figure.get_suptitle().endswith("m on d") and "95% intervals over" in figure.get_supxlabel()


def test_every_curve_draws_its_numbers(figure, table):
    columns = [*MEASURES, *(name.replace("cka", "alignment_ratio") for name in MEASURES), "ndcg_at_5"]
    for ax, column in zip(figure.axes, columns, strict=True):
        line = curve(ax)
        np.testing.assert_array_equal(line.get_xdata(), table["layer"], err_msg=column)
        np.testing.assert_allclose(line.get_ydata(), table[column].astype(float), err_msg=column)


def test_the_null_is_drawn_as_the_level_that_counts(figure, planted):
    ax = figure.axes[2]
    (null,) = (line for line in ax.get_lines() if line.get_linestyle() == "--")
    upper = [layer.query_page.null.upper for layer in planted.diagnosis.layers[1:]]
    np.testing.assert_allclose(null.get_ydata()[1:], upper)
    assert "95th percentile" in ax.texts[0].get_text() and "p " in ax.texts[0].get_text()


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
def test_the_figure_is_drawn_from_the_file_alone(planted, tmp_path, estimator):
    rules = Rules(estimator=estimator)
    diagnosis = diagnose(
        planted.queries, planted.pages, planted.gold, **planted.ids, rules=rules, rng=np.random.default_rng(0)
    )
    table = with_subject(layer_table(diagnosis), estimator=estimator)
    table.to_csv(tmp_path / "layers.csv", index=False)
    figures = [layer_figure(given) for given in (table, pd.read_csv(tmp_path / "layers.csv"))]
    numbers = [[line.get_xydata().tolist() for ax in figure.axes for line in ax.get_lines()] for figure in figures]
    assert str(numbers[0]) == str(numbers[1])
    assert figures[0].axes[0].get_ylabel() == f"CKA ({estimator})"


def test_threshold_and_chance_are_lines(figure, planted):
    for ax in figure.axes[3:6]:
        assert any(set(line.get_ydata()) == {0.5} for line in ax.get_lines())
    assert "threshold 0.5" in [text.get_text() for ax in figure.axes[3:6] for text in ax.texts]
    ndcg = figure.axes[6]
    assert any(set(line.get_ydata()) == {planted.diagnosis.chance} for line in ndcg.get_lines())
    assert ndcg.get_ylim()[0] == 0 and "random order" in figure.get_supxlabel()


def test_intervals_are_shaded(figure, planted):
    assert [len(shades(ax)) for ax in (*figure.axes[:3], figure.axes[6])] == [1, 1, 1, 1]
    corners = shades(figure.axes[6])[0].get_paths()[0].vertices
    for layer in planted.diagnosis.layers:
        here = corners[corners[:, 0] == layer.layer][:, 1]
        assert here.min() == pytest.approx(layer.ndcg.low) and here.max() == pytest.approx(layer.ndcg.high)


def test_retrieval_aligned_layers_have_a_ground_of_their_own():
    for ax in layer_figure(made_up(7)).axes:
        grounds = [patch for patch in ax.patches if to_rgb(patch.get_facecolor()) == to_rgb(ALIGNED)]
        assert [round(patch.get_x() + patch.get_width() / 2) for patch in grounds] == [5, 6]


def test_an_interval_that_leaves_the_panel_is_marked_and_does_not_flatten_the_curves():
    table = made_up(7)
    table.loc[2, "alignment_ratio_page_final_high"] = 40.0
    ax = layer_figure(table).axes[3]
    assert ax.get_ylim()[1] < 2
    assert [line.get_xdata().tolist() for line in ax.get_lines() if line.get_marker() == "^"] == [[2.0]]


def test_base_and_projection_layers_are_told_apart(figure, planted):
    """By shape and by filling, so in grey print too; the legend says which is which."""
    base = {planted.layer[name] for name in ("copy", "loud", "final")}
    for ax in figure.axes:
        circles, squares = ([line for line in ax.get_lines() if line.get_marker() == marker] for marker in "os")
        assert all(set(line.get_xdata()) <= base for line in circles)
        assert all(to_rgb(line.get_markerfacecolor()) == to_rgb(line.get_color()) for line in circles)
        assert not any(set(line.get_xdata()) & base for line in squares)
        assert all(to_rgb(line.get_markerfacecolor()) == (1, 1, 1) for line in squares)
    legend = figure.axes[6].get_legend()
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["base probe enough", "projection needed", "retrieval-aligned"]
    assert [handle.get_marker() for handle in legend.legend_handles[:2]] == ["o", "s"]


@pytest.mark.parametrize("n_layers", [2, 7, 29, 62])
def test_curves_of_any_depth_can_be_read(n_layers):
    figure = layer_figure(made_up(n_layers))
    width, height = figure.get_size_inches() * figure.dpi
    texts = [figure.axes[6].xaxis.label, *(ax.yaxis.label for ax in figure.axes)]
    texts += figure.axes[6].get_legend().get_texts()
    for text, box in drawn_boxes(figure, texts).items():
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text
    for tick in figure.axes[6].get_xticks():
        assert float(tick).is_integer()


def test_the_heat_map_writes_its_numbers(planted):
    matrix = page_matrix_frame(planted.diagnosis)
    ax = cka_heat_map(matrix, title="m, pages of d")
    assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in matrix.to_numpy().ravel()]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.figure.get_suptitle()) == ("layer", "layer", "m, pages of d")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "3", "4", "5", "6"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1", "2", "3", "4", "5", "6"]
    (bar,) = (other for other in ax.figure.axes if other is not ax)
    assert "CKA" in bar.get_ylabel()


def test_the_heat_map_shows_negative_values_and_its_top_is_one(planted):
    matrix = page_matrix_frame(planted.diagnosis)
    assert matrix.to_numpy().min() < 0
    mesh = cka_heat_map(matrix).collections[0]
    assert mesh.norm.vmin <= matrix.to_numpy().min() and mesh.norm.vmax == 1
    assert cka_heat_map(matrix.abs()).collections[0].norm.vmin == 0


def test_the_heat_map_goes_into_an_axes_that_is_there(planted):
    figure, ax = plt.subplots()
    assert cka_heat_map(page_matrix_frame(planted.diagnosis), ax) is ax
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("n_layers", [2, 7, 14, 29, 62])
def test_heat_maps_of_any_depth_can_be_read(n_layers):
    values = np.clip(1 - 0.05 * np.abs(np.subtract.outer(np.arange(n_layers), np.arange(n_layers))), 0, 1)
    ax = cka_heat_map(pd.DataFrame(values), title=f"a model with a long name, pages of documents, n = {n_layers}")
    assert len(ax.texts) in (0, n_layers**2)
    for axis in (ax.xaxis, ax.yaxis):
        boxes = list(drawn_boxes(ax.figure, axis.get_ticklabels()).values())
        assert boxes
        for one, other in itertools.pairwise(boxes):
            assert not one.overlaps(other)
    if ax.texts:  # a number stays in its cell
        cell = ax.transData.transform((1, 1)) - ax.transData.transform((0, 0))
        for box in drawn_boxes(ax.figure, ax.texts).values():
            assert box.width <= abs(cell[0]) and box.height <= abs(cell[1])
    width, _ = ax.figure.get_size_inches() * ax.figure.dpi
    (title,) = drawn_boxes(ax.figure, [ax.figure._suptitle]).values()
    assert 0 <= title.x0 and title.x1 <= width


def test_the_heat_map_is_drawn_from_its_long_table(planted):
    matrix = page_matrix_frame(planted.diagnosis)
    figure = cka_matrix_figure(with_subject(matrix_table(matrix), model="m", data="d", n_pages=9))
    shown = figure.axes[0].collections[0].get_array()
    np.testing.assert_allclose(np.asarray(shown), matrix.to_numpy())
    assert figure.get_suptitle().endswith("m on d, n = 9 pages")


def test_drawing_changes_no_settings_and_leaves_its_input_alone():
    given, settings = made_up(5), dict(mpl.rcParams)
    before = given.copy()
    layer_figure(given)
    cka_heat_map(pd.DataFrame(np.eye(4)))
    pd.testing.assert_frame_equal(given, before)
    assert dict(mpl.rcParams) == settings


def depths(*n_layers):
    rows = [
        {
            "model": f"m{n}",
            "measure": measure,
            "layer": layer,
            "value": 0.1 * number + layer / n,
            "low": 0.0,
            "high": 1.0,
        }
        for n in n_layers
        for number, measure in enumerate(("cka_page_final", "alignment_ratio_page_final", "ndcg_at_5"))
        for layer in range(n)
    ]
    return pd.DataFrame(rows)


def test_backbones_of_different_depth_have_panels_with_an_axis_from_0_to_1():
    table = depths(7, 13)
    figure = depth_figure(table)
    panels = np.array(figure.axes).reshape(3, 2)
    assert [ax.get_title() for ax in panels[0]] == ["m7", "m13"]
    for row, measure in zip(panels, ("cka_page_final", "alignment_ratio_page_final", "ndcg_at_5"), strict=True):
        for ax, n in zip(row, (7, 13), strict=True):
            line = curve(ax)
            np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 1, n))
            rows = table[(table["measure"] == measure) & (table["model"] == f"m{n}")]
            np.testing.assert_array_equal(line.get_ydata(), rows["value"])
            assert len(shades(ax)) == 1


def test_a_wide_interval_does_not_flatten_the_curves():
    table = depths(7)
    table.loc[table["measure"].eq("alignment_ratio_page_final") & table["layer"].eq(1), "high"] = 40.0
    assert depth_figure(table).axes[1].get_ylim()[1] < 2


def test_side_by_side_needs_one_to_four_backbones():
    for n in (0, 5):
        with pytest.raises(ValueError, match=f"1 to 4 backbones; got {n}"):
            depth_figure(depths(*range(3, 3 + n)) if n else depths(3)[:0])
