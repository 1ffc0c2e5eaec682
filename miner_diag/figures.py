"""What all figures share: the palette, and figures that belong to nobody else."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from miner_diag.files import atomic_path

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


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
