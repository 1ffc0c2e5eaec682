"""Pictures of the diagnosis: curves against the layer, and the heat map of CKA between layers; each from its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from miner_diag.cka.hsic import check_estimator
from miner_diag.embeddings.bm25_reference import draw_bm25
from miner_diag.figures import (
    BLACK,
    BLUE,
    GREEN,
    KIND_MARKERS,
    ORANGE,
    SMALL,
    TEXT,
    VERMILLION,
    WIDTH,
    counts,
    finish_figure,
    heat_map,
    intervals_over,
    legend_below,
    new_figure,
    only,
    shade,
    subject,
)
from miner_diag.names import KINDS

COLOURS = {"page": BLUE, "query": VERMILLION, "pair": GREEN, "ndcg": BLACK}
"""The colour of what is over pages, over queries, over queries and their pages, and of nDCG@5."""

VIEWS = {
    "page_final": ("page to final", COLOURS["page"]),
    "query_final": ("query to final", COLOURS["query"]),
    "query_page": ("query to its page", COLOURS["pair"]),
}
"""What is compared -> the panel's title and colour."""

ALIGNED = "#F5E6A8"
"""The shade behind layers that are retrieval-aligned."""


def layer_figure(table: pd.DataFrame) -> Figure:
    """Draw ``layers.csv``: a panel for each comparison's CKA and alignment ratio, and nDCG@5 of the raw layers.

    Parameters
    ----------
    table : DataFrame
        As :func:`~miner_diag.cka.table.layer_table` returns it, or as ``layers.csv`` is read back.
    """
    estimator = only(table, "estimator") or "debiased"
    check_estimator(estimator)
    figure = new_figure(WIDTH, 5.6)
    mosaic: list[Any] = [[f"{row} {view}" for view in VIEWS] for row in ("cka", "ratio")] + [["below"] * len(VIEWS)]
    panels = figure.subplot_mosaic(mosaic)
    axes = np.array([[panels[name] for name in row] for row in mosaic[:2]])
    below = panels["below"]
    for row_of_axes in axes:
        for ax in row_of_axes[1:]:
            ax.sharey(row_of_axes[0])
            ax.tick_params(labelleft=False)
    for ax in axes[0]:
        ax.tick_params(labelbottom=False)
    layers = table["layer"].to_numpy()
    kinds = table["probe_kind"].where(table["probe_kind"].notna(), "normalized_projection").to_numpy()
    aligned = layers[table["retrieval_aligned"].astype(bool)]
    for row, name in enumerate(("cka", "alignment_ratio")):
        columns = [f"{name}_{view}" for view in VIEWS]
        axes[row, 0].set_ylim(*_limits(table, columns, whole=name == "cka"))
        for ax, column, (title, colour) in zip(axes[row], columns, VIEWS.values(), strict=True):
            _curve(ax, table, column, kinds, colour, aligned)
            if row == 0:
                ax.set_title(title, color=colour)
    threshold = only(table, "ratio_threshold")
    if threshold is not None:
        for ax in axes[1]:
            ax.axhline(threshold, color="0.35", linewidth=0.9, linestyle="--")
        axes[1, 2].annotate(
            f"threshold {threshold:g}",
            (0.97, threshold),
            xycoords=axes[1, 2].get_yaxis_transform(),
            fontsize=SMALL,
            xytext=(0, -2),
            textcoords="offset points",
            va="top",
            ha="right",
        )
    _null(axes[0, 2], table, estimator)
    axes[0, 0].set_ylabel(f"CKA ({estimator})")
    axes[1, 0].set_ylabel("alignment ratio\n(mean cosine / CKA)")
    below.set_ylim(0, max(0.05, 1.05 * float(table[["ndcg_at_5", "ndcg_at_5_high"]].max().max())))
    _curve(below, table, "ndcg_at_5", kinds, BLACK, aligned)
    chance = float(table["chance_ndcg_at_5"].iloc[0])
    below.axhline(chance, color="0.35", linewidth=0.9, linestyle=":")
    draw_bm25(below, table)
    below.set(ylabel="nDCG@5, raw layer", xlabel="layer (0: embedding output; last: what the retriever uses)")
    for ax in (*axes.ravel(), below):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        Line2D([], [], color="0.3", marker=KIND_MARKERS["base"], linestyle="none", markersize=4.5),
        Line2D([], [], color="0.3", marker="s", linestyle="none", markersize=4.5, markerfacecolor="white"),
        Patch(facecolor=ALIGNED),
    ]
    names = [f"{KINDS['base']} enough", "projection needed", "retrieval-aligned"]
    legend_below(below, handles, names)
    title = f"What each layer shares with the final one\n{subject(table)}"
    caption = (
        f"{counts(table)}{intervals_over(table)}; a triangle: cut by the panel. Dotted: random order ({chance:.3f})."
    )
    return finish_figure(figure, title, caption)


