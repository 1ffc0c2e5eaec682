"""The main table of public benchmarks: late interaction, dense, backbones, + miner, + ours; published beside ours."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.corpus.benchmark_manifest import BenchmarkManifest
from miner_diag.evaluation.averages import NOT_RUN, measured_points, published_averages
from miner_diag.evaluation.plots import GREY, ROLES
from miner_diag.evaluation.published import LABEL, authors_late, paper_averages, published_name
from miner_diag.figures import finish_figure, new_figure
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


def leaderboard_figure(table: pd.DataFrame) -> Figure:
    """Draw the averages: a row for each kind of each benchmark, a mark for each model, lines from backbone to miner.

    Parameters
    ----------
    table : DataFrame
        What `leaderboard` returns.
    """
    drawn = table.dropna(subset="value")
    benchmarks = list(dict.fromkeys(drawn["benchmark"]))
    figure = new_figure(7.2, 1.1 + 1.25 * len(benchmarks))
    axes = figure.subplots(len(benchmarks), 1, squeeze=False)[:, 0]
    colours = {KINDS[0]: ROLES["late"][0], KINDS[1]: GREY, KINDS[2]: ROLES["backbone"][0]}
    fused = ROLES["fusion"][0]
    for ax, name in zip(axes, benchmarks, strict=True):
        rows = drawn[drawn["benchmark"].eq(name)]
        kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
        for place, kind in enumerate(reversed(kinds)):
            for status, marker in ((LABEL, "o"), (MEASURED, "D")):
                of_status = rows[rows["kind"].eq(kind) & rows["of"].eq(status)]
                colour = colours.get(kind, fused)
                face = colour if status == MEASURED else "white"
                heights = [place] * len(of_status)
                ax.plot(of_status["value"], heights, marker, color=colour, markerfacecolor=face, markersize=4.5)
        ends = [rows[rows["kind"].eq(kind) & rows["by"].eq(AUTHORS)].set_index("model")["value"] for kind in KINDS[2:4]]
        heights = [len(kinds) - 1 - kinds.index(kind) for kind in KINDS[2:4] if kind in kinds]
        for model in ends[0].index.intersection(ends[1].index):
            ax.plot([end[model] for end in ends], heights, color=fused, linewidth=0.8, zorder=0)
        ax.set_yticks(range(len(kinds)), kinds[::-1])
        ax.set_ylim(-0.6, len(kinds) - 0.4)
        ax.set_xlabel(f"{name}: {metric_label(rows['metric'].iloc[0])}, points")
        ax.grid(axis="x", color="0.9", linewidth=0.8)
    caption = "Of a backbone a public run and the average of MINER's authors are drawn; lines join theirs with miner."
    return finish_figure(figure, "Averages over public benchmarks (open: published, not run here)", caption)
