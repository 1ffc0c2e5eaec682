"""Pictures of the probes: what each gains at each layer, how few neurons it needs, and what the ratio foretold."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from miner_diag.probes.kinds import KINDS

COLOURS = {"base": "#0072B2", "normalized_projection": "#D55E00", "raw": "#000000"}
"""Okabe and Ito's palette, as in the figures of the diagnosis."""
MARKERS = {"base": "o", "normalized_projection": "s"}
"""Circle: base probe; square: normalized projection."""
NAMES = {"base": "base probe", "normalized_projection": "normalized projection"}
"""As legends say it."""


def probe_curves(table: pd.DataFrame, ax: Axes | None = None, *, chance: float, title: str = "") -> Axes:
    """Draw nDCG@5 of both kinds against the layer, intervals as bars, over the raw layer's curve.

    Parameters
    ----------
    table : DataFrame
        ``probes.csv``. Large filled markers are the chosen kinds; a ring marks the layers that are kept.
    ax : Axes, optional
        Where to draw; a new figure by default.
    chance : float
        nDCG@5 of a random order.
    title : str
        Backbone, data set and split.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.3, 3.9), layout="constrained")
    raw = table[table["kind"] == "base"]
    ax.plot(raw["layer"], raw["raw_ndcg_at_5"], color=COLOURS["raw"], linestyle="--", marker=".", label="raw layer")
    for kind, shift in zip(KINDS, (-0.08, 0.08), strict=True):
        rows = table[table["kind"] == kind]
        value, x = rows["validation_ndcg_at_5"], rows["layer"] + shift
        ends = [(value - rows["low"]).clip(lower=0), (rows["high"] - value).clip(lower=0)]
        ax.errorbar(x, value, yerr=ends, color=COLOURS[kind], linewidth=1.4, elinewidth=1.2, capsize=2.5)
        chosen = (rows["chosen_kind"] == kind).to_numpy()
        style = {"color": COLOURS[kind], "linestyle": "none", "marker": MARKERS[kind], "markersize": 6}
        ax.plot(x[~chosen], value[~chosen], markerfacecolor="white", **style)
        ax.plot(x[chosen], value[chosen], label=NAMES[kind], **style)
        kept = chosen & rows["selected"].to_numpy(bool)
        label = "layer is kept" if kind == KINDS[-1] else None
        ax.plot(x[kept], value[kept], "o", color="0.25", markerfacecolor="none", markersize=13, label=label)
    ax.axhline(chance, color="0.5", linewidth=1.0, linestyle=":", label=f"random order ({chance:.3f})")
    ax.set(xlabel="layer (0 is the embedding output)", ylabel="nDCG@5, validation queries")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False, title="filled: chosen kind, open: the other", title_fontsize=8)
    if title:
        ax.set_title(title, fontsize=10)
    return ax


def salience_curves(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw share of salience against share of neurons, a panel per kind, a line per layer.

    Parameters
    ----------
    frame : DataFrame
        Long: kind, layer, neurons, salience (both shares).
    title : str
        Backbone and data set.
    """
    figure, axes = plt.subplots(1, len(KINDS), figsize=(7.2, 3.6), sharey=True, layout="constrained")
    last = max(1, int(frame["layer"].max()))
    colours = plt.get_cmap("viridis")
    for ax, kind in zip(axes, KINDS, strict=True):
        for layer, rows in frame[frame["kind"] == kind].groupby("layer"):
            ax.plot(rows["neurons"], rows["salience"], color=colours(0.92 * layer / last), label=f"{layer}")
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, linestyle=":")
        ax.axhline(0.9, color="0.35", linewidth=0.9, linestyle="--")
        ax.set(title=NAMES[kind], xlabel="share of neurons, most salient first", xlim=(0, 1), ylim=(0, 1.01))
        ax.title.set_fontsize(10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of salience")
    handles, labels = axes[-1].get_legend_handles_labels()
    if len(handles) > 12:  # a deep backbone: first, middle, last
        wanted = [0, len(handles) // 2, len(handles) - 1]
        handles, labels = [handles[i] for i in wanted], [labels[i] for i in wanted]
    axes[-1].legend(handles, labels, fontsize=8, frameon=False, title="layer", title_fontsize=8, loc="lower right")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def ratio_against_benefit(table: pd.DataFrame, *, threshold: float, title: str = "") -> Figure:
    """Draw the benefit of projection against the alignment ratio, a point per layer, for both readings of the ratio.

    Parameters
    ----------
    table : DataFrame
        ``probes.csv``.
    threshold : float
        Of the ratio to the final layer; drawn as a line.
    title : str
        Backbone, data set and split.
    """
    readings = {
        "alignment_ratio_page_final": "alignment ratio, pages to final layer",
        "alignment_ratio_query_page": "alignment ratio, queries to their pages",
    }
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True, layout="constrained")
    rows = table[table["kind"] == "normalized_projection"]
    for ax, (column, label) in zip(axes, readings.items(), strict=True):
        there = rows[rows[column].notna()]
        value = there["difference_to_other_kind"]
        ends = [(value - there["difference_low"]).clip(lower=0), (there["difference_high"] - value).clip(lower=0)]
        ax.errorbar(
            there[column], value, yerr=ends, color=COLOURS["normalized_projection"], fmt="s", markersize=5,
            elinewidth=1.2, capsize=2.5,
        )  # fmt: skip
        for layer, x, y in zip(there["layer"], there[column], value, strict=True):
            ax.annotate(str(layer), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=9)
        ax.axhline(0, color="0.5", linewidth=0.9)
        ax.set_xlabel(label)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
    axes[0].axvline(threshold, color="0.35", linewidth=1.0, linestyle="--", label=f"threshold {threshold:g}")
    axes[0].legend(fontsize=8, frameon=False)
    axes[0].set_ylabel("nDCG@5, projection less base")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
