"""Which layers are retrieval-aligned: CKA, alignment ratio and nDCG@5 of every layer, put side by side."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from miner_diag.cka.alignment import Comparison, compare
from miner_diag.cka.cka_matrix_result import CKAMatrix
from miner_diag.cka.distinct import DistinctItems, distinct_items
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import anisotropy, effective_rank, unit_rows
from miner_diag.cka.gold_pairs import GoldPairs, K
from miner_diag.cka.hsic import Estimator, check_estimator
from miner_diag.cka.matrix import cka_matrix
from miner_diag.retrieval.ndcg import Ndcg
from miner_diag.retrieval.ranking import ndcg_of_vectors
from miner_diag.retrieval.relevance import Relevance
from miner_diag.stats import Interval, bootstrap_means, holm, paired_bootstrap

ProbeKind = Literal["base", "normalized_projection"]

ALPHA = 0.05
"""Significance level of CKA against its null, after Holm's adjustment over the layers."""


@dataclass(frozen=True)
class Rules:
    """How numbers become verdicts; these are our choices, none of them is the paper's."""

    ratio_threshold: float = 0.5
    """The alignment ratio to the final layer (pages) from which on a base probe is taken to be enough."""
    aligned_share: float = 0.5
    """A retrieval-aligned layer keeps more than this share of the final layer's nDCG@5, beyond its interval."""
    estimator: Estimator = "debiased"
    """The estimator of CKA; biased rises with width / items."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_estimator(self.estimator)
        if not 0 < self.aligned_share < 1:
            raise ValueError(f"aligned_share must lie between 0 and 1; got {self.aligned_share}")
        if not 0 < self.ratio_threshold < math.inf:
            raise ValueError(f"ratio_threshold must be above 0; got {self.ratio_threshold}")


@dataclass(frozen=True)
class LayerViews:
    """One layer compared with the final one, and its queries with its pages."""

    page_final: Comparison
    """This layer against the final one, over pages."""
    query_final: Comparison
    """This layer against the final one, over queries."""
    query_page: Comparison
    """Queries against their gold pages at this layer, one query a page."""


@dataclass(frozen=True)
class LayerDiagnosis:
    """Everything measured of one layer; None where a number does not exist, and `notes` says why."""

    layer: int
    """0 is the embedding output."""
    page_final: Comparison | None
    """This layer against the final one, over pages."""
    query_final: Comparison | None
    """This layer against the final one, over queries."""
    query_page: Comparison | None
    """Queries against their gold pages at this layer, one query a page."""
    ndcg: Interval
    """NDCG@5 of the raw layer by cosine, over queries."""
    share_margin: Interval
    """NDCG@5 less `aligned_share` times the final layer's, paired over queries."""
    tie_rate: float
    """Share of queries whose nDCG depends on the order of tied pages."""
    effective_rank: Interval | None
    """Effective rank of the pages."""
    anisotropy: Interval | None
    """Mean cosine between different pages."""
    null_p: float | None
    """P value of CKA between queries and their pages against broken pairings, Holm-adjusted over the layers."""
    probe_kind: ProbeKind | None
    """The probe that the alignment ratio asks for; None where the layer has no CKA."""
    kind_is_sure: bool
    """Whether the interval of the alignment ratio stays on one side of the threshold."""
    retrieval_aligned: bool
    """Whether nDCG@5 is above chance and above its share of the final layer's, and CKA is above its null."""
    notes: tuple[str, ...]
    """What has no value, and why."""


@dataclass(frozen=True)
class Measured:
    """The numbers that a diagnosis rests on, however they were computed."""

    per_query: tuple[Ndcg, ...]
    """NDCG@5 of every query at every layer."""
    views: Mapping[int, LayerViews]
    """Comparisons of each layer that has a CKA."""
    undefined: Mapping[int, str]
    """Why each other layer has none."""
    page_matrix: CKAMatrix
    """CKA between all pairs of layers that have one, over pages."""
    unit_rows: CKAMatrix | None
    """CKA of each of these layers with the final one, over pages at length one: another reading of "normalized CKA"."""
    effective_ranks: Mapping[int, Interval]
    """Effective rank of the pages, layer by layer."""
    anisotropies: Mapping[int, Interval]
    """Mean cosine between different pages, layer by layer."""
    chance: float
    """NDCG@5 of a random order."""
    queries: DistinctItems
    """Which queries enter CKA, alignment ratio, effective rank and anisotropy."""
    pages: DistinctItems
    """Which pages do."""
    n_pairs: int
    """Number of query-page pairs behind `query_page`: one query a page."""
    absent: str = ""
    """A sentence on what the way of computing leaves out."""


