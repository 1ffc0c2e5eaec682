"""Every committed figure is drawn again from the CSV file beside it, and can be read at 8 cm."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from miner_diag.figures import contrast, save_figure
from miner_diag.report import figure_of, redraw
from miner_diag.report.redraw import FIGURES, kind_of

FOLDER = Path(__file__).parents[2] / "figures"
TABLES = [path for path in sorted(FOLDER.glob("*.csv")) if kind_of(path) is not None]
PRINTED = 8 / 2.54
"""Inches."""
SMALLEST = 5.0
"""Points, in print."""


def visible_texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def test_every_kind_of_figure_is_committed():
    assert {kind_of(path) for path in TABLES} == {*FIGURES, "folds"}
    drawn = {path.stem for path in FOLDER.glob("*.png")} - {path.stem for path in TABLES}
    # the first shows pages, which no table holds; notebook 07 draws the others, both from 07_cost.csv
    assert drawn == {"01_hidden_and_verbatim", "07_cost_bytes", "07_cost_speed"}, "a figure without a table"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_figure_is_that_of_its_table_and_can_be_read(path, tmp_path):
    figure = figure_of(path)
    save_figure(figure, tmp_path / "again.png")
    with Image.open(tmp_path / "again.png") as again, Image.open(path.with_suffix(".png")) as committed:
        assert again.size == committed.size
        apart = np.abs(np.asarray(again.convert("L"), float) - np.asarray(committed.convert("L"), float))
    assert apart.mean() < 0.5, f"figures/{path.stem}.png is not drawn from figures/{path.name}; draw it again"
    shrunk = PRINTED / figure.get_figwidth()
    small = {text.get_text(): text.get_fontsize() * shrunk for text in visible_texts(figure)}
    assert min(small.values()) >= SMALLEST, {text: size for text, size in small.items() if size < SMALLEST}
    on_cells = {id(text) for ax in figure.axes if ax.collections for text in ax.texts}
    pale = [t.get_text() for t in visible_texts(figure) if id(t) not in on_cells and contrast(t.get_color(), "w") < 4.5]
    assert not pale
    vectors = (tmp_path / "again.svg").read_bytes()
    assert len(vectors) < 300_000 and b"<image" not in vectors
    assert path.with_suffix(".svg").exists()


def test_a_folder_is_drawn_twice_with_the_same_bytes(tmp_path):
    name = "04_weights_hidden.csv"
    (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    (tmp_path / "maxsim.csv").write_text("case\n1\n")
    (picture,) = redraw(tmp_path)
    first = [path.read_bytes() for path in (picture, picture.with_suffix(".svg"))]
    (again,) = redraw(tmp_path, tmp_path)
    assert first == [path.read_bytes() for path in (again, again.with_suffix(".svg"))]


def test_a_table_of_no_figure_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"maxsim\.csv is the table of no figure; expected a name with one of"):
        figure_of(tmp_path / "maxsim.csv")
