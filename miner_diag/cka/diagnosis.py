"""Which layers are retrieval-aligned: CKA, alignment ratio and nDCG@5 of every layer, put side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from miner_diag.cka.alignment import Comparison, compare
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import anisotropy, effective_rank, unit_rows
from miner_diag.cka.hsic import Estimator
from miner_diag.cka.matrix import CKAMatrix, cka_matrix
from miner_diag.retrieval.ndcg import Ndcg, chance_ndcg, ndcg_with_ties
from miner_diag.retrieval.relevance import Relevance
from miner_diag.retrieval.search import score_all
from miner_diag.stats import Interval, bootstrap_means, holm, paired_bootstrap

ProbeKind = Literal["base", "normalized_projection"]

K = 5
"""nDCG is taken at this rank."""
ALPHA = 0.05
"""Significance level of CKA against its null, after Holm's adjustment over the layers."""


@dataclass(frozen=True)
class Rules:
    """How numbers become verdicts; our choices, none of them the paper's."""

    ratio_threshold: float = 0.5
    """Alignment ratio to the final layer (pages) from which on a base probe is taken to be enough."""
    aligned_share: float = 0.5
    """A retrieval-aligned layer keeps more than this share of the final layer's nDCG@5, beyond the interval."""
    confidence: float = 0.95
    """Nominal coverage of every interval."""
    estimator: Estimator = "debiased"
    """Of CKA."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("aligned_share", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1; got {getattr(self, name)}")
        if not 0 < self.ratio_threshold < math.inf:
            raise ValueError(f"ratio_threshold must be above 0; got {self.ratio_threshold}")


@dataclass(frozen=True)
class LayerDiagnosis:
    """Everything measured of one layer; None where a number does not exist, and `notes` says why."""

    layer: int
    """0 is the embedding output."""
    page_final: Comparison | None
    """This layer against the final one, over pages."""
    query_final: Comparison | None
    """The same over queries."""
    query_page: Comparison | None
    """Queries against their gold pages at this layer, one query a page."""
    ndcg: Interval
    """NDCG@5 of the raw layer by cosine, over queries."""
    share_margin: Interval
    """NDCG@5 less `aligned_share` times the final layer's, paired over queries."""
    tie_rate: float
    """Share of queries whose nDCG depends on the order of tied pages."""
    effective_rank: Interval | None
    """Of the pages."""
    anisotropy: Interval | None
    """Mean cosine between different pages."""
    null_p: float | None
    """P value of CKA between queries and their pages against broken pairings, Holm-adjusted over the layers."""
    probe_kind: ProbeKind | None
    """What the alignment ratio says the layer needs; None where it has no CKA."""
    kind_is_sure: bool
    """Whether the interval of the alignment ratio stays on one side of the threshold."""
    retrieval_aligned: bool
    """NDCG@5 above chance and above its share of the final layer's, and CKA above its null."""
    notes: tuple[str, ...]
    """What has no value, and why."""


@dataclass(frozen=True)
class Diagnosis:
    """All layers of one backbone on one split."""

    layers: tuple[LayerDiagnosis, ...]
    """0 … n_layers."""
    usable: tuple[int, ...]
    """Layers that have a CKA: the rows of `page_matrix` and `unit_rows`."""
    page_matrix: CKAMatrix
    """CKA between all pairs of layers, over pages; layers without a CKA are left out of it."""
    unit_rows: CKAMatrix
    """CKA of each of these layers with the final one, over pages at length one: another reading of "normalized CKA"."""
    per_query: tuple[Ndcg, ...]
    """NDCG@5 of every query at every layer."""
    chance: float
    """NDCG@5 of a random order."""
    n_queries: int
    n_pages: int
    n_pairs: int
    """Query-page pairs behind `query_page`: one query a page."""
    rules: Rules