@dataclass(frozen=True)
class Diagnosis:
    """All layers of one backbone on one split."""

    layers: tuple[LayerDiagnosis, ...]
    """Layers 0 … n_layers."""
    measured: Measured
    """The numbers behind them."""
    rules: Rules
    """Thresholds."""
    confidence: float
    """Nominal coverage of every interval."""

    @property
    def usable(self) -> tuple[int, ...]:
        """Layers that have a CKA: the rows of `page_matrix` and `unit_rows`."""
        return tuple(self.measured.views)

    @property
    def page_matrix(self) -> CKAMatrix:
        """CKA between all pairs of usable layers, over pages."""
        return self.measured.page_matrix

    @property
    def unit_rows(self) -> CKAMatrix | None:
        """CKA of each usable layer with the final one, over pages at length one."""
        return self.measured.unit_rows

    @property
    def per_query(self) -> tuple[Ndcg, ...]:
        """NDCG@5 of every query at every layer."""
        return self.measured.per_query

    @property
    def chance(self) -> float:
        """NDCG@5 of a random order."""
        return self.measured.chance

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self.measured.queries.labels)

    @property
    def n_pages(self) -> int:
        """Number of pages."""
        return len(self.measured.pages.labels)

    @property
    def n_pairs(self) -> int:
        """Number of query-page pairs behind `query_page`."""
        return self.measured.n_pairs


