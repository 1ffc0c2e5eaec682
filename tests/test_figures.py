"""What all figures share: texts that can be read, titles that the table says, files that repeat."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import Normalize

from miner_diag.figures import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    contrast,
    counts,
    dark,
    finish_figure,
    heat_map,
    intervals_over,
    luminance,
    new_figure,
    readable_on,
    save_figure,
    shade,
    subject,
)


def test_contrast_is_that_of_the_wcag():
    assert contrast("white", "black") == pytest.approx(21) and contrast("red", "red") == 1
    assert luminance("#808080") == pytest.approx(0.2159, abs=1e-4)  # ((128/255 + 0.055) / 1.055) ** 2.4
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.005)  # the usual example of just too little


@pytest.mark.parametrize("name", ["cividis", "PuOr_r", "viridis", "gray"])
def test_a_text_on_any_cell_has_enough_contrast(name):
    faces = mpl.colormaps[name](np.linspace(0, 1, 256))
    assert min(contrast(readable_on(face[:3]), face[:3]) for face in faces) >= 4.5
    assert min(contrast("white", face[:3]) for face in faces) < 4.5  # one colour for all would not do


@pytest.mark.parametrize("colour", [BLUE, VERMILLION, GREEN, ORANGE, "black", "#999999", "yellow"])
def test_coloured_text_is_dark_enough_for_white_paper(colour):
    assert contrast(dark(colour), "white") >= 4.5


def test_cells_hold_their_texts_in_a_colour_that_is_readable_on_them():
    values = pd.DataFrame(np.linspace(0, 1, 12).reshape(3, 4), index=[5, 6, 7], columns=list("abcd"))
    figure = new_figure(3, 3)
    ax = figure.subplots()
    mesh = heat_map(ax, values, norm=Normalize(0, 1), texts=values.map("{:.2f}".format))
    finish_figure(figure, "title", spines=True)
    faces = mesh.cmap(mesh.norm(values.to_numpy())).reshape(-1, 4)
    assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in values.to_numpy().ravel()]
    assert min(contrast(text.get_color(), face[:3]) for text, face in zip(ax.texts, faces, strict=True)) >= 4.5
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["5", "6", "7"] and ax.yaxis_inverted()


def test_titles_and_captions_come_from_columns_and_name_only_what_is_one():
    table = pd.DataFrame({"model": ["a", "b"], "data": "d", "queries": "hidden", "n_queries": 2941, "n_pages": 7})
    assert subject(table) == "d, hidden queries" and subject(table[:1]) == "a on d, hidden queries"
    assert counts(table) == "2,941 queries, 7 pages. " and counts(pd.DataFrame({"x": [1]})) == ""
    over = table.assign(confidence=0.95, n_documents=53, effective_documents=15.85, n_seeds=[1, 5])
    assert intervals_over(over) == "95% intervals over 53 documents (worth 15.8 of equal size) and 5 seeds"
    assert intervals_over(over.assign(n_documents=None, n_seeds=1)) == "95% intervals over single queries"
    assert "over" not in intervals_over(table)


def test_an_interval_that_a_panel_cuts_is_marked():
    ax = new_figure(3, 2).subplots()
    ax.set_ylim(0, 1)
    shade(ax, [0, 1, 2], [0.1, -5.0, 0.2], [0.3, 0.4, 9.0], BLUE)
    marked = {line.get_marker(): line.get_xydata().tolist() for line in ax.lines}
    assert marked == {"^": [[2, 1]], "v": [[1, 0]]} and ax.get_ylim() == (0, 1)


def test_a_figure_is_saved_twice_with_the_same_bytes_as_picture_and_as_vectors(tmp_path):
    for name in ("one", "other"):
        figure = new_figure(2, 2)
        figure.subplots().plot([1, 2], [3, 4], label="x")
        figure.axes[0].legend()
        save_figure(finish_figure(figure, "a title"), tmp_path / f"{name}.png")
    for suffix in ("png", "svg"):
        one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "other"))
        assert one == other and len(one) > 1000
    assert b"<dc:date>" not in (tmp_path / "one.svg").read_bytes()
