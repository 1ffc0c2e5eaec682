"""Pictures of a fusion run: what each layer weighs, how training went, and how much the choices matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from miner_diag.figures import BLUE, GREEN, VERMILLION, finish_figure, new_figure

COLOUR_OF_KIND = {"base": BLUE, "normalized_projection": VERMILLION}
"""The colour of each kind of probe, as in the figures of the probes."""

LOOKS = ((VERMILLION, "-"), (BLUE, "--"), (GREEN, ":"))
"""Colour and line of the first, second and third system."""


def weights_figure(weights: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the weight of each selected layer (a dot per seed, a bar for the mean) and its share of kept neurons.

    Parameters
    ----------
    weights : DataFrame
        ``weights.csv``.
    title : str
        Backbone, data set and split.
    """
    figure = new_figure(5.6, 3.6)
    ax = figure.subplots()
    layers = sorted(weights["layer"].unique())
    for position, layer in enumerate(layers):
        rows = weights[weights["layer"] == layer]
        colour = COLOUR_OF_KIND[rows["kind"].iloc[0]]
        ax.bar(position, rows["weight"].mean(), width=0.55, color=colour, alpha=0.45, edgecolor=colour)
        ax.plot(np.full(len(rows), position), rows["weight"], ".", color="black", markersize=5)
        top = max(0.0, rows["weight"].max())
        ax.annotate(
            f"{rows['kept_share'].mean():.0%} kept",
            (position, top),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    ax.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    ax.axhline(0, color="0.5", linewidth=0.8)
    ax.set(xlabel="layer (0 is the embedding output)", ylabel="weight in the sum\n(a dot per seed)")
    ax.margins(y=0.15)
    return finish_figure(figure, title)


def sensitivity_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw validation nDCG@5 by kept share and number of layers, a panel per threshold of the alignment ratio.

    Parameters
    ----------
    table : DataFrame
        ``sensitivity.csv``.
    title : str
        Backbone, data set and split.
    """
    thresholds = sorted(table["threshold"].unique())
    figure = new_figure(2.0 + 2.2 * len(thresholds), 3.2)
    axes = np.atleast_1d(figure.subplots(1, len(thresholds), sharey=True))
    low, high = table["validation_ndcg_at_5"].min(), table["validation_ndcg_at_5"].max()
    for position, (ax, threshold) in enumerate(zip(axes, thresholds, strict=True)):
        grid = table[table["threshold"] == threshold].pivot(
            index="n_layers", columns="kept_share", values="validation_ndcg_at_5"
        )
        last = position == len(thresholds) - 1
        sns.heatmap(
            grid,
            ax=ax,
            annot=True,
            fmt=".3f",
            cmap="cividis",
            vmin=low,
            vmax=high,
            cbar=last,
            annot_kws={"fontsize": 8},
            cbar_kws={"label": "nDCG@5, validation"} if last else None,
        )
        ax.set(
            title=f"threshold {threshold:g}",
            xlabel="kept share of inner layers",
            ylabel="" if position else "layers in the sum",
        )
        ax.title.set_fontsize(10)
    return finish_figure(figure, title, spines=True)


def training_figure(curves: pd.DataFrame, systems: Sequence[str], *, title: str = "") -> Figure:
    """Draw validation nDCG@5 after each epoch, a line per seed.

    Parameters
    ----------
    curves : DataFrame
        ``training.csv``.
    systems : sequence of str
        Names of at most three systems, as "fusion" and the head.
    title : str
        Backbone, data set and split.
    """
    figure = new_figure(5.6, 3.6)
    ax = figure.subplots()
    for system, (colour, style) in zip(systems, LOOKS, strict=False):
        for number, (_, rows) in enumerate(curves[curves["system"] == system].groupby("seed")):
            label = system.replace("_", " ") if number == 0 else None
            ax.plot(rows["epoch"], rows["validation_ndcg_at_5"], style, color=colour, linewidth=1.2, label=label)
    ax.set(xlabel="epoch (0: before training)", ylabel="nDCG@5, validation queries")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, frameon=False, title="a line per seed", title_fontsize=8)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    return finish_figure(figure, title)