DEPTH = {
    "cka_page_final": "CKA,\npage to final",
    "alignment_ratio_page_final": "alignment ratio,\npage to final",
    "ndcg_at_5": "nDCG@5\nof the raw layer",
}
"""Measure -> label, from top to bottom of `depth_figure`."""
BACKBONES = (BLUE, VERMILLION, GREEN, BLACK)
"""Colour of each backbone in turn."""


def depth_figure(table: pd.DataFrame) -> Figure:
    """Draw backbones beside each other over relative depth: layer / (L - 1), from 0 to 1.

    Parameters
    ----------
    table : DataFrame
        Long: a row per model, measure and layer with the columns value, low and high; measures as in `DEPTH`.

    Raises
    ------
    ValueError
        If there is no backbone, or more than four.
    """
    models = list(dict.fromkeys(table["model"]))
    if not 1 <= len(models) <= len(BACKBONES):
        raise ValueError(f"table must hold 1 to {len(BACKBONES)} backbones; got {len(models)}")
    figure = new_figure(WIDTH, 4.8)
    axes = figure.subplots(len(DEPTH), len(models), sharex=True, sharey="row", squeeze=False)
    for row, (measure, label) in enumerate(DEPTH.items()):
        of_measure = table[table["measure"] == measure].rename(
            columns={"value": measure, "low": f"{measure}_low", "high": f"{measure}_high"}
        )
        axes[row, 0].set_ylim(*_limits(of_measure, [measure], whole=False))
        axes[row, 0].set_ylabel(label)
        for ax, model, colour in zip(axes[row], models, BACKBONES, strict=False):
            rows = of_measure[of_measure["model"] == model].sort_values("layer")
            rows = rows.assign(layer=rows["layer"] / table.loc[table["model"] == model, "layer"].max())
            _curve(ax, rows, measure, None, colour, ())
            if row == 0:
                ax.set_title(model, color=colour)
    for ax in axes[-1]:
        ax.set(xlim=(-0.06, 1.06), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
    axes[-1, (len(models) - 1) // 2].set_xlabel("relative depth (0: embedding output, 1: what the retriever uses)")
    title = f"Layers of {len(models)} backbone{'s' if len(models) > 1 else ''} over relative depth\n{subject(table)}"
    return finish_figure(figure, title, f"{counts(table)}{intervals_over(table)}; a triangle: cut by the panel.")


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
    lowest = min(0.0, float(np.nanmin(matrix.to_numpy(float))))
    own = ax is None
    if ax is None:
        ax = new_figure(WIDTH, 3.6).subplots()
    heat_map(
        ax,
        matrix,
        norm=Normalize(lowest, 1.0),
        texts=matrix.map("{:.2f}".format) if len(matrix) <= 8 else None,
        label=f"CKA ({estimator}, linear)",
    )
    ax.set(xlabel="layer", ylabel="layer", aspect="equal")
    figure = ax.get_figure(root=True)
    if own:
        assert figure is not None
        finish_figure(figure, title, spines=True)
    elif title:
        ax.set_title(title, fontsize=TEXT)
    return ax


def cka_matrix_figure(table: pd.DataFrame) -> Figure:
    """Draw CKA between all pairs of layers from a long table.

    Parameters
    ----------
    table : DataFrame
        A row for each pair with the columns layer, other_layer and cka; what it is of stands in further columns.
    """
    estimator = only(table, "estimator") or "debiased"
    title = f"CKA of every layer with every other, over pages\n{subject(table)}"
    n_pages = only(table, "n_pages")
    title += "" if n_pages is None else f", n = {n_pages:,} pages"
    matrix = table.pivot(index="layer", columns="other_layer", values="cka")
    figure = cka_heat_map(matrix, estimator=estimator, title=title).get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def matrix_table(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return a matrix of CKA as the long table that `cka_matrix_figure` draws."""
    long = matrix.rename_axis(index="layer", columns="other_layer").stack().rename("cka").reset_index()
    return long.astype({"layer": int, "other_layer": int})


def _limits(table: pd.DataFrame, columns: Sequence[str], *, whole: bool) -> tuple[float, float]:
    """Return the ends of a panel: around all intervals, or around all values with some room of theirs."""
    values = table[list(columns)].to_numpy(float)
    if whole:
        ends = [table[f"{column}_{end}"].to_numpy(float) for column in columns for end in ("low", "high")]
        values = np.concatenate([values.ravel(), *ends])
    low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
    if whole:
        return float(low) - 0.04, float(max(1.0, high)) + 0.05
    return float(min(0.0, 1.2 * low)), float(1.3 * high) or 1.0  # a wide interval must not flatten all


def _curve(
    ax: Axes, table: pd.DataFrame, column: str, kinds: np.ndarray | None, colour: str, aligned: Sequence[int]
) -> None:
    """Draw a column against the layer: its interval, layers marked by the probe they need, aligned layers shaded."""
    layers, values = table["layer"].to_numpy(float), table[column].to_numpy(float)
    for layer in aligned:
        ax.axvspan(layer - 0.45, layer + 0.45, color=ALIGNED, zorder=0, linewidth=0)
    shade(ax, layers, table[f"{column}_low"], table[f"{column}_high"], colour)
    ax.plot(layers, values, color=colour, linewidth=1.3)
    size = 4.0 if len(layers) < 15 else 2.5
    for kind, marker in KIND_MARKERS.items():
        marked = np.isfinite(values) & (kind == "base" if kinds is None else kinds == kind)
        face = colour if kind == "base" else "white"
        ax.plot(layers[marked], values[marked], marker, color=colour, markerfacecolor=face, markersize=size)
    ax.axhline(0.0, color="0.6", linewidth=0.7)
    ax.grid(axis="y", color="0.9", linewidth=0.7)


def _null(ax: Axes, table: pd.DataFrame, estimator: str) -> None:
    """Draw the CKA that broken pairs reach: its 95th percentile where that is known, else its mean."""
    debiased = estimator == "debiased"
    level = table[f"cka_query_page_null_{'p95' if debiased else 'mean'}"].to_numpy(float)
    if not np.isfinite(level).any():
        return
    ax.plot(table["layer"], level, color=ORANGE, linestyle="--", linewidth=1.2)
    largest = float(np.nanmax(table["cka_query_page_p"].to_numpy(float)))
    p = "p < 0.001" if largest < 0.001 else f"p ≤ {largest:.3f}"
    ax.annotate(
        f"pairs broken:\n{'95th percentile' if debiased else 'mean'}\n{p}",
        (0.97, 0.97),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=SMALL,
    )
    place = float(np.nanmax(level))
    bottom, top = ax.get_ylim()
    ax.annotate(
        "",
        (0.12, (place - bottom) / (top - bottom)),
        (0.3, 0.72),
        xycoords="axes fraction",
        arrowprops={"arrowstyle": "->", "color": ORANGE, "linewidth": 0.8},
    )
