"""What all figures share: the palette, and figures that belong to nobody else."""

from __future__ import annotations

import textwrap
from functools import partial
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, Formatter, FuncFormatter

from miner_diag.files import atomic_path
from miner_diag.texts import inert

BLUE, VERMILLION, GREEN, ORANGE, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#000000", "#555555"
"""Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey print."""

DOTS_PER_INCH = 200
"""Resolution of the pictures that commands write."""


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
    """Put a title above and a caption below the axes, and take away the spines that carry nothing, unless asked."""
    if not spines:
        for ax in figure.axes:
            ax.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    if caption:
        wide = int(19 * figure.get_figwidth())  # characters of a line at this size
        figure.supxlabel("\n".join(textwrap.wrap(caption, wide)), fontsize=7, x=0.01, ha="left")
    return figure


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
    """Write a figure as a PNG file, whole or not at all; names in titles and legends are shown as they are."""
    _show_names_as_they_are(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
