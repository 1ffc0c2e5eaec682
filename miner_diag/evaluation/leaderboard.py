"""The main table of public benchmarks: late interaction, dense, backbones, + miner, + ours; published beside ours."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from miner_diag.corpus.benchmark_manifest import BenchmarkManifest
from miner_diag.evaluation.averages import NOT_RUN, measured_points, published_averages
from miner_diag.evaluation.forest import ROLE_COLOURS
from miner_diag.evaluation.published import LABEL, authors_late, paper_averages, published_name
from miner_diag.figures import BLACK, GREY, ORANGE, SMALL, WIDTH, finish_figure, legend_below, new_figure
from miner_diag.retrieval.metrics import metric_label

MEASURED = "measured here"
"""What is said of a number of ours."""

KINDS = ("late interaction", "dense", "backbone", "+ miner", "+ trained_maps")
"""The rows of the table, in its order."""

AUTHORS, MTEB = "MINER's authors", "public runs of mteb"
"""Who published a number; each score of a public run stands with its source in ``published/scores.csv.gz``."""

_KIND_OF = {"late": KINDS[0], "backbone": KINDS[2], "miner": KINDS[3], "trained_maps": KINDS[4]}


def leaderboard(
    published: pd.DataFrame, benchmarks: Sequence[Sequence[BenchmarkManifest]], averages: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return ``leaderboard.csv``: averages over whole benchmarks, in points, each with who measured it.

    Parameters
    ----------
    published : DataFrame
        What :func:`~miner_diag.evaluation.published.read_published` returns.
    benchmarks : sequence of sequences of BenchmarkManifest
        For each benchmark, all its public data sets.
    averages : DataFrame, optional
        What :func:`~miner_diag.evaluation.averages.average_scores` returns; nothing was run if it is not given.

    Returns
    -------
    DataFrame
        benchmark, metric, kind (one of `KINDS`), model, value (empty where nobody measured it), of ("published, not run
        here", "measured here" or "not run here"), by (who published it). Backbones are those that MINER's authors
        show, and those that were run here; every other single-vector model with public runs on all data sets is dense.
    """
    paper = paper_averages(published)
    of_paper = list(dict.fromkeys(paper["model"]))
    rows: list[dict[str, object]] = []
    for manifests in benchmarks:
        first = manifests[0]
        named = {"benchmark": first.benchmark, "metric": first.metric}
        for run in published_averages(published, manifests, first.metric).itertuples():
            kind = KINDS[0] if run.kind == "multi" else KINDS[2] if run.model in of_paper else KINDS[1]
            rows.append({**named, "kind": kind, "model": run.model, "value": run.value, "of": LABEL, "by": MTEB})
        shown = published_name(first.benchmark)
        late = authors_late(published, shown)
        for row in paper[paper["benchmark"].eq(shown)].itertuples():
            for kind, value in ((KINDS[2], row.published_backbone), (KINDS[3], row.published_miner)):
                rows.append({**named, "kind": kind, "model": row.model, "value": value, "of": LABEL, "by": AUTHORS})
        rows += [
            {**named, "kind": KINDS[0], "model": model, "value": value, "of": LABEL, "by": AUTHORS}
            for model, value in late.items()
        ]
        rows += _ours(averages, named, of_paper)
    table = pd.DataFrame(rows, columns=["benchmark", "metric", "kind", "model", "value", "of", "by"])
    order = {kind: number for number, kind in enumerate(KINDS)}
    table = table.assign(place=table["kind"].map(order))
    table = table.sort_values(["benchmark", "place", "value"], ascending=[True, True, False], kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def _ours(averages: pd.DataFrame | None, named: dict[str, str], of_paper: Sequence[str]) -> list[dict[str, object]]:
    """Return what was measured here of one benchmark, and an empty cell for what the paper shows and nobody ran."""
    points = {} if averages is None else measured_points(averages)
    measured = {
        (_KIND_OF[system], model): value
        for (benchmark, metric, system, model), value in points.items()
        if (benchmark, metric) == (named["benchmark"], named["metric"]) and system in _KIND_OF
    }
    cells = [(kind, model) for kind in KINDS[2:] for model in of_paper]
    return [
        {
            **named,
            "kind": kind,
            "model": model,
            "value": measured.get((kind, model)),
            "of": MEASURED if (kind, model) in measured else NOT_RUN,
            "by": "",
        }
        for kind, model in dict.fromkeys([*cells, *measured])
    ]


_ROWS = {KINDS[0]: "late interaction", KINDS[1]: "other single-vector"}
_SHORT = {
    "jinaai/jina-embeddings-v4": "jina-v4",
    "eagerworks/eager-embed-v1": "eager-embed",
    "moca-embed/MoCa-Qwen25VL-3B": "MoCa-3B",
}


def leaderboard_figure(table: pd.DataFrame) -> Figure:
    """Draw the averages: all late-interaction and single-vector models, then each backbone of the authors with MINER.

    Parameters
    ----------
    table : DataFrame
        What `leaderboard` returns.
    """
    drawn = table.dropna(subset="value")
    benchmarks = list(dict.fromkeys(drawn["benchmark"]))
    rows_of = {name: _figure_rows(drawn[drawn["benchmark"].eq(name)]) for name in benchmarks}
    figure = new_figure(WIDTH, 1.4 + sum(0.62 + 0.2 * len(rows) for rows in rows_of.values()))
    heights = [len(rows) + 1 for rows in rows_of.values()]
    axes = figure.subplots(len(benchmarks), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for ax, (name, rows) in zip(axes, rows_of.items(), strict=True):
        for place, (_, of_row) in enumerate(rows.items()):
            _draw_row(ax, of_row, place)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.margins(x=0.1)
        metric = drawn.loc[drawn["benchmark"].eq(name), "metric"].iloc[0]
        ax.set_xlabel(f"{name}: average {metric_label(metric)}, points (of 100)")
        ax.grid(axis="x", color="0.9", linewidth=0.7)
    looks = {
        "backbone": _line(BLACK),
        "+ MINER": _line(ROLE_COLOURS["fusion"]),
        "+ ours": _line(ORANGE),
        "public run": _line(GREY, "|"),
    }
    there = set(drawn["kind"])
    names = [name for name in looks if name != "+ ours" or KINDS[4] in there]
    legend_below(axes[-1], [looks[name] for name in names], names, columns=4)
    caption = (
        "Backbone and + MINER: what MINER's authors published. Open: published, not run here; filled: measured here."
    )
    return finish_figure(figure, "Averages over public benchmarks, one mark a model", caption)


def _line(colour: str, marker: str = "o") -> Line2D:
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markerfacecolor="white", markersize=4.5)


def _figure_rows(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the marks of each row of the figure: a kind of retriever, or a backbone with what is built on it."""
    shown: dict[str, pd.DataFrame] = {}
    for kind, label in _ROWS.items():
        of_kind = rows[rows["kind"].eq(kind)]
        if len(of_kind):
            shown[f"{label} ({len(of_kind)})"] = of_kind
    for model in dict.fromkeys(rows.loc[rows["kind"].isin(KINDS[2:]), "model"]):
        shown[_SHORT.get(model, model.split("/")[-1])] = rows[rows["model"].eq(model) & rows["kind"].isin(KINDS[2:])]
    return shown


def _draw_row(ax: Axes, rows: pd.DataFrame, place: int) -> None:
    colours = {
        KINDS[0]: ROLE_COLOURS["late"],
        KINDS[1]: GREY,
        KINDS[2]: BLACK,
        KINDS[3]: ROLE_COLOURS["fusion"],
        KINDS[4]: ORANGE,
    }
    ends = [rows.loc[rows["kind"].eq(kind) & rows["by"].eq(AUTHORS), "value"] for kind in KINDS[2:4]]
    if all(len(end) == 1 for end in ends):
        before, after = (float(end.iloc[0]) for end in ends)
        ax.plot([before, after], [place, place], color=ROLE_COLOURS["fusion"], linewidth=1.4, zorder=1)
        ax.annotate(
            f"{after - before:+.1f}",
            (rows["value"].max(), place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=BLACK,
        )
    for row in rows.itertuples():
        public = row.kind == KINDS[2] and row.by == MTEB
        colour = GREY if public else colours[row.kind]
        face = colour if row.of == MEASURED else "white"
        ax.plot(
            row.value,
            place,
            "|" if public else "o",
            color=colour,
            markerfacecolor=face,
            markersize=9 if public else 4.5,
        )