def diagnose(
    queries: np.ndarray,
    pages: np.ndarray,
    gold: Sequence[dict[int, int]],
    *,
    query_ids: Sequence[str],
    page_ids: Sequence[str],
    query_inputs: Sequence[Hashable | None] | None = None,
    page_inputs: Sequence[Hashable | None] | None = None,
    query_documents: Sequence[str] | None = None,
    page_documents: Sequence[str] | None = None,
    ignore_self: bool = False,
    rules: Rules | None = None,
    confidence: float = 0.95,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Diagnosis:
    """Diagnose every layer of a retriever whose queries and pages pass the same layers.

    A dual encoder is diagnosed by :func:`~miner_diag.cka.dual_encoder.diagnose_dual_encoder`, and layers that do not
    fit memory by :func:`~miner_diag.cka.streamed.diagnose_streamed`.

    Parameters
    ----------
    queries : ndarray [Q, L, D]
        Pooled layers of the queries.
    pages : ndarray [P, L, D]
        Pooled layers of the pages.
    gold : sequence [Q] of dict
        For each query, page index -> relevance.
    query_ids, page_ids : sequence of str
        Names of the items in messages.
    query_inputs, page_inputs : sequence, optional
        What the retriever read of each item, or a hash of it; None where it read nothing. Items of equal input enter
        CKA, alignment ratio, effective rank and anisotropy once, those of which nothing was read not at all. If not
        given, items whose vectors are the same at every layer count as equal.
    query_documents, page_documents : sequence of str, optional
        Document of each item; if given, intervals are those over documents instead of single items.
    ignore_self : bool
        Whether the page that has a query's own id is not ranked for that query.
    rules : Rules, optional
        Thresholds.
    confidence : float
        Nominal coverage of every interval.
    rng : Generator
        Generator for the bootstrap.
    device : str
        Where CKA's products are computed: "cpu" or "cuda".

    Raises
    ------
    ValueError
        If there are fewer than four different queries, pages or pairs, or the final layer is constant.
    """
    rules = rules or Rules()
    n_layers = pages.shape[1]
    final = n_layers - 1
    own_queries = distinct_items(query_inputs, [queries], name="query_inputs", n=len(queries))
    own_pages = distinct_items(page_inputs, [pages], name="page_inputs", n=len(pages))
    pairs = GoldPairs.of(
        gold,
        query_ids=query_ids,
        queries=own_queries,
        pages=own_pages,
        page_documents=page_documents,
        page_ids=page_ids if ignore_self else None,
    )
    per_query = [
        layer_ndcg(queries[:, layer], pages[:, layer], pairs.relevance, page_ids, layer=layer)
        for layer in range(n_layers)
    ]
    paired_queries, paired_pages = queries[pairs.query], pages[pairs.page]
    queries, pages = queries[own_queries.rows], pages[own_pages.rows]
    query_groups, page_groups = own_queries.taken(query_documents), own_pages.taken(page_documents)
    if (constant := constant_side(queries[:, final], pages[:, final])) is not None:
        raise ValueError(f"layer {final}, the final one, is the same for all {constant}: nothing to compare with")
    options: dict[str, Any] = {"estimator": rules.estimator, "confidence": confidence, "device": device}
    views: dict[int, LayerViews] = {}
    undefined: dict[int, str] = {}
    for layer in range(n_layers):
        name = f"layer {layer}"
        constant = constant_side(queries[:, layer], pages[:, layer])
        try:
            if constant is not None:
                raise UndefinedCKAError(f"{name} is the same for all {constant}, so it has no CKA")
            page_final = compare(
                pages[:, layer],
                pages[:, final],
                names=(f"{name} of the pages", f"layer {final} of the pages"),
                groups=page_groups,
                **options,
            )
            query_final = compare(
                queries[:, layer],
                queries[:, final],
                names=(f"{name} of the queries", f"layer {final} of the queries"),
                groups=query_groups,
                **options,
            )
            query_page = compare(
                paired_queries[:, layer],
                paired_pages[:, layer],
                names=(f"{name} of the queries", f"{name} of the pages"),
                groups=pairs.documents,
                **options,
            )
        except UndefinedCKAError as error:
            undefined[layer] = str(error)
            continue
        views[layer] = LayerViews(page_final, query_final, query_page)
    if final in undefined:
        raise ValueError(f"layer {final}, the final one, has no CKA: {undefined[final]}")
    usable = list(views)
    common = {"groups": page_groups, "names": [f"layer {layer}" for layer in usable], **options}
    over_pages: dict[str, Any] = {"groups": page_groups, "confidence": confidence}
    measured = Measured(
        per_query=tuple(per_query),
        views=views,
        undefined=undefined,
        page_matrix=cka_matrix([pages[:, layer] for layer in usable], **common),
        unit_rows=cka_matrix(
            [unit_rows(pages[:, layer], f"layer {layer}") for layer in usable],
            [unit_rows(pages[:, final], f"layer {final}")],
            other_names=[f"layer {final}"],
            null=False,
            **common,
        ),
        effective_ranks={layer: effective_rank(pages[:, layer], **over_pages) for layer in usable},
        anisotropies={layer: anisotropy(pages[:, layer], **over_pages) for layer in usable},
        chance=pairs.chance,
        queries=own_queries,
        pages=own_pages,
        n_pairs=len(pairs),
    )
    return verdicts(measured, query_documents, rules=rules, confidence=confidence, rng=rng)


def verdicts(
    measured: Measured,
    query_documents: Sequence[str] | None,
    *,
    rules: Rules,
    confidence: float,
    rng: np.random.Generator,
) -> Diagnosis:
    """Add intervals of nDCG@5 to what was measured, and decide which layers are aligned and which probe each needs.

    Parameters
    ----------
    measured : Measured
        Numbers of all layers.
    query_documents : sequence [Q] of str, optional
        Document of each query, for intervals over documents.
    rules : Rules
        Thresholds.
    confidence : float
        Nominal coverage of every interval.
    rng : Generator
        Generator for the bootstrap.
    """
    values = np.stack([result.values for result in measured.per_query], axis=1)
    ndcg = bootstrap_means(values, rng, clusters=query_documents, confidence=confidence)
    usable, final = list(measured.views), len(measured.per_query) - 1
    adjusted = dict(zip(usable, holm([measured.views[layer].query_page.null.p_value for layer in usable]), strict=True))
    layers = []
    for layer, result in enumerate(measured.per_query):
        views = measured.views.get(layer)
        margin = paired_bootstrap(
            values[:, layer],
            rules.aligned_share * values[:, final],
            rng,
            clusters=query_documents,
            confidence=confidence,
        )
        page_final = None if views is None else views.page_final
        kind, sure = probe_kind(layer == final, page_final, rules.ratio_threshold)
        null_p = adjusted.get(layer)
        above_null = null_p is not None and null_p < ALPHA
        layers.append(
            LayerDiagnosis(
                layer=layer,
                page_final=page_final,
                query_final=None if views is None else views.query_final,
                query_page=None if views is None else views.query_page,
                ndcg=ndcg[layer],
                share_margin=margin,
                tie_rate=result.tie_rate,
                effective_rank=measured.effective_ranks.get(layer),
                anisotropy=measured.anisotropies.get(layer),
                null_p=null_p,
                probe_kind=kind,
                kind_is_sure=sure,
                retrieval_aligned=bool(above_null and ndcg[layer].low > measured.chance and margin.low > 0),
                notes=_notes(layer, measured.undefined.get(layer), views),
            )
        )
    return Diagnosis(tuple(layers), measured, rules, confidence)


def layer_ndcg(
    queries: np.ndarray, pages: np.ndarray, relevance: Relevance, page_ids: Sequence[str], *, layer: int
) -> Ndcg:
    """Rank pages [P, D] for queries [Q, D] by the cosine of one layer, and take nDCG@5 of every query.

    Raises
    ------
    ValueError
        If a vector is zero or holds NaN or Inf; layer and item are named.
    """
    try:
        return ndcg_of_vectors(queries, pages, relevance, K, page_ids=page_ids)
    except ValueError as error:
        raise ValueError(f"layer {layer} can't be ranked with: {error}") from None


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


def _notes(layer: int, undefined: str | None, views: LayerViews | None) -> tuple[str, ...]:
    if views is None:
        reason = str(undefined)
        return (reason if f"layer {layer}" in reason else f"layer {layer}: {reason}",)
    sides = {
        "pages to final": views.page_final,
        "queries to final": views.query_final,
        "queries to pages": views.query_page,
    }
    return tuple(f"layer {layer}, {side}: {view.no_ratio}" for side, view in sides.items() if view.no_ratio is not None)
