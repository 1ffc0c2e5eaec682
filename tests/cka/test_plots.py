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

from miner_diag.cka.curves import MEASURES, curve_frame, table_curves
from miner_diag.cka.diagnosis import Rules, diagnose
from miner_diag.cka.plots import cka_heat_map, depth_curves, layer_curves, layer_figure
from miner_diag.cka.table import diagnosis_records, layer_table, page_matrix_frame


@pytest.fixture(scope="module")
def frame(planted):
    who = {"model": "m", "model_revision": "r", "dataset": "d", "split": "validation", "width": 16, "seed": 0}
    return curve_frame(diagnosis_records(planted.diagnosis, **who))


@pytest.fixture(scope="module")
def table(planted):
    return layer_table(planted.diagnosis).set_index("layer")


@pytest.fixture
def figure(planted, frame):
    kinds = [layer.probe_kind or "normalized_projection" for layer in planted.diagnosis.layers]
    return layer_curves(frame, kinds, threshold=0.5, chance=planted.diagnosis.chance, title="m on d")


def made_up(n_layers):
    """A frame of any depth."""
    rng = np.random.default_rng(n_layers)
    rows = []
    for measure in (
        "cka_page_final",
        "cka_query_final",
        "cka_query_page",
        "cka_query_page_null",
        "alignment_ratio_page_final",
        "alignment_ratio_query_final",
        "alignment_ratio_query_page",
        "ndcg_at_5",
    ):
        for layer in range(n_layers):
            value = rng.uniform(0.1, 0.9)
            rows.append({"measure": measure, "layer": layer, "value": value, "low": value - 0.1, "high": value + 0.1})
    return pd.DataFrame(rows)


def curve(ax, label):
    """The line of this name."""
    (line,) = (line for line in ax.get_lines() if line.get_label() == label)
    return line


def shades(ax):
    return [collection for collection in ax.collections if isinstance(collection, PolyCollection)]


def drawn_boxes(figure, texts):
    """Extents of the texts that show, in pixels."""
    figure.canvas.draw()
    return {text: text.get_window_extent() for text in texts if text.get_visible() and text.get_text().strip()}


def test_three_panels_with_names_on_their_axes(figure):
    assert len(figure.axes) == 3
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert "CKA" in labels[0] and "alignment ratio" in labels[1] and "nDCG@5" in labels[2]
    assert "layer" in figure.axes[2].get_xlabel()
    assert figure.get_suptitle() == "m on d"


def test_every_curve_draws_its_numbers(figure, table):
    cka, ratio, ndcg = figure.axes
    drawn = {
        "cka_page_final": curve(cka, "page to final"),
        "cka_query_final": curve(cka, "query to final"),
        "cka_query_page": curve(cka, "query to its page"),
        "alignment_ratio_page_final": curve(ratio, "page to final"),
        "alignment_ratio_query_final": curve(ratio, "query to final"),
        "alignment_ratio_query_page": curve(ratio, "query to its page"),
        "ndcg_at_5": curve(ndcg, "pooled layer, cosine"),
    }
    for measure, line in drawn.items():
        there = table[measure].dropna().astype(float)
        np.testing.assert_array_equal(line.get_xdata(), there.index, err_msg=measure)
        np.testing.assert_allclose(line.get_ydata(), there.to_numpy(), err_msg=measure)


def test_the_null_is_drawn_as_the_level_that_counts(figure, planted):
    (null,) = (line for line in figure.axes[0].get_lines() if "broken" in line.get_label())
    assert null.get_linestyle() == ":"
    upper = [layer.query_page.null.upper for layer in planted.diagnosis.layers[1:]]
    np.testing.assert_allclose(null.get_ydata(), upper)