def diagnose(
    queries: np.ndarray,
    pages: np.ndarray,
    gold: Sequence[dict[int, int]],
    *,
    query_ids: Sequence[str],
    page_ids: Sequence[str],
    page_hashes: Sequence[str],
    query_documents: Sequence[str] | None = None,
    page_documents: Sequence[str] | None = None,
    rules: Rules | None = None,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Diagnosis:
    """Diagnose every layer of a retriever whose queries and pages pass the same layers.

    Two towers are diagnosed by :func:`~miner_diag.cka.dual_encoder.diagnose_dual_encoder`.

    Parameters
    ----------
    queries : ndarray [Q, L, D]
        Pooled layers of the queries.
    pages : ndarray [P, L, D]
        Pooled layers of the pages.
    gold : sequence [Q] of dict
        For each query, page index -> relevance.
    query_ids, page_ids : sequence of str
        What messages call the items.
    page_hashes : sequence [P] of str
        Hash of each page's picture: pages that look the same give one query-page pair.
    query_documents, page_documents : sequence of str, optional
        Document of each item; if given, intervals are those over documents instead of single items.
    rules : Rules, optional
        Thresholds and confidence.
    rng : Generator
        For the bootstrap.
    device : str
        Where CKA's products are computed: "cpu" or "cuda".

    Raises
    ------
    ValueError
        If there are fewer than four queries, pages or pairs, or the final layer is constant.
    """
    rules = rules or Rules()
    n_layers = pages.shape[1]
    final = n_layers - 1
    pair_query, pair_page = one_query_a_page(gold, query_ids, page_hashes)
    check_sizes(len(queries), len(pages), len(pair_query))
    per_query = _ndcg_of_layers(queries, pages, gold, query_ids, page_ids)
    values = np.stack([result.values for result in per_query], axis=1)
    ndcg = bootstrap_means(values, rng, clusters=query_documents, confidence=rules.confidence)
    chance = float(np.mean([chance_ndcg(len(pages), len(judged), K) for judged in gold]))

    if (constant := constant_side(queries[:, final], pages[:, final])) is not None:
        raise ValueError(f"layer {final}, the final one, is the same for all {constant}: nothing to compare with")
    pair_documents = None if page_documents is None else np.asarray(page_documents)[pair_page]
    options: dict[str, Any] = {"estimator": rules.estimator, "confidence": rules.confidence, "device": device}
    views: dict[int, tuple[Comparison, Comparison, Comparison]] = {}
    undefined: dict[int, str] = {}
    for layer in range(n_layers):
        name = f"layer {layer}"
        constant = constant_side(queries[:, layer], pages[:, layer])
        try:
            if constant is not None:
                raise UndefinedCKAError(f"{name} is the same for all {constant}, so it has no CKA")
            ends = {"names": (f"{name} of the pages", f"layer {final} of the pages"), "groups": page_documents}
            page_final = compare(pages[:, layer], pages[:, final], **ends, **options)
            ends = {"names": (f"{name} of the queries", f"layer {final} of the queries"), "groups": query_documents}
            query_final = compare(queries[:, layer], queries[:, final], **ends, **options)
            ends = {"names": (f"{name} of the queries", f"{name} of the pages"), "groups": pair_documents}
            query_page = compare(queries[pair_query, layer], pages[pair_page, layer], **ends, **options)
        except UndefinedCKAError as error:
            undefined[layer] = str(error)
            continue
        views[layer] = (page_final, query_final, query_page)
    if final in undefined:
        raise ValueError(f"layer {final}, the final one, has no CKA: {undefined[final]}")
    usable = list(views)
    common = {"groups": page_documents, "names": [f"layer {layer}" for layer in usable], **options}
    matrix = cka_matrix([pages[:, layer] for layer in usable], **common)
    of_unit_rows = cka_matrix(
        [unit_rows(pages[:, layer], f"layer {layer}") for layer in usable],
        [unit_rows(pages[:, final], f"layer {final}")],
        other_names=[f"layer {final}"],
        null=False,
        **common,
    )
    adjusted = dict(zip(usable, holm([views[layer][2].null.p_value for layer in usable]), strict=True))

    layers = []
    for layer in range(n_layers):
        page_final, query_final, query_page = views.get(layer, (None, None, None))
        margin = paired_bootstrap(
            values[:, layer],
            rules.aligned_share * values[:, final],
            rng,
            clusters=query_documents,
            confidence=rules.confidence,
        )
        kind, sure = probe_kind(layer == final, page_final, rules.ratio_threshold)
        null_p = adjusted.get(layer)
        above_null = null_p is not None and null_p < ALPHA
        aligned = above_null and ndcg[layer].low > chance and margin.low > 0
        layers.append(
            LayerDiagnosis(
                layer,
                page_final,
                query_final,
                query_page,
                ndcg[layer],
                margin,
                per_query[layer].tie_rate,
                effective_rank(pages[:, layer], groups=page_documents, confidence=rules.confidence)
                if layer in views
                else None,
                anisotropy(pages[:, layer], groups=page_documents, confidence=rules.confidence)
                if layer in views
                else None,
                null_p,
                kind,
                sure,
                bool(aligned),
                _notes(layer, undefined.get(layer), views.get(layer)),
            )
        )
    return Diagnosis(
        tuple(layers),
        tuple(usable),
        matrix,
        of_unit_rows,
        per_query,
        chance,
        len(queries),
        len(pages),
        len(pair_query),
        rules,
    )


def one_query_a_page(
    gold: Sequence[dict[int, int]], query_ids: Sequence[str], page_hashes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Pair each distinct gold page with one of its queries, so that rows are independent.

    A page that answers five queries would otherwise stand five times among the pages, and identical rows inflate CKA.
    The query is the one whose id comes first; the page, a query's first best.

    Returns
    -------
    ndarray [M], ndarray [M]
        Rows of the queries and of the pages.
    """
    chosen: dict[str, tuple[str, int, int]] = {}
    for row, (query_id, judged) in enumerate(zip(query_ids, gold, strict=True)):
        page = min(judged, key=lambda index: (-judged[index], index))
        pair = (query_id, row, page)
        chosen[page_hashes[page]] = min(chosen.get(page_hashes[page], pair), pair)
    rows = sorted((row, page) for _, row, page in chosen.values())
    return np.array([row for row, _ in rows], dtype=np.int64), np.array([page for _, page in rows], dtype=np.int64)


def _ndcg_of_layers(
    queries: np.ndarray,
    pages: np.ndarray,
    gold: Sequence[dict[int, int]],
    query_ids: Sequence[str],
    page_ids: Sequence[str],
) -> tuple[Ndcg, ...]:
    relevance = replace(Relevance.of(list(gold), n_pages=len(pages)), query_ids=tuple(query_ids))
    results = []
    for layer in range(pages.shape[1]):
        try:
            scores = score_all(queries[:, layer], pages[:, layer], query_ids=query_ids, page_ids=page_ids)
        except ValueError as error:
            raise ValueError(f"layer {layer} can't be ranked with: {error}") from None
        results.append(ndcg_with_ties(scores, relevance, K))
    return tuple(results)


def check_sizes(n_queries: int, n_pages: int, n_pairs: int) -> None:
    """Check that there are enough queries, pages and pairs for a CKA.

    Raises
    ------
    ValueError
        If there are fewer than four of any.
    """
    for name, n in (("queries", n_queries), ("pages", n_pages), ("query-page pairs with different pages", n_pairs)):
        if n < 4:
            raise ValueError(
                f"CKA needs at least 4 {name}; this split has {n}. Take another --split or --fold, raise --limit, "
                "or add documents"
            )


def constant_side(queries: np.ndarray, pages: np.ndarray) -> str | None:
    """Name the side whose rows are all the same, as the CLS state of layer 0 always is; None if there is none."""
    for name, side in ((f"{len(pages)} pages", pages), (f"{len(queries)} queries", queries)):
        if not np.ptp(side, axis=0).any():
            return name
    return None


def probe_kind(is_final: bool, page_final: Comparison | None, threshold: float) -> tuple[ProbeKind | None, bool]:
    """Return which probe the alignment ratio to the final layer asks for, and whether its interval decides."""
    if is_final:
        return "base", True
    if page_final is None:
        return None, False
    ratio = page_final.alignment_ratio
    if ratio is None:  # widths differ: there is no coordinate to gate; or no CKA above 0, and nothing can be said
        return "normalized_projection", page_final.widths[0] != page_final.widths[1]
    kind: ProbeKind = "base" if ratio.value >= threshold else "normalized_projection"
    return kind, not ratio.low < threshold <= ratio.high


def _notes(
    layer: int, undefined: str | None, views: tuple[Comparison, Comparison, Comparison] | None
) -> tuple[str, ...]:
    if views is None:
        return (
            undefined if undefined is not None and f"layer {layer}" in undefined else f"layer {layer}: {undefined}",
        )
    sides = zip(("pages to final", "queries to final", "queries to pages"), views, strict=True)
    return tuple(f"layer {layer}, {side}: {view.no_ratio}" for side, view in sides if view.no_ratio is not None)
