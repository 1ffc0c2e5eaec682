"""The main table: backbones, their heads, fusions and late interaction on the same queries, with bytes per page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from miner_diag.cka.plots import new_figure
from miner_diag.corpus import Corpus
from miner_diag.corpus.clusters import over_documents
from miner_diag.stats import bootstrap_mean, holm, paired_bootstrap, paired_permutation

FLOAT = 4
"""Bytes of a float32."""
KINDS = {
    "backbone": ("#000000", "o"),
    "head": ("#0072B2", "v"),
    "fusion": ("#D55E00", "s"),
    "late": ("#009E73", "D"),
}
"""Kind of system -> colour (Okabe and Ito) and marker."""


LIKE = 0.2
"""Sizes that differ by less, relatively, are drawn side by side."""
STEP = 1.2
"""Factor from one of them to the next."""


class ReportError(ValueError):
    """Runs that cannot stand on one table."""


@dataclass(frozen=True, eq=False)
class _System:
    name: str
    model: str  # whose backbone it is held against
    kind: str
    bytes_per_page: float
    ndcg: dict[str, float]  # query_id -> nDCG@5


def main_table(
    corpus: Corpus,
    fusions: Sequence[Path],
    late: Sequence[Path] = (),
    *,
    intervals_over: str = "auto",
    seed: int = 0,
) -> pd.DataFrame:
    """Return a row per system: nDCG@5 on the same test queries, difference to its backbone, bytes per page.

    Parameters
    ----------
    corpus : Corpus
        The test split that all runs were judged on.
    fusions : sequence of path
        Folders of runs of ``miner_diag.fusion``, one per backbone.
    late : sequence of path
        Folders of runs of ``miner_diag.late``. ``NAME-late`` is held against backbone NAME, others against the first.
    intervals_over : {"auto", "documents", "items"}
        What intervals and tests are over.
    seed : int
        Of bootstrap and permutations.

    Returns
    -------
    DataFrame
        p values are adjusted over all rows (Holm).

    Raises
    ------
    ReportError
        If there is no run, two are of one backbone, a file is missing, or a run was judged on other queries or pages.
    """
    found = [_of_fusion(folder, corpus) for folder in fusions]
    models = [systems[0].model for systems in found]
    if not found or len(set(models)) < len(models):
        raise ReportError(f"fusions must be at least one run, each of another backbone; got {models or 'none'}")
    others = [_of_late(folder, corpus, models) for folder in late]
    systems = [s for mine in found for s in (*mine, *(other for other in others if other.model == mine[0].model))]
    by_document, _ = over_documents(corpus, intervals_over)
    clusters = [query.doc_id for query in corpus.queries] if by_document else None
    values = {s.name: np.array([s.ndcg[query.query_id] for query in corpus.queries]) for s in systems}
    rng = np.random.default_rng(seed)
    compared = [s for s in systems if s.kind != "backbone"]
    p = holm([paired_permutation(values[s.name], values[s.model], rng, clusters=clusters) for s in compared])
    adjusted = {s.name: float(value) for s, value in zip(compared, p, strict=True)}
    rows: list[dict[str, Any]] = []
    for system in systems:
        mean = bootstrap_mean(values[system.name], rng, clusters=clusters)
        row: dict[str, Any] = {
            "queries": corpus.form,
            "model": system.model,
            "system": system.name,
            "kind": system.kind,
            "ndcg_at_5": mean.value,
            "low": mean.low,
            "high": mean.high,
        }
        if system.name in adjusted:
            backbone = values[system.model]
            less = paired_bootstrap(values[system.name], backbone, rng, clusters=clusters)
            row |= {
                "difference_to_backbone": less.value,
                "difference_low": less.low,
                "difference_high": less.high,
                "relative": less.value / backbone.mean(),
                "p_holm": adjusted[system.name],
            }
        rows.append(
            row | {"bytes_per_page": system.bytes_per_page, "n_queries": mean.n, "n_documents": mean.n_clusters}
        )
    columns = [
        "queries",
        "model",
        "system",
        "kind",
        "ndcg_at_5",
        "low",
        "high",
        "difference_to_backbone",
        "difference_low",
        "difference_high",
        "relative",
        "p_holm",
        "bytes_per_page",
        "n_queries",
        "n_documents",
    ]
    return pd.DataFrame(rows).reindex(columns=columns)


def _of_fusion(folder: Path, corpus: Corpus) -> list[_System]:
    """Return backbone, the head a gain must go beyond, and fusion, means over seeds."""
    run = _run(folder, corpus, "miner_diag.fusion")
    wanted = {"backbone": "backbone", run["head"]: "head", "fusion": "fusion"}
    found: dict[str, dict[str, float]] = {name: {} for name in wanted}
    for line in _text(folder / "per_query.jsonl").splitlines():
        record = json.loads(line)
        name = record["measure"].removesuffix("_ndcg_at_5")
        if record["split"] == "test" and name in found:
            found[name][record["query_id"]] = record["value"]
    model = record["model"]
    size = FLOAT * json.loads(_text(folder / "fusion.json"))["width"]
    names = {"backbone": model, run["head"]: f"{model}, {run['head'].replace('_', ' ')}", "fusion": f"{model}, fused"}
    return [
        _System(names[name], model, kind, size, _checked(found[name], corpus, folder)) for name, kind in wanted.items()
    ]


def _of_late(folder: Path, corpus: Corpus, models: Sequence[str]) -> _System:
    run = _run(folder, corpus, "miner_diag.late")
    table = pd.read_csv(folder / "ndcg_per_query.csv")
    ndcg = dict(zip(table["query_id"], table["ndcg_at_5"], strict=True))
    name = json.loads(_text(folder / "records.jsonl").splitlines()[0])["model"]
    base = name.removesuffix("-late")
    model = base if base in models else models[0]
    return _System(name, model, "late", run["pages"]["bytes_mean"], _checked(ndcg, corpus, folder))


def _run(folder: Path, corpus: Corpus, command: str) -> dict[str, Any]:
    run = json.loads(_text(folder / "run.json"))
    if run["command"] != command:
        raise ReportError(f"{folder} is a run of {run['command']}; expected one of {command}")
    if run["corpus_revision"] != corpus.revision:
        raise ReportError(
            f"{folder} was judged on other pages or queries than {corpus.name} ({corpus.part}, {corpus.form}, fold "
            f"{corpus.fold}); run {command} again with the same --data, --queries, --fold and --split test"
        )
    return run


def _checked(ndcg: dict[str, float], corpus: Corpus, folder: Path) -> dict[str, float]:
    missing = [query.query_id for query in corpus.queries if query.query_id not in ndcg]
    if missing or len(ndcg) != len(corpus.queries):
        raise ReportError(
            f"{folder} has scores of {len(ndcg)} queries, {corpus.name} has {len(corpus.queries)}; "
            f"missing: {', '.join(missing[:3]) or 'none'}. Run its command again"
        )
    return ndcg


def _text(path: Path) -> str:
    if not path.exists():
        raise ReportError(f"{path} is not there; the run in {path.parent} is not whole. Start its command again")
    return path.read_text(encoding="utf-8")


def cost_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw nDCG@5 against bytes per page, a panel per form of queries; the first backbone's marks are filled.

    Parameters
    ----------
    table : DataFrame
        Main tables, one below the other.
    title : str
        Data set.
    """
    forms, models = list(dict.fromkeys(table["queries"])), list(dict.fromkeys(table["model"]))
    figure = new_figure(1.2 + 3.6 * len(forms), 4.2)
    axes = np.atleast_1d(figure.subplots(1, len(forms), sharey=True))
    for ax, form in zip(axes, forms, strict=True):
        rows = table[table["queries"] == form]
        for row, shift in zip(rows.itertuples(), _side_by_side(rows["bytes_per_page"]), strict=True):
            colour, marker = KINDS[row.kind]
            inside = colour if row.model == models[0] else "white"
            ends = [[row.ndcg_at_5 - row.low], [row.high - row.ndcg_at_5]]
            ax.errorbar(
                row.bytes_per_page * shift,
                row.ndcg_at_5,
                yerr=np.maximum(ends, 0),
                fmt=marker,
                color=colour,
                capsize=2.5,
                markersize=6,
                label=row.system,
                markerfacecolor=inside,
            )
        ax.set_xscale("log")
        ax.set(xlabel="bytes per page (marks of like size stand side by side)", title=f"{form} queries")
        ax.title.set_fontsize(10)
        ax.margins(x=0.15)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("nDCG@5, test queries")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _side_by_side(sizes: pd.Series) -> pd.Series:
    """Return the factors [N] that spread marks of like size about that size; a lone mark keeps its place."""
    group = sizes.sort_values().pct_change().gt(LIKE).cumsum().reindex(sizes.index)
    members = sizes.groupby(group)
    return STEP ** (members.cumcount() - (members.transform("size") - 1) / 2)
