"""Pictures of an evaluation: what each system is worth, how steady that is over document splits, what a page costs.

Each is drawn from its table alone: titles, counts and what intervals are over stand in the columns.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from miner_diag.evaluation.forest import (
    ROLE_COLOURS,
    Mark,
    Row,
    draw_rows,
    model_legend,
    model_markers,
    n_lines,
    reach,
)
from miner_diag.evaluation.main_table import metric_of
from miner_diag.figures import (
    BLACK,
    BLUE,
    GREY,
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
from miner_diag.names import SYSTEMS, plain_system
from miner_diag.retrieval.metrics import metric_label

LABEL_WIDTH = 30
"""The largest number of characters in a line of a label; a run is told by its folder, whose path can be long."""

_OF_OURS, _OF_MINER = "ours, one thing changed", "MINER, one thing changed"
_GROUPS = {
    "fusion": "the two forms of the fusion",
    "head": "heads on the final layer alone",
    "baseline": "simpler ways",
    _OF_OURS: _OF_OURS,
    _OF_MINER: _OF_MINER,
    "control": "controls",
    "lexical": "BM25, embeds nothing",
    "late": "late interaction",
    "run": "run files",
    "backbone": "other backbones",
}
"""Group of rows of the ablation -> its heading, in the order of the figure."""


def ablation_figure(table: pd.DataFrame, *, split: str = "test") -> Figure:
    """Draw every system's difference to its backbone with its interval, in groups whose order is always the same.

    Parameters
    ----------
    table : DataFrame
        ``comparison.csv``; of several retrievers each has a marker of its own.
    split : str
        The split whose rows are drawn.
    """
    drawn = _told_once(table[(table["split"] == split) & table["difference_to_backbone"].notna()])
    drawn = drawn.assign(of=_held_against(drawn), group=[_group(r.role, r.system) for r in drawn.itertuples()])
    markers = model_markers(list(dict.fromkeys(drawn["of"])))
    rows: list[Row] = []
    for group, heading in _GROUPS.items():
        members = drawn[drawn["group"] == group]
        if members.empty:
            continue
        colour = ROLE_COLOURS.get(group, GREY)
        rows.append(Row(heading, colour=colour))
        members = members.assign(label=[_label(r.model, r.system, r.role) for r in members.itertuples()])
        for label in sorted(dict.fromkeys(members["label"]), key=_place):
            of_label = members[members["label"] == label]
            rows.append(Row(_wrapped(label), [_mark(r, colour, markers[r.of]) for r in of_label.itertuples()]))
    # what is far off would press everything else together: it stands at the edge, with its number
    near = drawn[drawn["role"].isin(["fusion", "head"])]
    near = near if len(near) else drawn
    widest = 4 * max(0.01, float(near["difference_to_backbone"].abs().max()))
    marks = [mark for row in rows for mark in row.marks if abs(mark.value) <= widest]
    figure = new_figure(WIDTH, 1.5 + 0.165 * n_lines(rows))
    ax = figure.subplots()
    ax.set_xlim(*np.clip(reach(marks), -1.1 * widest, 1.1 * widest))
    draw_rows(ax, rows)
    ax.set_xlabel(f"{metric_label(metric_of(table))} less the backbone's")
    model_legend(ax, markers)
    title = f"What each system adds to its backbone\n{subject(drawn.assign(model=drawn['of']))}"
    return finish_figure(figure, title, f"{counts(drawn)}{intervals_over(drawn)}. Filled: p < 0.05 after Holm.")


def folds_figure(folds: pd.DataFrame, together: pd.DataFrame) -> Figure:
    """Draw each document split's gain over the backbone, relative, of fusions and chosen head; then of all together.

    Parameters
    ----------
    folds : DataFrame
        ``folds.csv``.
    together : DataFrame
        ``folds_together.csv``.
    """
    models = list(dict.fromkeys(folds.loc[folds["role"] == "fusion", "model"]))  # BM25 has no panel of its own
    figure = new_figure(WIDTH, 1.5 + 1.7 * len(models))
    axes = figure.subplots(len(models), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, model in zip(axes, models, strict=True):
        of_model, all_splits = folds[folds["model"] == model], together[together["model"] == model]
        names = [str(fold) for fold in sorted(of_model["fold"].unique())]
        fusions = list(dict.fromkeys(of_model.loc[of_model["role"] == "fusion", "system"]))
        drawn = [("head", None, SYSTEMS["head"]), *(("fusion", name, plain_system(name)) for name in fusions)]
        looks = [(BLUE, "v", BLUE), *zip([VERMILLION] * 9, "sPXDs^vop", ["white", VERMILLION] * 5, strict=False)]
        for number, (role, name, label) in enumerate(drawn):
            shift = 0.22 * (number - (len(drawn) - 1) / 2)
            own, whole = (
                part[part["chosen"] & part["role"].eq(role) & (part["system"].eq(name) if name else True)]
                for part in (of_model, all_splits)
            )
            rows = pd.concat([own.sort_values("fold"), whole], ignore_index=True)
            base = rows["backbone_ndcg_at_5"]
            value = rows["difference_to_backbone"] / base
            ends = [value - rows["difference_low"] / base, rows["difference_high"] / base - value]
            places = [names.index(str(int(fold))) if fold == fold else len(names) for fold in rows["fold"]]
            colour, marker, face = looks[number % len(looks)]
            ax.errorbar(
                np.array(places) + shift,
                value,
                yerr=np.maximum(ends, 0),
                fmt=marker,
                color=colour,
                markerfacecolor=face,
                capsize=2,
                markersize=4.5,
                elinewidth=1.1,
                label=label,
            )
        ax.axhline(0, color="0.4", linewidth=0.9)
        ax.axvspan(len(names) - 0.5, len(names) + 0.5, color="0.93", zorder=0)
        ax.set_xticks(range(len(names) + 1), [*names, "all"])
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_title(model if len(models) > 1 else "")
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    axes[-1].set_xlabel("split by document; all: their test queries together")
    axes[len(axes) // 2].set_ylabel("nDCG@5 over the backbone's")
    handles, labels = axes[0].get_legend_handles_labels()
    legend_below(axes[-1], handles, labels)
    title = f"Does the gain hold on other documents?\n{subject(folds[folds['role'] == 'fusion'])}"
    of_all = together[together["role"] == "fusion"]
    caption = f"All: {counts(of_all)}{intervals_over(of_all)}; each split's over its own documents."
    return finish_figure(figure, title, caption)


def cost_figure(table: pd.DataFrame) -> Figure:
    """Draw each system's difference to its backbone beside its bytes per page: zoomed in, in full, and the size.

    Parameters
    ----------
    table : DataFrame
        Main tables of one metric, one below the other, each form of queries a block of rows.
    """
    metric, forms = metric_of(table), list(dict.fromkeys(table["queries"]))
    blocks = {form: _cost_rows(table[table["queries"] == form], metric) for form in forms}
    heights = [n_lines(rows) for rows, _ in blocks.values()]
    figure = new_figure(WIDTH, 1.3 + 0.25 * (len(forms) - 1) + 0.2 * sum(heights))
    axes = figure.subplots(
        len(forms), 3, sharex="col", squeeze=False, gridspec_kw={"width_ratios": (1.7, 1, 1), "height_ratios": heights}
    )
    close = [m for rows, _ in blocks.values() for row in rows for m in row.marks if m.colour in _CLOSE]
    every = [m for rows, _ in blocks.values() for row in rows for m in row.marks]
    axes[0, 0].set_xlim(*reach(close or every))
    axes[0, 1].set_xlim(*reach(every))
    for (form, (rows, sizes)), (zoom, full, size) in zip(blocks.items(), axes, strict=True):
        draw_rows(zoom, rows)
        places = draw_rows(full, rows, labels=False)
        for place, row, n_bytes in zip(places, rows, sizes, strict=True):
            if row.marks or n_bytes is not None:
                colour = row.marks[0].colour if row.marks else BLACK
                size.plot(np.nan if n_bytes is None else n_bytes, place, "o", color=colour, markersize=4)
        size.set_xscale("log")
        size.set_ylim(*full.get_ylim())
        size.set_yticks([])
        size.grid(axis="x", color="0.9", linewidth=0.7)
        size.margins(x=0.2)
        if len(forms) > 1:
            n_queries = only(table[table["queries"] == form], "n_queries")
            n = "" if n_queries is None else f", n = {n_queries:,}"
            full.set_title(f"{form} queries{n}", fontweight="bold")
    label = metric_label(metric)
    axes[-1, 0].set_xlabel(f"{label} less the\nbackbone's, zoomed in")
    axes[-1, 1].set_xlabel("in full")
    axes[-1, 2].set_xlabel("bytes a page")
    for column in (0, 1):
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(3 - column, min_n_ticks=2))
    title = f"What each system adds, and what a page costs\n{subject(table.assign(model=None))}"
    caption = f"{counts(table)}{intervals_over(table)}. Filled: p < 0.05 after Holm; arrow: beyond the panel."
    caption += f" Beside a backbone: its own {label}."
    return finish_figure(figure, title, caption)


_CLOSE = (ROLE_COLOURS["head"], ROLE_COLOURS["fusion"])


def _cost_rows(table: pd.DataFrame, metric: str) -> tuple[list[Row], list[float | None]]:
    """Return the rows of one form of queries, a heading for each backbone, and the bytes of a page of each row."""
    table = table.assign(of=_held_against(table))
    rows, sizes = [], []
    for model in dict.fromkeys(table["of"]):
        of_model = table[table["of"] == model]
        own = of_model[of_model["role"].eq("backbone") & of_model["model"].eq(model)]
        value = f" {own[metric].iloc[0]:.3f}" if len(own) else ""
        rows.append(Row(f"{model}{value}"))
        sizes.append(_size(own["bytes_per_page"].iloc[0]) if len(own) else None)
        others = _told_once(of_model[of_model["difference_to_backbone"].notna()])
        for row in others.itertuples():
            label = SYSTEMS["head"] if row.role == "head" else _label(row.model, row.system, row.role)
            rows.append(Row(_wrapped(label), [_mark(row, ROLE_COLOURS.get(row.role, GREY), "o")]))
            sizes.append(_size(row.bytes_per_page))
    return rows, sizes


def _size(n_bytes: float) -> float | None:
    return None if pd.isna(n_bytes) else float(n_bytes)


def query_differences_figure(table: pd.DataFrame) -> Figure:
    """Draw the difference of two systems at every query, the largest gain first, and their mean with its interval.

    Parameters
    ----------
    table : DataFrame
        A row for each query with the columns difference, and, the same in all rows: metric, mean_low and mean_high (the
        interval of the mean difference), baseline_name, changed_name.
    """
    values = np.sort(table["difference"].to_numpy(dtype=np.float64))[::-1]
    label = metric_label(only(table, "metric"))
    figure = new_figure(WIDTH, 3.0)
    ax = figure.subplots()
    places = np.arange(len(values))
    for rows, colour in ((values > 0, BLUE), (values < 0, VERMILLION)):
        ax.fill_between(places, np.where(rows, values, 0), step="mid", color=colour, linewidth=0)
    gained, lost = int((values > 0).sum()), int((values < 0).sum())
    ax.annotate(
        f"{gained} gain",
        (gained, 0.5 * values.max(initial=0)),
        (4, 0),
        textcoords="offset points",
        color=BLUE,
        fontsize=TEXT,
    )
    ax.annotate(
        f"{lost} lose",
        (len(values) - lost, 0.5 * values.min(initial=0)),
        (-4, 0),
        textcoords="offset points",
        color=VERMILLION,
        fontsize=TEXT,
        ha="right",
    )
    mean, low, high = values.mean(), only(table, "mean_low"), only(table, "mean_high")
    ax.axhline(mean, color=BLACK, linewidth=1.2, linestyle="--")
    interval = ""
    if low is not None and high is not None:
        ax.axhspan(low, high, color="0.8", zorder=0)
        interval = f" [{low:+.3f}, {high:+.3f}]"
    ax.annotate(
        f"mean {mean:+.3f}{interval}; {len(values) - gained - lost} queries unchanged",
        (0.5, mean),
        (0, 3 if mean > 0 else -3),
        xycoords=ax.get_yaxis_transform(),
        fontsize=SMALL,
        textcoords="offset points",
        va="bottom" if mean > 0 else "top",
        ha="center",
    )
    ax.axhline(0, color="0.4", linewidth=0.9)
    ax.set(xlabel=f"{len(values):,} queries, the largest gain first", ylabel=f"difference in {label}")
    ax.set_xlim(-1, len(values))
    names = [only(table, name) for name in ("changed_name", "baseline_name")]
    title = " less ".join(str(name) for name in names if name is not None) or "Two systems, query by query"
    return finish_figure(figure, f"{title}\n{subject(table)}", f"Grey: {intervals_over(table)}." if interval else "")


def _told_once(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without BM25 over what a retriever read where that was the whole text, which has a row already."""
    lexical = table["role"].eq("lexical")
    whole = table.loc[lexical & table["system"].eq("text layer"), "difference_to_backbone"].tolist()
    return table[~(lexical & table["system"].ne("text layer") & table["difference_to_backbone"].isin(whole))]


def _held_against(table: pd.DataFrame) -> pd.Series:
    """Return the backbone that each row belongs to: its own where it is one, else the one that it is compared with."""
    return table["backbone"].where(table["role"].ne("backbone") & table["backbone"].notna(), table["model"])


def _group(role: str, system: str) -> str:
    if role != "variant":
        return role if role in _GROUPS else "baseline"
    return _OF_MINER if system.startswith("miner_") else _OF_OURS


def _mark(row: Any, colour: str, marker: str) -> Mark:
    sure = row.verdict in ("better", "worse")
    return Mark(row.difference_to_backbone, row.difference_low, row.difference_high, colour, marker, sure)


def _label(model: str, system: str, role: str) -> str:
    if role == "late":
        return SYSTEMS["late"] if system == "late" else plain_system(system)
    return model if role in ("backbone", "run") else plain_system(system)


def _place(label: str) -> tuple[int, str]:
    """Return what sorts labels: known systems in the order of `SYSTEMS`, others behind them by name."""
    known = list(SYSTEMS.values())
    return (known.index(label), "") if label in known else (len(known), label)


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, LABEL_WIDTH))
