"""Pictures of an evaluation: what each system is worth, how steady that is over document splits, what a page costs."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from miner_diag.evaluation.main_table import metric_of
from miner_diag.figures import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, finish_figure, new_figure
from miner_diag.retrieval.metrics import metric_label

ROLES = {
    "backbone": (BLACK, "o"),
    "head": (BLUE, "v"),
    "fusion": (VERMILLION, "s"),
    "late": (GREEN, "D"),
    "lexical": (ORANGE, "^"),
}
"""Role -> colour and marker; other roles are grey circles."""

FUSION_MARKERS = ("s", "P")
"""Markers of the forms of the fusion, in the order in which a table names them."""

ALIKE = 0.2
"""Sizes of a page that differ relatively by less are drawn side by side."""
LABEL_WIDTH = 34
"""The largest number of characters in a line of a label."""
STEP = 1.2
"""The factor from one of them to the next."""


def ablation_figure(table: pd.DataFrame, *, split: str = "test", title: str = "", caption: str = "") -> Figure:
    """Draw every system's difference to its backbone with its interval, the best on top.

    Parameters
    ----------
    table : DataFrame
        ``comparison.csv``.
    split : str
        The split whose rows are drawn.
    title : str
        Backbone, data set and split.
    caption : str
        What intervals are over, and the families of the p values.
    """
    rows = table[(table["split"] == split) & table["difference_to_backbone"].notna()]
    rows = rows.sort_values("difference_to_backbone")
    # what is far off would press everything else together: it stands at the edge, with its number
    fusions = rows.loc[rows["role"] == "fusion", "difference_to_backbone"]
    widest = fusions if len(fusions) else rows["difference_to_backbone"]
    reach = 4 * max(0.01, float(widest.abs().max()))
    near = rows[rows["difference_to_backbone"].abs() <= reach]
    left = min(0.0, float(near["difference_low"].min())) - 0.1 * reach
    right = max(0.0, float(near["difference_high"].max())) + 0.1 * reach
    several = rows.loc[~rows["role"].isin(["late", "run", "lexical"]), "model"].nunique() > 1
    figure = new_figure(7.2, 1.6 + 0.24 * len(rows))
    ax = figure.subplots()
    for place, row in enumerate(rows.itertuples()):
        colour, _ = ROLES.get(row.role, (GREY, "o"))
        look: dict[str, Any] = {
            "color": colour,
            "marker": "s" if row.role == "fusion" else "o",
            "markersize": 5,
            "markerfacecolor": colour if row.verdict in ("better", "worse") else "white",
        }
        outside = left if row.difference_to_backbone < left else right if row.difference_to_backbone > right else None
        if outside is not None:
            beyond_left = outside == left
            ax.plot(outside, place, **look | {"marker": "<" if beyond_left else ">"}, clip_on=False)
            ax.annotate(
                f"{row.difference_to_backbone:+.3f}",
                (outside, place),
                xytext=(6 if beyond_left else -6, 0),
                textcoords="offset points",
                ha="left" if beyond_left else "right",
                va="center",
                fontsize=8,
            )
            continue
        ends = [[row.difference_to_backbone - row.difference_low], [row.difference_high - row.difference_to_backbone]]
        ax.errorbar(row.difference_to_backbone, place, xerr=np.maximum(ends, 0), capsize=2.5, **look)
    ax.set_xlim(left=left, right=right)
    ax.axvline(0, color="0.4", linewidth=0.9)
    ax.set_yticks(
        range(len(rows)),
        [
            _label(row.model, row.system, row.role)
            if several or row.role in ("run", "lexical")
            else _wrapped(row.system.replace("_", " "))
            for row in rows.itertuples()
        ],
    )
    ax.set(xlabel=f"{metric_label(metric_of(table))} less the backbone's, {split} queries (filled: p Holm < 0.05)")
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    return finish_figure(figure, title, caption)


def folds_figure(folds: pd.DataFrame, together: pd.DataFrame, *, title: str = "", caption: str = "") -> Figure:
    """Draw each document split's gain over the backbone, relative, of fusions and chosen head; then of all together.

    Parameters
    ----------
    folds : DataFrame
        ``folds.csv``.
    together : DataFrame
        ``folds_together.csv``.
    title : str
        Data set.
    caption : str
        What intervals are over.
    """
    models = list(dict.fromkeys(folds.loc[folds["role"] == "fusion", "model"]))  # BM25 has no panel of its own
    figure = new_figure(3.2 + 3.4 * len(models), 3.6)
    axes = np.atleast_1d(figure.subplots(1, len(models), sharey=True))
    for ax, model in zip(axes, models, strict=True):
        of_model, all_splits = folds[folds["model"] == model], together[together["model"] == model]
        names = [str(fold) for fold in sorted(of_model["fold"].unique())]
        fusions = list(dict.fromkeys(of_model.loc[of_model["role"] == "fusion", "system"]))
        drawn = [("head", None, "head on the final layer"), *(("fusion", name, name) for name in fusions)]
        for number, (role, name, label) in enumerate(drawn):
            shift = 0.12 * (number - (len(drawn) - 1) / 2)
            own, whole = (
                part[part["chosen"] & part["role"].eq(role) & (part["system"].eq(name) if name else True)]
                for part in (of_model, all_splits)
            )
            rows = pd.concat([own.sort_values("fold"), whole], ignore_index=True)
            base = rows["backbone_ndcg_at_5"]
            value = rows["difference_to_backbone"] / base
            ends = [value - rows["difference_low"] / base, rows["difference_high"] / base - value]
            colour, _ = ROLES[role]
            ax.errorbar(
                np.arange(len(rows)) + shift,
                value,
                yerr=np.maximum(ends, 0),
                fmt="o" if role == "head" else FUSION_MARKERS[(number - 1) % len(FUSION_MARKERS)],
                color=colour,
                markerfacecolor=colour if number < 2 else "white",
                capsize=2.5,
                markersize=5,
                label=label.replace("_", " "),
            )
        ax.axhline(0, color="0.4", linewidth=0.9)
        ax.axvline(len(names) - 0.5, color="0.8", linewidth=0.8)
        ax.set_xticks(range(len(names) + 1), [*names, "all"])
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set(xlabel="document split", title=model if len(models) > 1 else "")
        ax.title.set_fontsize(10)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
    axes[0].set_ylabel("nDCG@5 over the backbone's,\ntest queries")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside right center")
    return finish_figure(figure, title, caption)


def cost_figure(table: pd.DataFrame, *, title: str = "", caption: str = "") -> Figure:
    """Draw nDCG@k against bytes per page, a panel per form of queries; the first backbone's marks are filled.

    Parameters
    ----------
    table : DataFrame
        Main tables of one metric, one below the other. A system whose pages have no known size is left out.
    title : str
        Data set.
    caption : str
        What intervals are over.
    """
    metric, table = metric_of(table), table[table["bytes_per_page"].notna()]
    forms = list(dict.fromkeys(table["queries"]))
    first = table.loc[table["role"] == "backbone", "model"]
    fusions = list(dict.fromkeys(table.loc[table["role"] == "fusion", "system"]))
    labels = [_label(row.model, row.system, row.role) for row in table[table["queries"] == forms[0]].itertuples()]
    n_lines = sum(label.count("\n") + 1 for label in labels)
    figure = new_figure(3.4 + 3.4 * len(forms), max(4.4, 1.2 + 0.17 * n_lines))
    axes = np.atleast_1d(figure.subplots(1, len(forms), sharey=True))
    for ax, form in zip(axes, forms, strict=True):
        rows = table[table["queries"] == form]
        for row, shift in zip(rows.itertuples(), _side_by_side(rows["bytes_per_page"]), strict=True):
            colour, marker = ROLES[row.role]
            if row.role == "fusion":
                marker = FUSION_MARKERS[fusions.index(row.system) % len(FUSION_MARKERS)]
            filled = len(first) > 0 and first.iloc[0] in (row.model, row.backbone)
            value = getattr(row, metric)
            ends = [[value - row.low], [row.high - value]]
            ax.errorbar(
                row.bytes_per_page * shift,
                value,
                yerr=np.maximum(ends, 0),
                fmt=marker,
                color=colour,
                capsize=2.5,
                markersize=6,
                label=_label(row.model, row.system, row.role),
                markerfacecolor=colour if filled else "white",
            )
        ax.set_xscale("log")
        ax.set(xlabel="bytes per page", title=f"{form} queries")
        ax.title.set_fontsize(10)
        ax.margins(x=0.15)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
    axes[0].set_ylabel(f"{metric_label(metric)}, {' and '.join(dict.fromkeys(table['split']))} queries")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside right center")
    return finish_figure(figure, title, f"Marks of like size stand side by side. {caption}".strip())


def query_differences_figure(
    table: pd.DataFrame, metric: str, ends: tuple[float, float], *, title: str = "", caption: str = ""
) -> Figure:
    """Draw the difference of two systems at every query, the largest gain first, and their mean with its interval.

    Parameters
    ----------
    table : DataFrame
        A row for each query, with the column difference.
    metric : str
        What was measured, as files name it.
    ends : (float, float)
        The interval of the mean difference.
    title : str
        The two systems and the data.
    caption : str
        What the interval is over.
    """
    values = np.sort(table["difference"].to_numpy(dtype=np.float64))[::-1]
    figure = new_figure(7.2, 3.4)
    ax = figure.subplots()
    for kind, rows, colour in (("gain", values > 0, BLUE), ("lose", values < 0, VERMILLION)):
        label = f"{rows.sum()} of {len(values)} queries {kind}"
        ax.bar(np.flatnonzero(rows), values[rows], width=1.0, color=colour, label=label)
    mean = values.mean()
    ax.axhspan(*ends, color="0.8", zorder=0)
    ax.axhline(
        mean, color=BLACK, linewidth=1.2, linestyle="--", label=f"mean {mean:+.4f} [{ends[0]:+.4f}, {ends[1]:+.4f}]"
    )
    ax.axhline(0, color="0.4", linewidth=0.9)
    ax.set(
        xlabel="queries, the largest gain first", ylabel=f"difference in {metric_label(metric)}", xlim=(-1, len(values))
    )
    ax.legend(fontsize=8, frameon=False, loc="upper right")
    return finish_figure(figure, title, caption)


def _label(model: str, system: str, role: str, several: bool = True) -> str:
    if role in ("backbone", "late", "run"):
        return model
    name = system.replace("_", " ")
    return _wrapped(f"{model}, {name}" if several else name)


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, LABEL_WIDTH))  # a run is told by its folder, whose path can be long


def _side_by_side(sizes: pd.Series) -> pd.Series:
    """Return the factors [N] that spread marks of like size about that size; a lone mark keeps its place."""
    group = sizes.sort_values().pct_change().gt(ALIKE).cumsum().reindex(sizes.index)
    members = sizes.groupby(group)
    return STEP ** (members.cumcount() - (members.transform("size") - 1) / 2)
