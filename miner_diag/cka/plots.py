"""Pictures of the diagnosis: curves against the layer, and the heat map of CKA between layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from miner_diag.cka.curves import table_curves
from miner_diag.cka.hsic import check_estimator
from miner_diag.embeddings.bm25_reference import draw_bm25
from miner_diag.figures import BLACK, BLUE, GREEN, VERMILLION, finish_figure, new_figure

COLOURS = {"page": BLUE, "query": VERMILLION, "pair": GREEN, "ndcg": BLACK}
"""The colour of what is over pages, over queries, over queries and their pages, and of nDCG@5."""
MARKERS = {"base": "o", "normalized_projection": "s"}
"""Filled circle: base probe; open square: normalized projection."""


CURVES = {
    "CKA": {
        "cka_page_final": ("page to final", "page", "-"),
        "cka_query_final": ("query to final", "query", "-"),
        "cka_query_page": ("query to its page", "pair", "-"),
        "cka_query_page_null": ("pairs broken", "pair", ":"),
    },
    "alignment ratio\n(mean cosine / CKA)": {
        "alignment_ratio_page_final": ("page to final", "page", "-"),
        "alignment_ratio_query_final": ("query to final", "query", "-"),
        "alignment_ratio_query_page": ("query to its page", "pair", "-"),
    },
    "nDCG@5 of the raw layer": {"ndcg_at_5": ("pooled layer, cosine", "ndcg", "-")},
}
"""Panel -> measure -> (label, colour, line style)."""


RATIOS = tuple(CURVES["alignment ratio\n(mean cosine / CKA)"])


def layer_figure(table: pd.DataFrame, *, threshold: float, estimator: str = "debiased", title: str = "") -> Figure:
    """Draw ``layers.csv``: everything in the figure comes from the table.

    Parameters
    ----------
    table : DataFrame
        As :func:`~miner_diag.cka.table.layer_table` returns it, or as ``layers.csv`` is read back.
    threshold, estimator, title
        As in `layer_curves`.
    """
    kinds = table["probe_kind"].where(table["probe_kind"].notna(), "normalized_projection").tolist()
    chance = float(table["chance_ndcg_at_5"].iloc[0])
    figure = layer_curves(
        table_curves(table), kinds, threshold=threshold, chance=chance, estimator=estimator, title=title
    )
    draw_bm25(figure.axes[-1], table)
    return figure


def layer_curves(
    frame: pd.DataFrame,
    kinds: Sequence[str],
    *,
    threshold: float,
    chance: float,
    estimator: str = "debiased",
    title: str = "",
) -> Figure:
    """Draw CKA, alignment ratio and nDCG@5 against the layer, intervals shaded.

    Parameters
    ----------
    frame : DataFrame
        Long: a row per measure and layer with the columns measure, layer, value, low, high; measures as in `CURVES`.
        Measures that are absent are not drawn.
    kinds : sequence [L] of str
        The probe each layer needs: "base" or "normalized_projection".
    threshold : float
        Alignment ratio from which on a base probe is enough; drawn as a line.
    chance : float
        nDCG@5 of a random order; drawn as a line.
    estimator : str
        Estimator of CKA, for the label.
    title : str
        Backbone, data set and split.
    """
    check_estimator(estimator)
    figure = new_figure(6.3, 7.4)
    axes = figure.subplots(len(CURVES), 1, sharex=True)
    for ax, (label, curves) in zip(axes, CURVES.items(), strict=True):
        for measure, (name, colour, style) in curves.items():
            if measure.endswith("_null"):
                name = ("its 95th percentile" if estimator == "debiased" else "its mean") + "\nif pairs are broken"
            _curve(ax, frame[frame["measure"] == measure], kinds, name, COLOURS[colour], style)
        ax.set_ylabel(f"CKA ({estimator})" if label == "CKA" else label)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
    axes[0].axhline(0.0, color="0.6", linewidth=0.8)
    axes[1].axhline(threshold, color="0.35", linewidth=1.0, linestyle="--", label=f"threshold {threshold:g}")
    axes[2].axhline(chance, color="0.35", linewidth=1.0, linestyle="--", label=f"random order ({chance:.3f})")
    ratios = frame.loc[frame["measure"].isin(RATIOS), "value"]
    axes[1].set_ylim(min(0.0, 1.2 * ratios.min()), 1.3 * max(1.0, ratios.max()))  # a wide interval must not flatten all
    axes[2].set_ylim(bottom=0.0)
    for ax in axes:
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[2].set_xlabel("layer (0 is the embedding output, the last is what the retriever uses)")
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    circle = Line2D([], [], color="0.3", marker="o", linestyle="none", markersize=5)
    square = Line2D([], [], color="0.3", marker="s", linestyle="none", markersize=5, markerfacecolor="white")
    figure.legend(
        [circle, square],
        ["base probe is enough", "normalized projection needed"],
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    return finish_figure(figure, title)


DEPTH = {
    "cka_page_final": "CKA, page to final",
    "alignment_ratio_page_final": "alignment ratio,\npage to final",
    "ndcg_at_5": "nDCG@5\nof the raw layer",
}
"""Measure -> label, from top to bottom of `depth_curves`."""
BACKBONES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "D", "-."), (BLACK, "^", ":"))
"""Colour, marker and line of each backbone in turn."""


def depth_curves(frames: Mapping[str, pd.DataFrame], *, title: str = "") -> Figure:
    """Draw backbones side by side over relative depth: layer / (L - 1), from 0 to 1.

    Parameters
    ----------
    frames : dict of DataFrame
        Backbone -> frame as `layer_curves` takes it; at most four.
    title : str
        Data set and split.

    Raises
    ------
    ValueError
        If there is no backbone, or more than four.
    """
    if not 1 <= len(frames) <= len(BACKBONES):
        raise ValueError(f"frames must hold 1 to {len(BACKBONES)} backbones; got {len(frames)}")
    figure = new_figure(5.6, 6.4)
    axes = figure.subplots(len(DEPTH), 1, sharex=True)
    for ax, (measure, label) in zip(axes, DEPTH.items(), strict=True):
        for (name, frame), (colour, marker, style) in zip(frames.items(), BACKBONES, strict=False):
            rows = frame[frame["measure"] == measure].sort_values("layer")
            depth = rows["layer"].to_numpy() / frame["layer"].max()
            ax.plot(depth, rows["value"], style, marker=marker, color=colour, markersize=4.5, linewidth=1.5, label=name)
            ax.fill_between(depth, rows["low"], rows["high"], color=colour, alpha=0.12, linewidth=0)
        ax.set_ylabel(label)
        values = pd.concat(frame.loc[frame["measure"] == measure, "value"] for frame in frames.values())
        ax.set_ylim(min(0.0, 1.2 * values.min()), 1.3 * values.max())  # a wide interval must not flatten all
        ax.grid(axis="y", color="0.9", linewidth=0.8)
    axes[-1].set_xlabel("relative depth (0: embedding output, 1: what the retriever uses)")
    axes[0].legend(fontsize=8, frameon=False)
    return finish_figure(figure, title)


def cka_heat_map(matrix: pd.DataFrame, ax: Axes | None = None, *, estimator: str = "debiased", title: str = "") -> Axes:
    """Draw CKA between all pairs of layers, each cell with its number where there is room.

    Parameters
    ----------
    matrix : DataFrame [L, L]
        Layers as index and columns.
    ax : Axes, optional
        Where to draw; a new figure by default.
    estimator : str
        Estimator of CKA, for the label.
    title : str
        Backbone, data set and split.
    """
    check_estimator(estimator)
    if ax is None:
        side = 2.4 + 0.42 * min(len(matrix), 20)
        ax = new_figure(side + 0.9, side).subplots()
    sns.heatmap(
        matrix,
        vmin=min(0.0, float(np.min(matrix.to_numpy()))),
        vmax=1.0,
        cmap="cividis",
        square=True,
        ax=ax,
        annot=len(matrix) <= 14,
        fmt=".2f",
        annot_kws={"fontsize": 8},
        cbar_kws={"label": f"CKA ({estimator}, linear)", "shrink": 0.8},
    )
    ax.set(xlabel="layer", ylabel="layer")
    ax.tick_params(axis="y", rotation=0)
    if title:
        ax.set_title(title, fontsize=10)
    return ax


def _curve(ax: Axes, rows: pd.DataFrame, kinds: Sequence[str], name: str, colour: str, style: str) -> None:
    if rows.empty:
        return
    rows = rows.sort_values("layer")
    layers, values = rows["layer"].to_numpy(), rows["value"].to_numpy(float)
    ax.plot(layers, values, color=colour, linestyle=style, linewidth=1.6, label=name)
    low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
    if np.isfinite(low).any():  # an interval that is unbounded leaves a gap
        ax.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
    if style == ":":
        return
    for kind, marker in MARKERS.items():
        marked = np.array([kinds[layer] == kind for layer in layers])
        face = colour if kind == "base" else "white"
        ax.plot(layers[marked], values[marked], marker, color=colour, markerfacecolor=face, markersize=5)
