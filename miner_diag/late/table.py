"""Late interaction as rows: records with intervals, and the lines that the terminal shows."""

from __future__ import annotations

from functools import partial
from typing import Any

from miner_diag.late.job import LateScores
from miner_diag.records import Record
from miner_diag.retrieval.score import ndcg_records
from miner_diag.stats import Interval


def late_records(found: LateScores, seed: int) -> list[Record]:
    """Return nDCG with its interval, bounds and values per query, the costs, and the comparison if there is one."""
    corpus, cost = found.corpus, found.stores.pages.cost
    common: dict[str, Any] = {"dataset": corpus.name, "split": corpus.part}
    row = partial(
        Record, model=found.backbone.name, model_revision=found.backbone.revision, d=found.backbone.width, **common
    )
    records = ndcg_records(found.ndcg, found.interval, row, seed)
    costs = {name: value for name, value in cost.as_dict().items() if name != "items"}
    records += [row(measure=f"page_{name}", value=float(value), n=cost.items) for name, value in costs.items()]
    partner = found.partner
    if partner is None:
        return records
    single = partial(
        Record,
        model=partner.backbone.name,
        model_revision=partner.backbone.revision,
        d=partner.backbone.width,
        **common,
    )
    records += ndcg_records(partner.ndcg, partner.interval, single, seed)
    records.append(single(measure="page_bytes_mean", value=float(partner.bytes_per_page), n=cost.items))
    if partner.difference is not None:
        over = "queries" if partner.difference.n_clusters is None else "documents"
        records.append(
            row(
                measure=f"ndcg_at_{found.ndcg.k}_less_{partner.backbone.name}",
                value=partner.difference.value,
                low=partner.difference.low,
                high=partner.difference.high,
                confidence=partner.difference.confidence,
                method=f"paired bootstrap over {over}",
                n=partner.difference.n,
                n_clusters=partner.difference.n_clusters,
                p_value=partner.p_value,
                seed=seed,
            )
        )
    return records


def late_lines(found: LateScores) -> list[str]:
    """Return what the terminal shows."""
    corpus, cost, ndcg = found.corpus, found.stores.pages.cost, found.ndcg
    name = f"nDCG@{ndcg.k}"
    over = "documents" if found.by_document else "single queries"
    lines = [
        f"{found.backbone.name} on {corpus.name}, {corpus.part}: {corpus.form} queries, fold {corpus.fold}; "
        f"{len(corpus.queries)} queries, {len(corpus.pages)} pages",
        f"{name:<16} {_with_ends(ndcg.mean, found.interval)}, intervals over {over}",
        f"tokens per page  {cost.tokens_mean:.1f} in the mean, {cost.tokens_max} at most, {cost.tokens_total} in all",
        f"bytes per page   {cost.bytes_mean:.0f} in the mean, {cost.bytes_max} at most, {cost.bytes_total} in all "
        f"({found.stores.pages.dtype})",
    ]
    partner = found.partner
    if partner is not None:
        lines.append(
            f"against {partner.backbone.name}: {name} {_with_ends(partner.ndcg.mean, partner.interval)}, "
            f"{partner.bytes_per_page} bytes per page ({cost.bytes_mean / partner.bytes_per_page:.0f} times fewer)"
        )
        if partner.difference is not None:
            apart = partner.difference.low > 0 or partner.difference.high < 0
            sure = apart and partner.p_value is not None and partner.p_value <= 1 - partner.difference.confidence
            lines.append(
                f"difference       {_with_ends(partner.difference.value, partner.difference)}, p {partner.p_value:.3g}"
                + ("" if sure else ": not distinguishable")
            )
    if ndcg.tie_rate:
        lines.append(
            f"ties matter for {ndcg.tie_rate:.1%} of the queries: {ndcg.bounds[0]:.4f} to {ndcg.bounds[1]:.4f}"
        )
    counts = found.stores.pages.counts
    if counts["truncated"]:
        lines.append(f"{counts['truncated']} of {len(corpus.pages)} pages are longer than what the retriever reads")
    if counts["empty"]:
        lines.append(f"{counts['empty']} of {len(corpus.pages)} pages have no text to read (see --reader)")
    return [*lines, *found.cautions]


def _with_ends(value: float, interval: Interval | None) -> str:
    return f"{value:.4f}" if interval is None else f"{value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
