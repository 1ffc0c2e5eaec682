"""Pictures of the fusion: what each layer weighs, what each part is worth, how steady both are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from miner_diag.cka.plots import new_figure

COLOURS = {"fusion": "#D55E00", "head": "#0072B2", "other": "#555555", "base": "#0072B2", "projection": "#D55E00"}
"""Okabe and Ito's palette, as in the figures of the other stages."""


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
    for place, layer in enumerate(layers):
        rows = weights[weights["layer"] == layer]
        kind = rows["kind"].iloc[0]
        colour = COLOURS["base" if kind == "base" else "projection"]
        ax.bar(place, rows["weight"].mean(), width=0.55, color=colour, alpha=0.45, edgecolor=colour)
        ax.plot(np.full(len(rows), place), rows["weight"], ".", color="black", markersize=5)
        top = max(0.0, rows["weight"].max())
        ax.annotate(
            f"{rows['kept_share'].mean():.0%} kept",
            (place, top),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    ax.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    ax.axhline(0, color="0.5", linewidth=0.8)
    ax.set(xlabel="layer (0 is the embedding output)", ylabel="weight in the sum\n(a dot per seed)")
    ax.margins(y=0.15)
    return _finish(figure, title)


def ablation_figure(table: pd.DataFrame, *, split: str = "test", title: str = "") -> Figure:
    """Draw every system's difference to the backbone with its interval, best on top.

    Parameters
    ----------
    table : DataFrame
        ``ablation.csv``.
    split : str
        Which split's rows.
    title : str
        Backbone, data set and split.
    """
    rows = table[(table["split"] == split) & table["difference_to_backbone"].notna()]
    rows = rows.sort_values("difference_to_backbone")
    # what is far off would press everything else together: it stands at the edge, with its number
    reach = 4 * max(0.01, float(rows.loc[rows["system"] == "fusion", "difference_to_backbone"].abs().max()))
    near = rows[rows["difference_to_backbone"].abs() <= reach]
    left = min(0.0, near["difference_low"].min()) - 0.1 * reach
    figure = new_figure(7.2, 1.4 + 0.24 * len(rows))
    ax = figure.subplots()
    for place, row in enumerate(rows.itertuples()):
        which = "fusion" if row.system == "fusion" else "head" if row.system.startswith("final_layer") else "other"
        look: dict[str, Any] = {
            "color": COLOURS[which],
            "marker": "s" if which == "fusion" else "o",
            "markersize": 5,
            "markerfacecolor": COLOURS[which] if row.verdict in ("better", "worse") else "white",
        }
        if row.difference_to_backbone < left:
            ax.plot(left, place, **look | {"marker": "<"}, clip_on=False)
            ax.annotate(
                f"{row.difference_to_backbone:+.3f}",
                (left, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            continue
        ends = [[row.difference_to_backbone - row.difference_low], [row.difference_high - row.difference_to_backbone]]
        ax.errorbar(row.difference_to_backbone, place, xerr=np.maximum(ends, 0), capsize=2.5, **look)
    ax.set_xlim(left=left)
    ax.axvline(0, color="0.4", linewidth=0.9)
    ax.set_yticks(range(len(rows)), rows["system"].str.replace("_", " "))
    ax.set(xlabel=f"nDCG@5 less the backbone's, {split} queries (filled: p Holm < 0.05)")
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    return _finish(figure, title)


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
    for place, (ax, threshold) in enumerate(zip(axes, thresholds, strict=True)):
        grid = table[table["threshold"] == threshold].pivot(
            index="n_layers", columns="kept_share", values="validation_ndcg_at_5"
        )
        last = place == len(thresholds) - 1
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
            ylabel="" if place else "layers in the sum",
        )
        ax.title.set_fontsize(10)
    return _finish(figure, title, spines=False)


def training_figure(curves: pd.DataFrame, systems: Sequence[str], *, title: str = "") -> Figure:
    """Draw validation nDCG@5 after each epoch, a line per seed.

    Parameters
    ----------
    curves : DataFrame
        ``training.csv``.
    systems : sequence of str
        At most three, as "fusion" and the heads.
    title : str
        Backbone, data set and split.
    """
    figure = new_figure(5.6, 3.6)
    ax = figure.subplots()
    for system, colour, style in zip(systems, ("#D55E00", "#0072B2", "#009E73"), ("-", "--", ":"), strict=False):
        for number, (_, rows) in enumerate(curves[curves["system"] == system].groupby("seed")):
            label = system.replace("_", " ") if number == 0 else None
            ax.plot(rows["epoch"], rows["validation_ndcg_at_5"], style, color=colour, linewidth=1.2, label=label)
    ax.set(xlabel="epoch (0: before training)", ylabel="nDCG@5, validation queries")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, frameon=False, title="a line per seed", title_fontsize=8)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    return _finish(figure, title)


def folds_figure(folds: pd.DataFrame, pooled: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw each document split's gain over the backbone, relative, of the fusion and of the head; then of all together.

    Parameters
    ----------
    folds : DataFrame
        ``folds.csv``.
    pooled : DataFrame
        ``pooled.csv``.
    title : str
        Backbone and data set.
    """
    figure = new_figure(5.6, 3.4)
    ax = figure.subplots()
    together = pooled.assign(
        role=pooled["system"], backbone_ndcg_at_5=pooled.loc[pooled["system"] == "backbone", "ndcg_at_5"].item()
    )
    names = [str(fold) for fold in sorted(folds["fold"].unique())]
    for system, shift, marker in (("fusion", 0.09, "s"), ("head", -0.09, "o")):
        rows = pd.concat(
            [folds[folds["role"] == system].sort_values("fold"), together[together["role"] == system]],
            ignore_index=True,
        )
        base = rows["backbone_ndcg_at_5"]
        value = rows["difference_to_backbone"] / base
        ends = [value - rows["difference_low"] / base, rows["difference_high"] / base - value]
        label = "fusion" if system == "fusion" else "head on the final layer"
        ax.errorbar(
            np.arange(len(rows)) + shift,
            value,
            yerr=np.maximum(ends, 0),
            fmt=marker,
            color=COLOURS[system],
            capsize=2.5,
            markersize=5,
            label=label,
        )
    ax.axhline(0, color="0.4", linewidth=0.9)
    ax.axvline(len(names) - 0.5, color="0.8", linewidth=0.8)
    ax.set_xticks(range(len(names) + 1), [*names, "all"])
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set(xlabel="document split", ylabel="nDCG@5 over the backbone's,\ntest queries")
    ax.legend(fontsize=8, frameon=False)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    return _finish(figure, title)


def _finish(figure: Figure, title: str, *, spines: bool = True) -> Figure:
    if spines:
        for ax in figure.axes:
            ax.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
