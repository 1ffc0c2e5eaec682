"""Scores that others published, never run here: what a base run is held against before a gain on it counts."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass

import pandas as pd
import yaml

from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.evaluation.compare import EvaluationError
from miner_diag.files import sha256_bytes

LABEL = "published, not run here"
"""How every published number is labelled."""

TOLERANCE = 0.5
"""The largest distance, in points (nDCG times 100), of a base run that counts as reproduced."""

PAPER = "projects/miner/index.html"
"""The end of the source of the averages that MINER's authors show."""

BENCHMARKS = ("ViDoRe(v1)", "ViDoRe(v2)", "ViDoRe(v3)")
"""The benchmarks of those averages, in their order."""

_FUSED = "MINER on "


def published_name(benchmark: str) -> str:
    """Return what the published scores call a benchmark: "ViDoRe V2" is "ViDoRe(v2)" there."""
    return benchmark.replace("ViDoRe V", "ViDoRe(v") + ")"


def read_published() -> pd.DataFrame:
    """Return every published score: model, kind, benchmark, data, language, metric, value, source, protocol.

    Values are in points. The file is part of the package.

    Raises
    ------
    EvaluationError
        If the file is missing, or is not the one that the manifest beside it names.
    """
    manifest = manifest_folder() / "published" / "scores.yaml"
    try:
        stated = yaml.safe_load(manifest.read_text(encoding="utf-8"))
        packed = (manifest.parent / stated["file"]).read_bytes()
    except OSError as error:
        raise EvaluationError(f"the published scores cannot be read ({error}); install the package again") from error
    if sha256_bytes(packed) != stated["sha256"]:
        raise EvaluationError(
            f"{manifest.parent / stated['file']} is damaged: its sha256 is {sha256_bytes(packed)}, "
            f"{manifest.name} says {stated['sha256']}; install the package again"
        )
    text = gzip.decompress(packed).decode("utf-8")
    return pd.read_csv(io.StringIO(text), keep_default_na=False, dtype={"value": float})


@dataclass(frozen=True)
class PublishedRun:
    """One published run of an unmodified model on one data set."""

    model: str
    """Its hub id."""
    data: str
    """The task's name in mteb."""
    metric: str
    """"ndcg_at_5" or "ndcg_at_10"."""
    by_language: dict[str, float]
    """Language -> score in points; "default" where the data set has one language."""
    protocol: str
    """What is known of how it was run."""
    source: str
    """Where it was published."""


def published_run(
    scores: pd.DataFrame, model: str, data: str, metric: str, kind: str = "single"
) -> PublishedRun | None:
    """Return the public mteb run of an unmodified model, the newest one; None if there is none.

    Runs with settings that are not the model's own (mteb calls them experiments), and numbers of model cards, are not
    taken: nobody could say what a distance to them means.

    Parameters
    ----------
    scores : DataFrame
        What :func:`read_published` returns.
    model : str
        Hub id.
    data : str
        The task's name in mteb.
    metric : str
        "ndcg_at_5" or "ndcg_at_10".
    kind : str
        "single" or "multi": how many vectors a page has.
    """
    of_model = scores["model"].eq(model) & scores["kind"].eq(kind) & scores["data"].eq(data)
    of_mteb = scores["protocol"].str.startswith("mteb ") & ~scores["protocol"].str.contains("experiment")
    rows = scores[of_model & of_mteb & scores["metric"].eq(metric.replace("_at_", "@"))]
    rows = rows[~rows["language"].str.startswith("mean of")]
    if rows.empty:
        return None
    version = rows["protocol"].map(_mteb_version)
    rows = rows[version == version.max()]
    # a run is one file: languages of two runs of one version are not mixed
    rows = rows[rows["source"] == rows["source"].max()]
    return PublishedRun(
        model,
        data,
        metric,
        dict(zip(rows["language"], rows["value"].astype(float), strict=True)),
        rows["protocol"].iloc[0],
        rows["source"].iloc[0],
    )


def paper_averages(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the averages that MINER's authors show: a row for each backbone and benchmark.

    Returns
    -------
    DataFrame
        model, benchmark, metric, published_backbone, published_miner, in points; published, not run here.
    """
    rows = scores[scores["source"].str.endswith(PAPER) & scores["kind"].eq("single")]
    fused = rows["model"].str.startswith(_FUSED)
    backbones, miner = (
        part.assign(model=part["model"].str.removeprefix(_FUSED)).set_index(["model", "benchmark", "metric"])["value"]
        for part in (rows[~fused], rows[fused])
    )
    table = pd.DataFrame({"published_backbone": backbones, "published_miner": miner}).reset_index()
    order = {name: number for number, name in enumerate(BENCHMARKS)}
    return table.sort_values(["model", "benchmark"], key=lambda column: column.replace(order), ignore_index=True)


def authors_late(scores: pd.DataFrame, benchmark: str) -> dict[str, float]:
    """Return the late-interaction averages that MINER's authors show on a benchmark, by model, in points."""
    rows = scores[scores["source"].str.endswith(PAPER) & scores["kind"].eq("multi")]
    rows = rows[rows["benchmark"].eq(benchmark)]
    return dict(zip(rows["model"], rows["value"], strict=True))


def _mteb_version(protocol: str) -> tuple[int, ...]:
    return tuple(int(part) for part in protocol.split(";")[0].removeprefix("mteb ").split(".") if part.isdigit())
