"""Tables and records of an evaluation, and the sentences a person takes away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from miner_diag.corpus import Corpus
from miner_diag.evaluation.compare import POWER, Comparison, Difference, SystemComparison
from miner_diag.evaluation.scored_system import ScoredSystem, record_fields
from miner_diag.records import Record
from miner_diag.retrieval.metrics import metric_label
from miner_diag.stats import Interval

TARGET = 0.045
"""MINER's headline, relative to the backbone's nDCG@5 ("up to 4.5 %"): published, not run here."""


def comparison_table(
    comparison: Comparison,
    systems: Sequence[ScoredSystem],
    corpus: Corpus,
    *,
    shares_read: Mapping[str, float | None] | None = None,
) -> pd.DataFrame:
    """Return ``comparison.csv``: a row per system.

    ``detectable`` (and ``head_detectable``) is the smallest true difference that one such test finds with 80 % power at
    the level 5 %, whatever was measured: :func:`~miner_diag.stats.smallest_detectable` has formula and source.

    Parameters
    ----------
    comparison : Comparison
        The comparison of these systems.
    systems : sequence of ScoredSystem
        The systems, in the same order.
    corpus : Corpus
        The queries and pages they were scored on.
    shares_read : mapping, optional
        Retriever -> the share of the characters of all pages that it read, where that is known.
    """
    by_key = {system.key: system for system in systems}
    rows = []
    for row, system in zip(comparison.systems, systems, strict=True):
        base = None if row.to_backbone is None else comparison[row.to_backbone.other].value
        rows.append(
            {
                "data": corpus.name,
                "queries": corpus.form,
                "split": corpus.part,
                "model": system.model,
                "system": system.name,
                "role": system.role,
                **compared_columns(row, base, by_key, comparison.metric),
                "n_queries": comparison.n_queries,
                "n_documents": comparison.n_documents,
                "effective_documents": comparison.effective_documents,
                "confidence": comparison.confidence,
                "n_parameters": system.n_parameters,
                "seconds": None if system.seconds is None else round(system.seconds, 2),
                "n_seeds": None if system.role == "bound" else len(system.seeds),
                "bytes_per_page": system.bytes_per_page,
                "share_of_characters_read": (shares_read or {}).get(system.model),
                "what": system.what,
            }
        )
    return pd.DataFrame(rows)


def compared_columns(
    row: SystemComparison, base: float | None, by_key: dict[str, ScoredSystem], metric: str
) -> dict[str, Any]:
    """Return the columns of one comparison; `base` is the mean of the metric of its backbone, if it has one."""
    backbone, head = row.to_backbone, row.to_head
    relative = None if backbone is None or not base else backbone.value / base
    return {
        metric: row.value,
        **end_columns("low", "high", row.interval),
        "backbone": None if backbone is None else by_key[backbone.other].model,
        **difference_columns("to_backbone", "", backbone),
        "relative": relative,
        "head": None if head is None else by_key[head.other].name,
        **difference_columns("to_head", "head_", head),
    }


def end_columns(low: str, high: str, interval: Interval | None) -> dict[str, float | None]:
    """Return the columns of an interval, by their names; empty where there is no interval."""
    return {low: None, high: None} if interval is None else {low: interval.low, high: interval.high}


def difference_columns(to: str, prefix: str, difference: Difference | None) -> dict[str, Any]:
    """Return the columns of one difference: ``difference_TO``, and the others with a prefix before their names."""
    interval = None if difference is None else difference.interval
    return {
        f"difference_{to}": None if difference is None else difference.value,
        **end_columns(f"{prefix}difference_low", f"{prefix}difference_high", interval),
        f"{prefix}p_value": None if difference is None else difference.p_value,
        f"{prefix}p_holm": None if difference is None else difference.p_holm,
        f"{prefix}family": None if difference is None else difference.family,
        f"{prefix}verdict": None if difference is None else difference.verdict,
        f"{prefix}detectable": None if difference is None else difference.detectable,
    }


def evaluation_records(
    comparison: Comparison, systems: Sequence[ScoredSystem], corpus: Corpus, *, seed: int = 0
) -> Iterator[Record]:
    """Yield every mean and difference with its interval, then the metric of every query, system and training seed.

    Parameters
    ----------
    comparison, systems, corpus
        Those of `comparison_table`.
    seed : int
        The seed of the bootstrap and of the permutations.
    """
    queries = [query.query_id for query in corpus.queries]
    over = "queries" if comparison.n_documents is None else "documents"
    measure = comparison.metric
    for row, system in zip(comparison.systems, systems, strict=True):
        common = record_fields(system, corpus)
        n = comparison.n_queries
        number = _number(row.value, n, row.interval, f"bootstrap over {over} and seeds")
        yield Record(**common, measure=measure, seed=seed, **number)
        for other, difference in (("backbone", row.to_backbone), ("head", row.to_head)):
            if difference is not None:
                method = f"paired bootstrap over {over} and seeds; permutation"
                number = _number(difference.value, n, difference.interval, method)
                name = f"{measure}_less_{other}"
                yield Record(**common, measure=name, seed=seed, p_value=difference.p_value, **number)
                if difference.detectable is not None:
                    yield Record(**common, measure=f"{name}_detectable", value=difference.detectable, n=n)
        if system.bytes_per_page is not None:
            size = float(system.bytes_per_page)
            yield Record(**common, measure="page_bytes_mean", value=size, n=len(corpus.pages))
        for training_seed, values in zip(system.seeds, system.measures.values[measure], strict=True):
            for query_id, value in zip(queries, values, strict=True):
                yield Record(**common, measure=measure, value=float(value), query_id=query_id, seed=training_seed)


def _number(value: float, n: int, interval: Interval | None, method: str) -> dict[str, Any]:
    """Return the fields of a record of a mean over n queries; a single query has no interval."""
    return {"value": value, "n": n} if interval is None else interval.record_fields(method)


def fusion_sentences(
    comparison: Comparison, systems: Sequence[ScoredSystem], where: str, *, several: bool = False
) -> list[str]:
    """Return what the comparison says of every fusion with a head, in words.

    Parameters
    ----------
    comparison, systems
        Those of `comparison_table`.
    where : str
        The queries, in words: "the test split".
    several : bool
        Whether systems of several retrievers are among them, so that sentences name the retriever.
    """
    by_key, label = {system.key: system for system in systems}, metric_label(comparison.metric)
    lines = []
    for row, system in zip(comparison.systems, systems, strict=True):
        if system.role != "fusion" or row.to_backbone is None or row.to_head is None:
            continue
        base = comparison[row.to_backbone.other]
        called = f"{system.model}, {system.name}" if several else system.name
        lines.append(
            f"On {where}, {called} reaches {label} {with_ends(row.value, row.interval)}, its backbone "
            f"{with_ends(base.value, base.interval)}: a difference of {difference_words(row.to_backbone, base.value)}."
        )
        head = by_key[row.to_head.other].name
        lines.append(
            f"Compared with {head}, a head on the final layer alone with the same data and budget, the difference is "
            f"{difference_words(row.to_head)}."
        )
        reached = row.verdict == "better" and row.verdict_to_head == "better"
        reached = reached and row.to_backbone.value >= TARGET * base.value
        lines.append(
            f"The target (at least {TARGET:+.1%}, better than the backbone and than the head) is "
            f"{'reached' if reached else 'not reached'} on {where}."
        )
    for row, system in zip(comparison.systems, systems, strict=True):
        if system.role == "bound":
            of = f" of {system.model}" if several else ""
            lines.append(f"An oracle{of} that picks the best layer for each query would reach {row.value:.4f}.")
    return lines


def bm25_sentences(comparison: Comparison, systems: Sequence[ScoredSystem], where: str) -> list[str]:
    """Return what BM25 reaches, and its difference to the backbone, in words; parameters as in `fusion_sentences`."""
    return [
        f"On {where}, BM25 over the {system.name} reaches {metric_label(comparison.metric)} "
        f"{with_ends(row.value, row.interval)}, less the backbone {difference_words(row.to_backbone)}."
        for row, system in zip(comparison.systems, systems, strict=True)
        if system.role == "lexical" and row.to_backbone is not None
    ]


def run_sentences(comparison: Comparison, systems: Sequence[ScoredSystem], where: str) -> list[str]:
    """Return what each run file reaches, and its difference, in words; parameters as in `fusion_sentences`."""
    by_key = {system.key: system for system in systems}
    lines = []
    for row, system in zip(comparison.systems, systems, strict=True):
        if system.role != "run":
            continue
        line = f"On {where}, {system.model} reaches {metric_label(comparison.metric)} "
        line += with_ends(row.value, row.interval)
        if row.to_backbone is not None:
            other = comparison[row.to_backbone.other]
            line += f", {by_key[other.name].model} {with_ends(other.value, other.interval)}: a difference of "
            line += difference_words(row.to_backbone, other.value)
        lines.append(f"{line}.")
    return lines


def tie_sentences(comparison: Comparison, systems: Sequence[ScoredSystem]) -> list[str]:
    """Return for which system the order of pages with equal scores decides most often, if it does for any."""
    tied = [system for system in systems if comparison.metric in system.measures.ties]
    most = max(tied, key=lambda system: system.measures.ties[comparison.metric].rate, default=None)
    if most is None or not most.measures.ties[comparison.metric].rate:
        return []
    ties, label = most.measures.ties[comparison.metric], metric_label(comparison.metric)
    return [
        f"The order of pages with equal scores decides for up to {ties.rate:.1%} of the queries ({most.key}: {label} "
        f"{ties.worst:.4f} to {ties.best:.4f}); tables hold the mean over all orders."
    ]


def difference_words(difference: Difference, base: float | None = None) -> str:
    """Return a difference with its interval, its p values and its verdict; relative to `base` if that is given."""
    if difference.interval is None or difference.p_holm is None:
        return f"{difference.value:+.4f} (a single query has no spread)"
    low, high = difference.interval.low, difference.interval.high
    relative = f", {difference.value / base:+.1%} relative" if base else ""
    size = ""
    if difference.verdict == "not distinguishable" and difference.detectable is not None:
        size = f" (a true one of {difference.detectable:.4f} would be found {POWER:.0%} of the time)"
    return (
        f"{difference.value:+.4f} [{low:+.4f}, {high:+.4f}]{relative}, p {difference.p_value:.4f}, p Holm "
        f"{difference.p_holm:.4f} in the family {difference.family}: {difference.verdict}{size}"
    )


def with_ends(value: float, interval: Interval | None) -> str:
    """Return a value and the ends of its interval, if it has one."""
    return f"{value:.4f}" if interval is None else f"{value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