def drawn(figure):
    """Everything that a figure draws: lines and shades of every panel with their numbers."""
    lines = [
        (line.get_label(), line.get_color(), line.get_marker(), np.asarray(line.get_xydata()).tolist())
        for ax in figure.axes
        for line in ax.get_lines()
    ]
    corners = [path.vertices.tolist() for ax in figure.axes for shade in shades(ax) for path in shade.get_paths()]
    return lines, corners


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
def test_the_figure_is_drawn_from_the_table_alone(planted, tmp_path, estimator):
    """What is read back from layers.csv gives the figure that the records give."""
    rules = Rules(estimator=estimator)
    diagnosis = diagnose(
        planted.queries, planted.pages, planted.gold, **planted.ids, rules=rules, rng=np.random.default_rng(0)
    )
    layer_table(diagnosis).to_csv(tmp_path / "layers.csv", index=False)
    who = {"model": "m", "model_revision": "r", "dataset": "d", "split": "validation", "width": 16, "seed": 0}
    frame = curve_frame(diagnosis_records(diagnosis, **who))
    kinds = [layer.probe_kind or "normalized_projection" for layer in diagnosis.layers]
    options = {"threshold": 0.5, "estimator": estimator, "title": "m on d"}
    from_records = layer_curves(frame, kinds, chance=diagnosis.chance, **options)
    from_table = layer_figure(pd.read_csv(tmp_path / "layers.csv"), **options)
    assert drawn(from_table) == drawn(from_records)
    assert drawn(layer_figure(layer_table(diagnosis), **options)) == drawn(from_records)


def test_the_rows_of_the_table_are_those_of_the_records(frame, table):
    ours = table_curves(table.reset_index()).set_index(["measure", "layer"]).sort_index()
    theirs = frame.set_index(["measure", "layer"])[["value", "low", "high"]].sort_index()
    theirs = theirs.loc[theirs.index.isin(ours.index)].astype(float)
    theirs.loc["cka_query_page_null", ["low", "high"]] = np.nan
    assert set(ours.index.get_level_values("measure")) == {*MEASURES, "cka_query_page_null"}
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)


def test_threshold_and_chance_are_lines(figure, planted):
    _, ratio, ndcg = figure.axes
    assert set(curve(ratio, "threshold 0.5").get_ydata()) == {0.5}
    (chance,) = (line for line in ndcg.get_lines() if line.get_label().startswith("random order"))
    assert set(chance.get_ydata()) == {planted.diagnosis.chance}
    assert ndcg.get_ylim()[0] == 0


def test_intervals_are_shaded(figure, planted):
    cka, ratio, ndcg = figure.axes
    assert (len(shades(cka)), len(shades(ndcg))) == (3, 1)
    assert len(shades(ratio)) >= 1
    corners = shades(ndcg)[0].get_paths()[0].vertices
    for layer in planted.diagnosis.layers:
        here = corners[corners[:, 0] == layer.layer][:, 1]
        assert here.min() == pytest.approx(layer.ndcg.low) and here.max() == pytest.approx(layer.ndcg.high)


def test_one_unbounded_interval_leaves_the_shades_of_the_other_layers():
    frame = made_up(7)
    frame.loc[(frame["measure"] == "alignment_ratio_page_final") & (frame["layer"] == 0), ["low", "high"]] = np.nan
    ratio = layer_curves(frame, ["base"] * 7, threshold=0.5, chance=0.1).axes[1]
    assert len(shades(ratio)) == 3
    right = [path.vertices[:, 0].max() for shade in shades(ratio) for path in shade.get_paths()]
    assert right == [6, 6, 6]


def test_base_and_projection_layers_are_told_apart(figure, planted):
    """By shape and by filling, so in grey print too; the legend says which is which."""
    for ax in figure.axes:
        circles = [line for line in ax.get_lines() if line.get_marker() == "o"]
        squares = [line for line in ax.get_lines() if line.get_marker() == "s"]
        assert circles and len(circles) == len(squares)
        base = {planted.layer[name] for name in ("copy", "loud", "final")}
        for line in circles:
            assert set(line.get_xdata()) <= base
            assert to_rgb(line.get_markerfacecolor()) == to_rgb(line.get_color())
        for line in squares:
            assert not set(line.get_xdata()) & base
            assert to_rgb(line.get_markerfacecolor()) == (1, 1, 1)
        marked = set().union(*(line.get_xdata() for line in circles + squares))
        assert marked == (set(range(7)) if ax is figure.axes[2] else set(range(1, 7)))
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert len(words) == 2 and "base" in words[0] and "projection" in words[1]
    handles = legend.legend_handles
    assert [handle.get_marker() for handle in handles] == ["o", "s"]


