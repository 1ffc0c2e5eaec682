"""Pictures of a fusion run: what each layer weighs, how training went, and how much the choices matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from miner_diag.figures import (
    BLACK,
    BLUE,
    GREEN,
    KIND_COLOURS,
    TEXT,
    VERMILLION,
    WIDTH,
    colour_bar,
    finish_figure,
    heat_map,
    new_figure,
    only,
    subject,
)
from miner_diag.names import HEADS, KINDS, plain_system


def weights_figure(weights: pd.DataFrame) -> Figure:
    """Draw the weight of each selected layer: a dot for each seed, side by side, and a bar at their mean.

    Parameters
    ----------
    weights : DataFrame
        ``weights.csv``; a column model gives each of its retrievers a panel.
    """
    models = list(dict.fromkeys(weights["model"])) if "model" in weights else [None]
    figure = new_figure(WIDTH, 0.9 + 1.9 * len(models))
    axes = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for ax, model in zip(axes, models, strict=True):
        of_model = weights if model is None else weights[weights["model"] == model]
        layers = sorted(of_model["layer"].unique())
        names = []
        for position, layer in enumerate(layers):
            rows = of_model[of_model["layer"] == layer].sort_values("seed")
            kind = rows["kind"].iloc[0]
            colour = KIND_COLOURS[kind]
            spread = 0.5 * (np.arange(len(rows)) - (len(rows) - 1) / 2) / max(1, len(rows) - 1)
            ax.plot([position - 0.32, position + 0.32], [rows["weight"].mean()] * 2, color=BLACK, linewidth=1.6)
            ax.plot(position + spread, rows["weight"], "o", color=colour, markersize=5, markeredgecolor="white")
            names.append(f"layer {layer}\n{KINDS[kind]}\n{rows['kept_share'].mean():.0%} of neurons kept")
        ax.set_xticks(range(len(layers)), names)
        ax.set_xlim(-0.6, len(layers) - 0.4)
        ax.axhline(0, color="0.5", linewidth=0.8)
        ax.set_ylabel("weight in the sum")
        ax.set_ylim(min(0, 1.1 * of_model["weight"].min()), 1.12 * of_model["weight"].max())
        ax.grid(axis="y", color="0.9", linewidth=0.7)
        if len(models) > 1:
            ax.set_title(model)
    title = f"What each layer weighs in the fused vector\n{subject(weights)}"
    n_seeds = weights["seed"].nunique()
    return finish_figure(figure, title, f"A dot for each of {n_seeds} seeds, in their order; black: their mean.")


def sensitivity_figure(table: pd.DataFrame) -> Figure:
    """Draw validation nDCG@5 by kept share and number of layers, a panel for each threshold of the alignment ratio.

    Cells are coloured by their difference to the default cell in standard deviations over seeds, so that what is no
    more than the luck of a seed stays pale.

    Parameters
    ----------
    table : DataFrame
        ``sensitivity.csv``. Without its columns default and seed_sd, colours show the difference to the mean cell.
    """
    thresholds = sorted(table["threshold"].unique(), reverse=True)
    value, noise = table["validation_ndcg_at_5"], only(table, "seed_sd")
    marked = table["default"].astype(bool) if "default" in table else pd.Series(False, index=table.index)
    base = value[marked].iloc[0] if marked.any() else value.mean()
    table = table.assign(shift=(value - base) / (noise or 1.0), marked=marked)
    reach = max(float(table["shift"].abs().max()), 4.0 if noise else 1e-9)
    figure = new_figure(WIDTH, 0.9 + 1.35 * len(thresholds))
    axes = figure.subplots(len(thresholds), 1, sharex=True, squeeze=False)[:, 0]
    for ax, threshold in zip(axes, thresholds, strict=True):
        rows = table[table["threshold"] == threshold]
        texts = rows.assign(text=[_cell(row, noise) for row in rows.itertuples()])
        grids = [
            frame.pivot(index="n_layers", columns="kept_share", values=name)
            for frame, name in ((rows, "shift"), (texts, "text"), (rows, "marked"))
        ]
        mesh = heat_map(ax, grids[0], norm=Normalize(-reach, reach), colours="PuOr_r", texts=grids[1])
        for row, column in zip(*np.nonzero(grids[2].to_numpy(bool)), strict=True):
            ax.add_patch(Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, fill=False, edgecolor=BLACK, linewidth=2))
        ax.set(title=f"threshold of the alignment ratio: {threshold:g}", ylabel="layers")
    axes[-1].set_xlabel("kept share of the inner layers' neurons")
    unit = "seed standard deviations" if noise else "nDCG@5"
    of = "the default (framed)" if marked.any() else "the mean cell"
    colour_bar(mesh, list(axes), f"difference to {of}, {unit}")
    title = f"Validation nDCG@5 by layers, neurons and threshold\n{subject(table)}"
    said = "One training a cell; seed noise was not recorded."
    if noise:
        said = f"One training a cell; below: its difference in seed standard deviations ({noise:.4f}"
        n_seeds = only(table, "n_seeds")
        said += ")." if n_seeds is None else f", over {n_seeds} seeds of the fixed mask)."
    return finish_figure(figure, title, said, spines=True)


def _cell(row: Any, noise: float | None) -> str:
    value = f"{row.validation_ndcg_at_5:.3f}"
    return f"{value}\n{round(row.shift) or 0:+d}".replace("+0", "±0") if noise else value


SYSTEM_COLOURS = (VERMILLION, BLUE, GREEN, BLACK)
"""Colour of the first, second, third and fourth system."""


def training_figure(curves: pd.DataFrame) -> Figure:
    """Draw validation nDCG@5 after each epoch: a panel for each system, a line for each seed, its chosen epoch ringed.

    Parameters
    ----------
    curves : DataFrame
        ``training.csv``. Of more than four systems both forms of the fusion and the best head on validation are drawn.
    """
    systems = drawn_systems(curves)
    best = curves.loc[curves.groupby(["system", "seed"], sort=False)["validation_ndcg_at_5"].idxmax()]
    span = max(np.ptp(curves.loc[curves["system"] == system, "validation_ndcg_at_5"]) for system in systems)
    figure = new_figure(WIDTH, 0.9 + 1.35 * len(systems))
    axes = figure.subplots(len(systems), 1, sharex=True, squeeze=False)[:, 0]
    for ax, system, colour in zip(axes, systems, SYSTEM_COLOURS, strict=False):
        rows = curves[curves["system"] == system]
        for style, (_, of_seed) in zip(_STYLES * 9, rows.groupby("seed"), strict=False):
            ax.plot(of_seed["epoch"], of_seed["validation_ndcg_at_5"], linestyle=style, color=colour, linewidth=1.0)
        chosen = best[best["system"] == system]
        ax.plot(
            chosen["epoch"], chosen["validation_ndcg_at_5"], "o", color=colour, markerfacecolor="white", markersize=5
        )
        middle = (rows["validation_ndcg_at_5"].max() + rows["validation_ndcg_at_5"].min()) / 2
        ax.set_ylim(middle - 0.62 * span, middle + 0.62 * span)  # one scale in all panels
        ax.annotate(
            plain_system(system),
            (0.99, 0.05),
            xycoords="axes fraction",
            ha="right",
            fontsize=TEXT,
            color=colour,
            fontweight="bold",
        )
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    axes[-1].set_xlabel("epoch (0: before training)")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[len(axes) // 2].set_ylabel("nDCG@5, validation queries")
    title = f"nDCG@5 while training\n{subject(curves)}"
    n_seeds = curves["seed"].nunique()
    return finish_figure(
        figure, title, f"A line for each of {n_seeds} seeds; ring: the epoch that was kept. All panels have one scale."
    )


_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def drawn_systems(curves: pd.DataFrame) -> list[str]:
    """Return the systems of ``training.csv`` that are drawn: all of at most four, else both forms and the best head."""
    names = list(dict.fromkeys(curves["system"]))
    if len(names) <= len(SYSTEM_COLOURS):
        return names
    best = curves.groupby(["system", "seed"])["validation_ndcg_at_5"].max().groupby("system").mean()
    heads = best[best.index.isin(HEADS)]
    forms = [name for name in ("miner", "trained_maps") if name in names]
    return [*forms, *([] if heads.empty else [str(heads.idxmax())])] or names[: len(SYSTEM_COLOURS)]
