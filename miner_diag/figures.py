"""What all figures share: palette, sizes that print at 8 cm, titles said by the table, heat maps, files that repeat."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, Formatter, FuncFormatter
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from miner_diag.files import atomic_path
from miner_diag.texts import inert

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Normalize

BLUE, VERMILLION, GREEN, ORANGE, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#000000", "#555555"
"""Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey print."""

_WHITE = "#ffffff"

DOTS_PER_INCH = 200
"""Resolution of the pictures that commands write."""
WIDTH = 4.2
"""Width of a figure in inches: printed at 8 cm it shrinks to three quarters, and its smallest text to 5.4 points."""
TEXT, SMALL = 8.0, 7.2
"""Sizes of text in points: labels, and what stands below or inside a figure."""
KIND_COLOURS = {"base": BLUE, "normalized_projection": VERMILLION}
"""The colour of each kind of probe in all figures."""
KIND_MARKERS = {"base": "o", "normalized_projection": "s"}
"""The mark of each kind of probe: a filled circle and an open square."""
MODEL_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""The marks of the retrievers in a figure of several, in the order in which its table names them."""


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own that pyplot knows nothing of, so that the caller's backend and figures stay.

    Parameters
    ----------
    width, height : float
        Size in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish_figure(figure: Figure, title: str = "", caption: str = "", *, spines: bool = False) -> Figure:
    """Put a title above and a caption below the axes, give all labels one size, and take away spines unless asked."""
    for ax in figure.axes:
        if not spines:
            ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=TEXT)
        for label in (ax.xaxis.label, ax.yaxis.label, ax.title):
            label.set_fontsize(TEXT)
    for text in figure.findobj(Text):
        if to_hex(text.get_color()) != _WHITE:  # which stands on a cell of a heat map
            text.set_color(dark(text.get_color()))
    width = figure.get_figwidth()
    if title:
        lines = [part for line in title.split("\n") for part in textwrap.wrap(line, int(15 * width))]
        figure.suptitle("\n".join(lines), fontsize=TEXT + 0.5, x=0.01, ha="left")
    if caption:
        figure.supxlabel("\n".join(textwrap.wrap(caption, int(17 * width))), fontsize=SMALL, x=0.01, ha="left")
    return figure


def only(table: pd.DataFrame, column: str) -> Any:
    """Return the one value of a column of a table, or None where it has none or several, or there is no such column."""
    values = list(table[column].dropna().unique()) if column in table else []
    return values[0] if len(values) == 1 else None


def subject(table: pd.DataFrame) -> str:
    """Return what a table says that it is of: "page-text on debian-docs-large, hidden queries, test".

    A column that is missing, or holds several values, is left out.
    """
    model, data, queries, split = (only(table, name) for name in ("model", "data", "queries", "split"))
    queries = None if queries is None else f"{queries} queries"
    of = " on ".join(str(part) for part in (model, data) if part is not None)
    return ", ".join(str(part) for part in (of, queries, split) if part)


def counts(table: pd.DataFrame) -> str:
    """Return the numbers of items that a table names, as the start of a caption: "2,941 queries, 1,089 pages. "."""
    parts = ((only(table, f"n_{what}"), what.replace("_", " ")) for what in ("training_pairs", "queries", "pages"))
    named = [f"{int(value):,} {what}" for value, what in parts if value is not None]
    return f"{', '.join(named)}. " if named else ""


def intervals_over(table: pd.DataFrame) -> str:
    """Return what the intervals of a table are over: "95 % intervals over 53 documents (worth 15.9) and seeds"."""
    confidence, n_documents, worth = (
        only(table, name) for name in ("confidence", "n_documents", "effective_documents")
    )
    level = "Intervals" if confidence is None else f"{confidence:.0%} intervals"
    if "n_documents" not in table:
        return f"{level} shaded or as bars"
    over = "single queries" if n_documents is None else f"{int(n_documents)} documents"
    if n_documents is not None and worth is not None and round(worth, 1) != n_documents:
        over += f" (worth {worth:.1f} of equal size)"
    n_seeds = table["n_seeds"].max() if "n_seeds" in table else 1
    return f"{level} over {over}{f' and {int(n_seeds)} seeds' if n_seeds > 1 else ''}"


def luminance(colour: Any) -> float:
    """Return the relative luminance of a colour, 0 (black) to 1 (white), as the WCAG 2.2 defines it."""
    rgb = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: Any, other: Any) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as the WCAG 2.2 defines it."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def readable_on(colour: Any) -> str:
    """Return black or white, whichever has the greater contrast to a colour; that is at least 4.58."""
    return max((BLACK, _WHITE), key=lambda text: contrast(text, colour))


def dark(colour: Any) -> Any:
    """Return a colour that text can have on white: the colour itself, or a darker one of its hue; contrast 4.5."""
    rgb = np.asarray(to_rgb(colour))
    while contrast(to_hex(tuple(rgb)), _WHITE) < 4.5:
        rgb = 0.97 * rgb
    return to_hex(tuple(rgb))


