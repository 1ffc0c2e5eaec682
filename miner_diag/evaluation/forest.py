"""Rows of differences with intervals, in groups with headings: what the figures of an evaluation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from miner_diag.figures import BLACK, BLUE, GREEN, GREY, MODEL_MARKERS, ORANGE, SMALL, VERMILLION, legend_below

ROLE_COLOURS = {"backbone": BLACK, "head": BLUE, "fusion": VERMILLION, "late": GREEN, "lexical": ORANGE}
"""Role -> colour; other roles are grey."""


@dataclass(frozen=True)
class Mark:
    """One difference with its interval."""

    value: float
    """The difference."""
    low: float
    """The lower end of its interval; NaN where there is none."""
    high: float
    """The upper end."""
    colour: str = GREY
    """The colour of the mark and its interval."""
    marker: str = "o"
    """Which retriever it is of, where there are several."""
    filled: bool = False
    """Whether the difference is established."""


@dataclass(frozen=True)
class Row:
    """One labelled row with a mark for each retriever; without marks it is a heading."""

    label: str
    """What stands at its left."""
    marks: Sequence[Mark] = ()
    """What stands in it, from above."""
    colour: str = BLACK
    """The colour of the label."""


def n_lines(rows: Sequence[Row]) -> float:
    """Return the height of rows in lines; each further mark of a row needs half a line."""
    return sum(1 + 0.5 * max(0, len(row.marks) - 1) for row in rows)


def draw_rows(ax: Axes, rows: Sequence[Row], *, labels: bool = True) -> list[float]:
    """Draw rows from above; what lies outside the axes' limits, which are set before, is an arrow with its number.

    Returns
    -------
    list of float
        The height of each row's middle.
    """
    left, right = ax.get_xlim()
    places, edge = [], 0.0
    for row in rows:
        height = n_lines([row])
        places.append(edge + height / 2)
        for number, mark in enumerate(row.marks):
            place = edge + height / 2 + 0.5 * (number - (len(row.marks) - 1) / 2)
            _draw_mark(ax, mark, place, left, right)
        edge += height
    ax.set_ylim(edge, 0)
    ax.set_xlim(left, right)
    ax.axvline(0, color="0.4", linewidth=0.9, zorder=0)
    ax.grid(axis="x", color="0.9", linewidth=0.7)
    ax.set_yticks(places, [row.label for row in rows] if labels else [""] * len(rows))
    ax.tick_params(axis="y", length=0)
    for row, tick in zip(rows, ax.get_yticklabels(), strict=True):
        tick.set_color(row.colour)
        if not row.marks:
            tick.set_fontweight("bold")
    return places


def _draw_mark(ax: Axes, mark: Mark, place: float, left: float, right: float) -> None:
    look: dict[str, Any] = {"color": mark.colour, "markersize": 4.5}
    face = mark.colour if mark.filled else "white"
    if left <= mark.value <= right:
        ends = np.array([[mark.value - mark.low], [mark.high - mark.value]])
        has_ends = bool(np.isfinite(ends).all())
        ax.errorbar(
            mark.value,
            place,
            xerr=np.maximum(ends, 0) if has_ends else None,
            fmt=mark.marker,
            capsize=2,
            elinewidth=1.1,
            markerfacecolor=face,
            **look,
        )
        for beyond, edge, arrow in ((mark.low < left, left, "<"), (mark.high > right, right, ">")):
            if beyond:
                ax.plot(edge, place, arrow, clip_on=False, **look | {"markersize": 3.5})
        return
    beyond_left = mark.value < left
    edge = left if beyond_left else right
    ax.plot(edge, place, "<" if beyond_left else ">", markerfacecolor=face, clip_on=False, **look)
    ax.annotate(
        f"{mark.value:+.3f}",
        (edge, place),
        xytext=(5 if beyond_left else -5, 0),
        textcoords="offset points",
        ha="left" if beyond_left else "right",
        va="center",
        fontsize=SMALL,
    )


def reach(marks: Sequence[Mark]) -> tuple[float, float]:
    """Return limits around marks and their intervals, and around 0."""
    ends = np.array([[mark.value, mark.low, mark.high, 0.0] for mark in marks] or [[0.0, 0.01]])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = 0.06 * (high - low) or 0.01
    return low - room, high + room


def model_markers(models: Sequence[str]) -> dict[str, str]:
    """Return the marker of each retriever."""
    return {model: MODEL_MARKERS[number % len(MODEL_MARKERS)] for number, model in enumerate(models)}


def model_legend(ax: Axes, markers: dict[str, str]) -> None:
    """Say below the axes which marker is which retriever, where there are several."""
    if len(markers) > 1:
        handles = [Line2D([], [], color="0.3", marker=marker, linestyle="none") for marker in markers.values()]
        legend_below(ax, handles, list(markers))
