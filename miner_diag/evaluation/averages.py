"""Averages over a benchmark as its leaderboard takes them: over languages first, then over data sets."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from miner_diag.backbones.known import hub_id_of
from miner_diag.corpus.benchmark_manifest import BenchmarkManifest
from miner_diag.corpus.core import BENCHMARK_METRICS
from miner_diag.evaluation.published import paper_averages, published_name, published_run

NOT_RUN = "not run here"
"""What stands in the place of a number that nobody measured here."""


def average_scores(scores: pd.DataFrame, manifests: Sequence[BenchmarkManifest]) -> pd.DataFrame:
    """Return ``averages.csv``: a row for each system and metric.

    Every language of a data set counts alike, whatever its number of queries, and so does every data set.

    Parameters
    ----------
    scores : DataFrame
        ``scores.csv`` of the data sets, one below the other.
    manifests : sequence of BenchmarkManifest
        All public data sets of one benchmark.

    Returns
    -------
    DataFrame
        system, benchmark, metric, main (whether the benchmark is published with that metric), value, n_sets (with a
        score of every language), of_sets (public ones). The value is empty unless all are there: an average of some of
        them is none of the benchmark.
    """
    (benchmark,) = {manifest.benchmark for manifest in manifests}
    (main,) = {manifest.metric for manifest in manifests}
    languages = {manifest.name: set(manifest.languages) for manifest in manifests}
    rows = []
    for system, of_system in scores.groupby("system", sort=False):
        for metric in BENCHMARK_METRICS:  # the benchmark's own, and the other one beside it
            table = of_system[of_system["metric"].eq(metric)]
            means = {
                name: part["value"].mean()
                for name, part in table.groupby("data")
                if name in languages and set(part["language"]) in (languages[name], {""})
            }
            whole = len(means) == len(manifests)
            rows.append(
                {
                    "system": system,
                    "benchmark": benchmark,
                    "metric": metric,
                    "main": metric == main,
                    "value": sum(means.values()) / len(means) if whole else None,
                    "n_sets": len(means),
                    "of_sets": len(manifests),
                }
            )
    return pd.DataFrame(rows)


def published_averages(published: pd.DataFrame, manifests: Sequence[BenchmarkManifest], metric: str) -> pd.DataFrame:
    """Return the averages of public runs, taken alike, of every model that has a run on all data sets.

    Parameters
    ----------
    published : DataFrame
        What :func:`~miner_diag.evaluation.published.read_published` returns.
    manifests : sequence of BenchmarkManifest
        All public data sets of one benchmark.
    metric : str
        "ndcg_at_5" or "ndcg_at_10".

    Returns
    -------
    DataFrame
        model, kind (single or multi), value in points, the highest first.
    """
    tasks = {manifest.task: manifest for manifest in manifests}
    candidates = published.loc[published["data"].isin(tasks), ["model", "kind"]].drop_duplicates()
    rows = []
    for model, kind in candidates.itertuples(index=False):
        means = []
        for task, manifest in tasks.items():
            run = published_run(published, model, task, metric, kind)
            if run is None or len(run.by_language) != len(manifest.languages):
                break
            means.append(sum(run.by_language.values()) / len(run.by_language))
        else:
            rows.append({"model": model, "kind": kind, "value": sum(means) / len(means)})
    table = pd.DataFrame(rows, columns=["model", "kind", "value"])
    return table.sort_values("value", ascending=False, ignore_index=True)


def measured_points(averages: pd.DataFrame) -> dict[tuple[str, str, str, str], float]:
    """Return the averages that were measured here, in points, by benchmark, metric, system and hub id of the model.

    The system is "backbone", "late" or what a fusion run calls it; a late-interaction partner has its model's own id.
    """
    points = {}
    for row in averages.dropna(subset="value").itertuples():
        model, _, system = row.system.rpartition(": ")
        hub_id = hub_id_of(model.removesuffix("-late") if system == "late" else model)
        points[row.benchmark, row.metric, system, hub_id] = 100 * row.value
    return points


def paper_table(averages: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return ``paper_table.csv``: the averages of MINER's authors with ours beside them, in points.

    Parameters
    ----------
    averages : DataFrame
        What `average_scores` returns, of one benchmark or of several.
    published : DataFrame
        What :func:`~miner_diag.evaluation.published.read_published` returns.

    Returns
    -------
    DataFrame
        model, benchmark, metric, published_backbone, published_miner (published, not run here), and backbone, miner,
        trained_maps, late, as measured here; "not run here" where they were not. Ours are over the public data sets of
        V3; over which languages and with which prompts the authors took theirs is not known.
    """
    table = paper_averages(published)
    ours = {
        (published_name(benchmark), metric.replace("_at_", "@"), system, model): points
        for (benchmark, metric, system, model), points in measured_points(averages).items()
    }
    for system in ("backbone", "miner", "trained_maps", "late"):
        keys = [(row.benchmark, row.metric, system, row.model) for row in table.itertuples()]
        table[system] = [f"{ours[key]:.1f}" if key in ours else NOT_RUN for key in keys]
    return table


def averages_sentence(manifests: Sequence[BenchmarkManifest]) -> str:
    """Return how averages are taken, and over what."""
    return (
        f"Averages are over the languages of a data set first, then over the {len(manifests)} public data sets of "
        f"{manifests[0].benchmark}; an average needs all of them. In paper_table.csv the numbers of "
        "MINER's authors are published, not run here."
    )