def test_every_curve_is_in_a_legend_and_colours_differ(figure):
    for ax in figure.axes:
        legend = {text.get_text() for text in ax.get_legend().get_texts()}
        named = {line.get_label() for line in ax.get_lines() if not line.get_label().startswith("_")}
        assert named == legend
    colours = [curve(figure.axes[0], f"{name}").get_color() for name in ("page to final", "query to final")]
    assert len(set(colours)) == 2


def test_a_measure_that_is_absent_is_not_drawn():
    frame = made_up(5)
    without_pairs = frame[~frame["measure"].str.contains("query_page")]
    figure = layer_curves(without_pairs, ["base"] * 5, threshold=0.5, chance=0.1)
    figure.canvas.draw()
    assert not any("pair" in line.get_label() for line in figure.axes[0].get_lines())


@pytest.mark.parametrize("n_layers", [2, 7, 29, 62])
def test_curves_of_any_depth_can_be_read(n_layers):
    kinds = ["normalized_projection"] * (n_layers - 1) + ["base"]
    figure = layer_curves(made_up(n_layers), kinds, threshold=0.5, chance=0.01, title="a model\n80 pages")
    width, height = figure.get_size_inches() * figure.dpi
    texts = [ax.xaxis.label for ax in figure.axes[2:]] + [ax.yaxis.label for ax in figure.axes]
    texts += [text for ax in figure.axes for text in ax.get_legend().get_texts()]
    left, right = figure.axes[2].get_xlim()
    texts += [tick for tick in figure.axes[2].get_xticklabels() if left <= tick.get_position()[0] <= right]
    boxes = drawn_boxes(figure, texts)
    for text, box in boxes.items():
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text
    for tick in figure.axes[2].get_xticks():
        assert float(tick).is_integer()


def test_the_heat_map_writes_its_numbers(planted):
    matrix = page_matrix_frame(planted.diagnosis)
    ax = cka_heat_map(matrix, title="m, pages of d")
    assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in matrix.to_numpy().ravel()]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("layer", "layer", "m, pages of d")
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
    (title,) = drawn_boxes(ax.figure, [ax.title]).values()
    assert 0 <= title.x0 and title.x1 <= width


def test_drawing_changes_no_settings_and_leaves_its_input_alone(frame):
    before, settings = frame.copy(), dict(mpl.rcParams)
    layer_curves(frame, ["base"] * 7, threshold=0.5, chance=0.1)
    cka_heat_map(pd.DataFrame(np.eye(4)))
    pd.testing.assert_frame_equal(frame, before)
    assert dict(mpl.rcParams) == settings


def test_backbones_of_different_depth_share_an_axis_from_0_to_1():
    frames = {"seven": made_up(7), "thirteen": made_up(13)}
    figure = depth_curves(frames, title="d, validation")
    for ax, measure in zip(figure.axes, ("cka_page_final", "alignment_ratio_page_final", "ndcg_at_5"), strict=True):
        for name, frame in frames.items():
            line = curve(ax, name)
            np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 1, frame["layer"].nunique()))
            rows = frame[frame["measure"] == measure].sort_values("layer")
            np.testing.assert_array_equal(line.get_ydata(), rows["value"])
        assert len(shades(ax)) == 2
        assert curve(ax, "seven").get_color() != curve(ax, "thirteen").get_color()
        assert curve(ax, "seven").get_marker() != curve(ax, "thirteen").get_marker()


def test_a_wide_interval_does_not_flatten_the_curves():
    frame = made_up(7)
    frame.loc[(frame["measure"] == "alignment_ratio_page_final") & (frame["layer"] == 0), "high"] = 40.0
    assert depth_curves({"m": frame}).axes[1].get_ylim()[1] < 2


def test_side_by_side_needs_one_to_four_backbones():
    for n in (0, 5):
        with pytest.raises(ValueError, match=f"1 to 4 backbones; got {n}"):
            depth_curves({str(number): made_up(3) for number in range(n)})
