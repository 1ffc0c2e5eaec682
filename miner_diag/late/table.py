"""Late interaction as rows: records with intervals, and the lines that the terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from miner_diag.evaluation.compare import Comparison
from miner_diag.evaluation.late import LateScores
from miner_diag.evaluation.scored_system import ScoredSystem
from miner_diag.evaluation.table import difference_words, evaluation_records, with_ends
from miner_diag.records import Record
from miner_diag.retrieval.ndcg import Ndcg


def late_records(
    comparison: Comparison, systems: Sequence[ScoredSystem], ndcgs: Sequence[Ndcg], scores: LateScores, *, seed: int
) -> list[Record]:
    """Return nDCG with intervals and values per query, the comparison if there is one, ties, and what tokens cost.

    Parameters
    ----------
    comparison : Comparison
        The comparison of these systems.
    systems : sequence of ScoredSystem
        The late-interaction retriever, then the one that it is compared with, if there is one, then BM25, if pages have
        text.
    ndcgs : sequence of Ndcg
        What each of them reached, with the bounds that ties leave.
    scores : LateScores
        The late-interaction retriever with its token vectors.
    seed : int
        The seed of the bootstrap.
    """
    corpus, k = scores.corpus, scores.ndcg.k
    records = list(evaluation_records(comparison, systems, corpus, seed=seed))
    for system, ndcg in zip(systems, ndcgs, strict=True):
        row = partial(
            Record,
            model=system.model,
            model_revision=system.model_revision,
            dataset=corpus.name,
            split=corpus.part,
            system=system.name,
            d=system.width,
        )
        worst, best = ndcg.bounds
        measures = {f"ndcg_at_{k}_worst": worst, f"ndcg_at_{k}_best": best, "tie_rate": ndcg.tie_rate}
        records += [row(measure=measure, value=value, n=len(ndcg.values)) for measure, value in measures.items()]
        if system is systems[0]:
            costs = {
                name: value for name, value in scores.cost.as_dict().items() if name not in ("items", "bytes_mean")
            }
            records += [
                row(measure=f"page_{name}", value=float(value), n=scores.cost.items) for name, value in costs.items()
            ]
    return records


def late_lines(comparison: Comparison, systems: Sequence[ScoredSystem], scores: LateScores) -> list[str]:
    """Return what the terminal shows; parameters are those of `late_records`."""
    corpus, cost, ndcg = scores.corpus, scores.cost, scores.ndcg
    name, late = f"nDCG@{ndcg.k}", systems[0]
    row = comparison[late.key]
    lines = [
        f"{late.model} on {corpus.name}, {corpus.part}: {corpus.form} queries, fold {corpus.fold}; "
        f"{len(corpus.queries)} queries, {len(corpus.pages)} pages",
        f"{name:<16} {with_ends(row.value, row.interval)}, intervals over {comparison.over}",
        f"tokens per page  {cost.tokens_mean:.1f} in the mean, {cost.tokens_max} at most, {cost.tokens_total} in all",
        f"bytes per page   {cost.bytes_mean:.0f} in the mean, {cost.bytes_max} at most, {cost.bytes_total} in all "
        f"({scores.dtype})",
    ]
    if row.to_backbone is not None:
        partner, other = systems[1], comparison[row.to_backbone.other]
        size = float(partner.bytes_per_page or 0)  # a retriever with one vector a page has one
        lines += [
            f"against {partner.model}: {name} {with_ends(other.value, other.interval)}, {size:.0f} "
            f"bytes per page ({cost.bytes_mean / size:.0f} times fewer)",
            f"difference       {difference_words(row.to_backbone, other.value)}",
        ]
    if systems[-1].role == "lexical":
        lexical = comparison[systems[-1].key]
        lines.append(f"BM25             {with_ends(lexical.value, lexical.interval)}, over the pages' text layer")
    if ndcg.tie_rate:
        lines.append(
            f"ties matter for {ndcg.tie_rate:.1%} of the queries: {ndcg.bounds[0]:.4f} to {ndcg.bounds[1]:.4f}"
        )
    return lines