def heat_map(
    ax: Axes,
    values: pd.DataFrame,
    *,
    norm: Normalize,
    colours: str = "cividis",
    texts: pd.DataFrame | None = None,
    label: str = "",
    ticks: int = 14,
) -> QuadMesh:
    """Draw a table as coloured cells with texts that are readable on them, the first row on top.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    values : DataFrame [R, C]
        What colours the cells; names of rows and columns become labels.
    norm : Normalize
        From values to the scale of colours.
    colours : str
        Name of the scale of colours.
    texts : DataFrame [R, C], optional
        What is written into the cells.
    label : str
        Label of the scale; without one it is not drawn.
    ticks : int
        The most names that an axis shows.
    """
    mesh = ax.pcolormesh(values.to_numpy(float), cmap=colours, norm=norm, edgecolors="white", linewidth=0.4)
    for number, (names, axis) in enumerate(((values.columns, ax.xaxis), (values.index, ax.yaxis))):
        shown = range(0, len(names), -(-len(names) // ticks))
        axis.set_ticks([place + 0.5 for place in shown], [str(names[place]) for place in shown])
        axis.set_tick_params(length=0, rotation=0)
        (ax.set_xlim if number == 0 else ax.set_ylim)(0, len(names))
    ax.invert_yaxis()
    if texts is not None:
        faces = np.asarray(mesh.cmap(np.asarray(mesh.norm(values.to_numpy(float)))))
        for (row, column), text in np.ndenumerate(texts.to_numpy()):
            place = (column + 0.5, row + 0.5)
            ax.text(*place, text, ha="center", va="center", fontsize=TEXT, color=readable_on(faces[row, column][:3]))
    if label:
        colour_bar(mesh, [ax], label)
    return mesh


def colour_bar(mesh: QuadMesh, axes: Sequence[Axes], label: str) -> None:
    """Draw the scale of a heat map's colours beside its axes, as vectors."""
    figure = mesh.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(mesh, ax=list(axes), shrink=0.8, aspect=30)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face")  # else an SVG file would hold a picture
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TEXT)
    bar.set_label(label, fontsize=TEXT)


def legend_below(ax: Axes, handles: Sequence[Any], names: Sequence[str], *, columns: int = 3) -> None:
    """Put a legend below an axes and its label, in the middle of the figure, where it crosses nothing."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    down = ax.transAxes + ScaledTranslation(0, -(3 * TEXT + 12) / 72, figure.dpi_scale_trans)
    place = {"bbox_to_anchor": (0.5, 0.0), "bbox_transform": blended_transform_factory(figure.transFigure, down)}
    look = {"fontsize": SMALL, "frameon": False, "columnspacing": 1.0, "handletextpad": 0.4, "borderaxespad": 0.0}
    ax.legend(handles, names, loc="upper center", ncols=columns, **place, **look)


def shade(ax: Axes, x: Any, low: Any, high: Any, colour: str) -> None:
    """Shade an interval at every x, and mark with a small triangle where the panel cuts it; set its limits before."""
    x, low, high = (np.asarray(values, dtype=float) for values in (x, low, high))
    if not np.isfinite(low).any():
        return
    bottom, top = ax.get_ylim()
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)  # an interval that is unbounded leaves a gap
    for cut, edge, marker in ((high > top, top, "^"), (low < bottom, bottom, "v")):
        if cut.any():
            ax.plot(x[cut], np.full(cut.sum(), edge), marker, color=colour, markersize=3.5, clip_on=False, zorder=5)
    ax.set_ylim(bottom, top)


def _show_names_as_they_are(figure: Figure) -> None:
    """Take no dollar sign in a name for a formula, and draw the codes of characters that cannot be drawn."""
    texts = [text for text in figure.texts if text.get_text()]
    texts += [text for name in ("_suptitle", "_supxlabel") if (text := getattr(figure, name, None)) is not None]
    for ax in figure.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis in (ax.xaxis, ax.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FixedFormatter | FuncFormatter):  # labels may be names; drawing sets them anew
                axis.set_major_formatter(FuncFormatter(partial(_shown_label, formatter)))
                for tick in axis.get_major_ticks():
                    tick.label1.set_parse_math(False)
        legend = ax.get_legend()
        texts += [] if legend is None else legend.get_texts()
    for legend in figure.legends:
        texts += legend.get_texts()
    for text in texts:
        text.set_parse_math(False)
        text.set_text(_shown(text.get_text()))


def _shown_label(formatter: Formatter, value: float, position: int | None = None) -> str:
    return _shown(str(formatter(value, position)))  # names of ticks may be numbers


def _shown(text: str) -> str:
    """Return text of one or more lines, each made inert."""
    return "\n".join(inert(line) for line in text.split("\n"))


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file and as an SVG file beside it, each whole or not at all.

    Names in titles and legends are shown as they are. The same figure gives the same bytes: neither file holds a time.

    Parameters
    ----------
    figure : Figure
        What is written.
    path : path
        The PNG file.
    """
    _show_names_as_they_are(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": None})
    with atomic_path(Path(path).with_suffix(".svg")) as temporary, mpl.rc_context({"svg.hashsalt": "miner_diag"}):
        figure.savefig(temporary, metadata={"Date": None, "Creator": None})
