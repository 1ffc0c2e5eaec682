"""Pictures of what serving costs, drawn from ``cost.csv``."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.figures import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, finish_figure, new_figure

COLOURS = (BLACK, VERMILLION, BLUE, GREEN, ORANGE)
"""A colour for each system, in the order of the table: the backbone is black."""

MARKERS = {
    ("whole", "float32"): "o",
    ("whole", "int8, rescored"): "s",
    ("whole", "binary, rescored"): "^",
    ("first half", "float32"): "v",
    ("first quarter", "float32"): "P",
    ("late interaction", "float32"): "D",
    ("late interaction", "float16"): "X",
}
"""A marker for each form of the vectors."""

AXES = {
    "bytes_per_page_raw": "bytes per page of the vectors that are compared first (log scale)",
    "qps": "queries per second, search alone, one after the other (log scale)",
}
"""What a figure has to the right, and what that axis is called."""


def cost_of_serving_figure(
    table: pd.DataFrame, against: Literal["bytes_per_page_raw", "qps"], *, title: str = ""
) -> Figure:
    """Draw nDCG@5 against bytes per page or queries per second; a colour for a system, a marker for a form.

    Parameters
    ----------
    table : DataFrame
        ``cost.csv``. Published rows, which are of other data, and synthetic ones, which have no nDCG, are left out.
        Where pages were searched through a graph and exactly, the mark of the exact search is hollow.
    against : {"bytes_per_page_raw", "qps"}
        The axis to the right.
    title : str
        Data set.
    """
    rows = table[table["ndcg_at_5"].notna() & table[against].notna() & table["label"].eq("measured")]
    if against == "bytes_per_page_raw":  # both searches read the same bytes
        both = rows.duplicated(["system", "representation", "dtype"], keep=False)
        rows = rows[~(both & rows["search"].eq("exact"))]
    colours = dict(zip(dict.fromkeys(rows["system"]), COLOURS, strict=False))
    figure = new_figure(7.4, 4.2)
    ax = figure.subplots()
    for row in rows.itertuples():
        colour = colours.get(row.system, GREY)
        ax.plot(
            getattr(row, against),
            row.ndcg_at_5,
            MARKERS.get((row.representation, row.dtype), "*"),
            color=colour,
            markerfacecolor="white" if row.search == "exact" else colour,
            markersize=7,
        )
    for system, colour in colours.items():
        ax.plot([], [], "o", color=colour, label=system)
    for (form, dtype), marker in MARKERS.items():
        if (rows["representation"].eq(form) & rows["dtype"].eq(dtype)).any():
            ax.plot([], [], marker, color=GREY, label=f"{form}, {dtype}")
    ax.set(xscale="log", xlabel=AXES[against], ylabel="nDCG@5")
    ax.margins(0.1)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    figure.legend(*ax.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside right center")
    caption = (
        "Colours are systems, marks are forms of their vectors. A hollow mark is an exact search, a filled one goes "
        "through a graph. Compressed vectors are rescored by whole ones, which lie on disk besides."
    )
    return finish_figure(figure, title, caption)
