"""Figures of the probes: what each gains at each layer, how few neurons it needs, and what the ratio foretold."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from miner_diag.embeddings.bm25_reference import draw_bm25
from miner_diag.figures import BLACK, BLUE, VERMILLION, finish_figure, new_figure
from miner_diag.probes.kinds import KINDS

COLOURS = {"base": BLUE, "normalized_projection": VERMILLION, "raw": BLACK}
"""The colours of the kinds, the same as in the figures of the diagnosis."""
MARKERS = {"base": "o", "normalized_projection": "s"}
"""The marks of the kinds: a circle for base probes, a square for normalized projections."""
NAMES = {"base": "base probe", "normalized_projection": "normalized projection"}
"""The names of the kinds in legends."""


def probe_curves(table: pd.DataFrame, ax: Axes | None = None, *, chance: float, title: str = "") -> Axes:
    """Draw nDCG@5 of both kinds against the layer, intervals as bars, over the raw layer's curve.

    Parameters
    ----------
    table : DataFrame
        The rows of ``probes.csv``. Large filled markers are the chosen kinds; a ring marks the layers that are kept.
    ax : Axes, optional
        Where to draw; a new figure by default.
    chance : float
        nDCG@5 of a random order.
    title : str
        Backbone, data set and split.
    """
    if ax is None:
        ax = new_figure(7.8, 3.9).subplots()
    raw = table[table["kind"] == "base"]
    ax.plot(raw["layer"], raw["raw_ndcg_at_5"], color=COLOURS["raw"], linestyle="--", marker=".", label="raw layer")
    for kind, shift in zip(KINDS, (-0.08, 0.08), strict=True):
        rows = table[table["kind"] == kind]
        value, x = rows["validation_ndcg_at_5"], rows["layer"] + shift
        ends = [(value - rows["low"]).clip(lower=0), (rows["high"] - value).clip(lower=0)]
        ax.errorbar(x, value, yerr=ends, color=COLOURS[kind], linewidth=1.4, elinewidth=1.2, capsize=2.5)
        chosen = (rows["chosen_kind"] == kind).to_numpy()
        style: dict[str, Any] = {"color": COLOURS[kind], "linestyle": "none", "marker": MARKERS[kind], "markersize": 6}
        ax.plot(x[~chosen], value[~chosen], markerfacecolor="white", **style)
        ax.plot(x[chosen], value[chosen], label=NAMES[kind], **style)
        kept = chosen & rows["selected"].to_numpy(bool)
        label = "layer is kept" if kind == KINDS[-1] else None
        ax.plot(x[kept], value[kept], "o", color="0.25", markerfacecolor="none", markersize=13, label=label)
    ax.axhline(chance, color="0.5", linewidth=1.0, linestyle=":", label=f"random order ({chance:.3f})")
    ax.set(xlabel="layer (0 is the embedding output)", ylabel="nDCG@5, validation queries")
    ax.set_ylim(bottom=0)
    draw_bm25(ax, table)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(
        fontsize=8,
        frameon=False,
        title="filled: chosen kind,\nopen: the other",
        title_fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    if title:
        ax.set_title(title, fontsize=10)
    return ax


def salience_curves(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw share of salience against share of neurons, a panel per kind, a line per layer.

    Parameters
    ----------
    frame : DataFrame
        Rows of kind, layer, neurons, salience (both shares).
    title : str
        Backbone and data set.
    """
    figure = new_figure(7.2, 3.6)
    axes = figure.subplots(1, len(KINDS), sharey=True, gridspec_kw={"wspace": 0.08})
    last = max(1, int(frame["layer"].max()))
    colours = mpl.colormaps["viridis"]
    for ax, kind in zip(axes, KINDS, strict=True):
        lines = []
        for layer, rows in frame[frame["kind"] == kind].groupby("layer"):
            lines += ax.plot(rows["neurons"], rows["salience"], color=colours(0.92 * layer / last), label=f"{layer}")
        guides = ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, linestyle=":", label="all neurons alike")
        guides.append(ax.axhline(0.9, color="0.35", linewidth=0.9, linestyle="--", label="90 %"))
        ax.set(title=NAMES[kind], xlabel="share of neurons, most salient first", xlim=(0, 1), ylim=(0, 1.01))
        ax.title.set_fontsize(10)
    axes[0].set_ylabel("share of salience")
    axes[0].legend(handles=guides, fontsize=8, frameon=False, loc="lower right")
    if len(lines) > 12:  # a deep backbone: first, middle, last
        lines = [lines[0], lines[len(lines) // 2], lines[-1]]
    axes[-1].legend(handles=lines, fontsize=8, frameon=False, title="layer", title_fontsize=8, loc="lower right")
    return finish_figure(figure, title)


def ratio_against_benefit(table: pd.DataFrame, *, threshold: float, title: str = "") -> Figure:
    """Draw the benefit of projection against the alignment ratio, a point per layer, for both readings of the ratio.

    Parameters
    ----------
    table : DataFrame
        The rows of ``probes.csv``.
    threshold : float
        The threshold of the ratio to the final layer, which is drawn as a line.
    title : str
        Backbone, data set and split.
    """
    readings = {
        "alignment_ratio_page_final": "alignment ratio, pages to final layer",
        "alignment_ratio_query_final": "alignment ratio, queries to final layer",
        "alignment_ratio_query_page": "alignment ratio, queries to their pages",
    }
    readings = {column: label for column, label in readings.items() if column in table and table[column].notna().any()}
    figure = new_figure(3.7 * max(1, len(readings)), 3.6)
    axes = figure.subplots(1, max(1, len(readings)), sharey=True, squeeze=False)[0]
    rows = table[table["kind"] == "normalized_projection"]
    for ax, (column, label) in zip(axes, readings.items(), strict=False):  # no ratio exists: one empty panel
        drawn = rows[rows[column].notna()]
        value = drawn["difference_to_other_kind"]
        ends = [(value - drawn["difference_low"]).clip(lower=0), (drawn["difference_high"] - value).clip(lower=0)]
        ax.errorbar(
            drawn[column],
            value,
            yerr=ends,
            color=COLOURS["normalized_projection"],
            fmt="s",
            markersize=5,
            elinewidth=1.2,
            capsize=2.5,
        )
        ax.axhline(0, color="0.5", linewidth=0.9)
        ax.set_xlabel(label)
        ax.margins(x=0.1)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
    axes[0].axvline(threshold, color="0.35", linewidth=1.0, linestyle="--", label=f"threshold {threshold:g}")
    axes[0].legend(fontsize=8, frameon=False)
    axes[0].set_ylabel("nDCG@5, projection less base")
    finish_figure(figure, title)
    figure.draw_without_rendering()  # sizes are known from here on
    for ax, column in zip(axes, readings, strict=False):
        _label_layers(ax, rows[rows[column].notna()], column)
    return figure


def _label_layers(ax: Axes, rows: pd.DataFrame, column: str) -> None:
    """Write each layer in the first free place around its point; a line leads to one that is further off."""
    near = [(11, 0), (-11, 0), (11, 10), (11, -10), (-11, 10), (-11, -10)]
    offsets = np.array(near + [(right, up) for up in (19, -19, 32, -32) for right in (19, -19)])
    x = rows[column].to_numpy(float)
    points = np.column_stack([x, rows["difference_to_other_kind"].to_numpy(float)])
    bars = [
        np.column_stack([x, (1 - part) * rows["difference_low"] + part * rows["difference_high"]])
        for part in np.linspace(0, 1, 12)
    ]
    figure = ax.get_figure(root=True)
    assert figure is not None
    scale = figure.dpi / 72
    shown, barred = (ax.transData.transform(data) / scale for data in (points, np.concatenate(bars)))
    taken = [*((point, 9.0) for point in shown), *((point, 6.0) for point in barred)]  # and how far to keep from it
    for layer, xy, point in zip(rows["layer"], points, shown, strict=True):
        others = shown[(shown != point).any(axis=1)]
        room = [min(np.abs(point + offset - other).max() - reach for other, reach in taken) for offset in offsets]
        for number, offset in enumerate(offsets):  # lines pass by other points
            steps = point + np.linspace(0.3, 1, 5)[:, None] * offset
            gaps = np.abs(steps[:, None] - others).max(axis=2)
            room[number] = min(room[number], float(gaps.min(initial=np.inf)) - 4.0)
        chosen = next((number for number, free in enumerate(room) if free >= 0), int(np.argmax(room)))
        taken.append((point + offsets[chosen], 9.0))
        line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.7, "shrinkA": 4, "shrinkB": 2}
        ax.annotate(
            str(layer),
            xy,
            xytext=offsets[chosen],
            textcoords="offset points",
            fontsize=9,
            ha="center",
            va="center",
            arrowprops=line if chosen >= len(near) else None,
        )
