"""Figures of the probes: what each gains at each layer, how few neurons it needs, and what the ratio foretold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from miner_diag.embeddings.bm25_reference import draw_bm25
from miner_diag.figures import (
    BLACK,
    KIND_COLOURS,
    KIND_MARKERS,
    SMALL,
    TEXT,
    VERMILLION,
    WIDTH,
    counts,
    finish_figure,
    intervals_over,
    legend_below,
    new_figure,
    only,
    subject,
)
from miner_diag.names import KINDS as NAMES
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.ratio_table import READINGS


def probe_figure(table: pd.DataFrame) -> Figure:
    """Draw nDCG@5 of both kinds against the layer, intervals as bars, over the raw layer's curve.

    Parameters
    ----------
    table : DataFrame
        The rows of ``probes.csv``. Filled marks are the chosen kinds; a ring marks the layers that are kept.
    """
    figure = new_figure(WIDTH, 3.9)
    ax = figure.subplots()
    raw = table[table["kind"] == "base"]
    ax.plot(raw["layer"], raw["raw_ndcg_at_5"], color=BLACK, linestyle="--", marker=".", label="raw layer")
    for kind, shift in zip(KINDS, (-0.09, 0.09), strict=True):
        rows = table[table["kind"] == kind]
        value, x = rows["validation_ndcg_at_5"], rows["layer"] + shift
        ends = [(value - rows["low"]).clip(lower=0), (rows["high"] - value).clip(lower=0)]
        ax.errorbar(x, value, yerr=ends, color=KIND_COLOURS[kind], linewidth=1.3, elinewidth=1.0, capsize=2)
        chosen = (rows["chosen_kind"] == kind).to_numpy()
        style: dict[str, Any] = {"color": KIND_COLOURS[kind], "linestyle": "none", "markersize": 5}
        style["marker"] = KIND_MARKERS[kind]
        ax.plot(x[~chosen], value[~chosen], markerfacecolor="white", **style)
        ax.plot(x[chosen], value[chosen], label=NAMES[kind], **style)
        kept = chosen & rows["selected"].to_numpy(bool)
        label = "kept layer" if kind == KINDS[-1] else None
        ax.plot(x[kept], value[kept], "o", color="0.25", markerfacecolor="none", markersize=11, label=label)
    ax.set(xlabel="layer (0: embedding output; last: what the retriever uses)", ylabel="nDCG@5, validation")
    ax.set_ylim(bottom=0)
    draw_bm25(ax, table)
    chance = only(table, "chance")
    if chance is not None:
        ax.axhline(chance, color="0.5", linewidth=1.0, linestyle=":", label=f"random order ({chance:.3f})")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color="0.9", linewidth=0.7)
    legend_below(ax, *ax.get_legend_handles_labels())
    title = f"nDCG@5 of each layer, raw and behind a probe\n{subject(table)}"
    caption = f"{counts(table)}{intervals_over(table)}. Filled: the chosen kind of a layer; open: the other."
    return finish_figure(figure, title, caption)


SHARES = (0.5, 0.75, 0.9)
"""The shares of salience whose neurons are counted."""


def salience_figure(frame: pd.DataFrame) -> Figure:
    """Draw how many neurons carry half, three quarters and 90 % of a probe's salience, against the layer.

    Parameters
    ----------
    frame : DataFrame
        Rows of kind, layer, neurons, salience (both shares; the most salient neurons first).
    """
    figure = new_figure(WIDTH, 2.9)
    axes = figure.subplots(1, len(KINDS), sharey=True)
    for ax, kind in zip(axes, KINDS, strict=True):
        of_kind = frame[frame["kind"] == kind]
        layers = sorted(of_kind["layer"].unique())
        for share, style in zip(SHARES, (":", "--", "-"), strict=True):
            needed = [_needed(of_kind[of_kind["layer"] == layer], share) for layer in layers]
            ax.plot(layers, needed, style, marker=KIND_MARKERS[kind], markersize=3.5, color=KIND_COLOURS[kind])
            if layers:  # named where the curve begins, beside its first mark
                ax.annotate(
                    f"{share:.0%}",
                    (layers[0], needed[0]),
                    (-5, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=SMALL,
                )
            ax.axhline(share, color="0.75", linewidth=0.7, zorder=0)
        ax.set_title(NAMES[kind], color=KIND_COLOURS[kind])
        ax.set(xlabel="layer", ylim=(0, 1))
        ax.margins(x=0.12)
        if layers:
            ax.set_xlim(left=layers[0] - 0.24 * max(1, layers[-1] - layers[0]))
            ax.set_xticks(layers[:: -(-len(layers) // 8)])
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].set_ylabel("share of the layer's neurons")
    title = f"How many neurons carry 50 %, 75 %, 90 % of a probe's salience\n{subject(frame)}"
    return finish_figure(figure, title, "Grey: all neurons alike. No intervals: one fit.")


def _needed(curve: pd.DataFrame, share: float) -> float:
    """Return the smallest share of neurons that holds a share of the salience."""
    reached = curve["salience"].to_numpy() >= share - 1e-6  # committed curves are rounded
    return float(curve["neurons"].to_numpy()[reached].min(initial=1.0))


def ratio_figure(table: pd.DataFrame) -> Figure:
    """Draw the benefit of projection against the alignment ratio, each layer by its number, a panel for each reading.

    Parameters
    ----------
    table : DataFrame
        As :func:`~miner_diag.probes.ratio_table.ratio_table` returns it.
    """
    readings = [reading for reading in READINGS if reading in set(table["reading"])]
    figure = new_figure(WIDTH, 1.2 + 2.0 * max(1, len(readings)))
    axes = figure.subplots(max(1, len(readings)), 1, squeeze=False)[:, 0]  # no ratio exists: one empty panel
    for ax, reading in zip(axes, readings, strict=False):
        rows = table[table["reading"] == reading]
        value = rows["difference"]
        ends = [(value - rows["low"]).clip(lower=0), (rows["high"] - value).clip(lower=0)]
        ax.errorbar(rows["ratio"], value, yerr=ends, color=VERMILLION, fmt="none", elinewidth=0.9, alpha=0.6)
        ax.axhline(0, color="0.5", linewidth=0.9)
        rho = only(rows, "spearman")
        said = "" if rho is None else f"; Spearman {rho:+.2f} over {len(rows)} layers"
        ax.set_xlabel(f"{READINGS[reading]}{said}")
        ax.margins(x=0.08)
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    threshold = only(table, "ratio_threshold")
    if threshold is not None and readings:
        axes[0].axvline(threshold, color="0.35", linewidth=1.0, linestyle="--")
        axes[0].annotate(
            f" threshold {threshold:g}",
            (threshold, 0.02),
            xycoords=axes[0].get_xaxis_transform(),
            fontsize=SMALL,
            va="bottom",
        )
    axes[len(axes) // 2].set_ylabel("nDCG@5, projection less base probe", y=0.5 if len(axes) % 2 else 1.1)
    title = f"Does a low alignment ratio foretell what a projection gains?\n{subject(table)}"
    finish_figure(figure, title, f"Each number is a layer. {counts(table)}{intervals_over(table)}.")
    figure.draw_without_rendering()  # sizes are known from here on
    for ax, reading in zip(axes, readings, strict=False):
        _number_layers(ax, table[table["reading"] == reading])
    return figure


def _number_layers(ax: Axes, rows: pd.DataFrame) -> None:
    """Write each layer's number where its point is; numbers that would overlap stand side by side in one text."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    points = rows[["ratio", "difference"]].to_numpy(float)
    shown = ax.transData.transform(points) * 72 / figure.dpi
    groups: list[list[int]] = []
    for number, point in enumerate(shown):
        near = [group for group in groups if any((np.abs(shown[other] - point) < (6.0, 7.5)).all() for other in group)]
        groups = [group for group in groups if group not in near] + [[number, *(n for group in near for n in group)]]
    for group in groups:
        names = ", ".join(str(layer) for layer in sorted(rows["layer"].to_numpy()[group]))
        x, y = points[group].mean(axis=0)
        ax.text(
            x,
            y,
            names,
            ha="center",
            va="center",
            fontsize=TEXT,
            fontweight="bold",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
