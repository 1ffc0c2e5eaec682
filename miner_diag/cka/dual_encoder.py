"""Dual encoders: each encoder's layers are compared with its own last one, and only the last layers retrieve.

Layer 7 of a text encoder and layer 7 of a vision encoder are different things in different spaces, of different depths
and widths. So nothing here pairs layers by their number: each encoder stands for itself, CKA between the encoders is
taken for every layer of one with every layer of the other (CKA needs no common space), and nDCG@5 where there is a
common space: at the end.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from miner_diag.cka.alignment import Comparison, compare
from miner_diag.cka.cka_matrix_result import CKAMatrix
from miner_diag.cka.diagnosis import (
    ALPHA,
    ProbeKind,
    Rules,
    constant_side,
    layer_ndcg,
    probe_kind,
)
from miner_diag.cka.distinct import DistinctItems, distinct_items
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import anisotropy, effective_rank
from miner_diag.cka.gold_pairs import GoldPairs
from miner_diag.cka.matrix import cka_matrix
from miner_diag.retrieval.ndcg import Ndcg
from miner_diag.stats import Interval, bootstrap_means, holm

Side = Literal["query", "page"]
SIDES: tuple[Side, ...] = ("query", "page")


@dataclass(frozen=True)
class DualEncoderLayer:
    """One layer of one encoder."""

    side: Side
    """Which encoder the layer belongs to: that of the queries or that of the pages."""
    layer: int
    """0 is what enters the encoder's first block, the last is its embedding."""
    relative_depth: float
    """Layer over the encoder's number of blocks: 0 to 1."""
    to_final: Comparison | None
    """This layer against the encoder's own last one; None where it has no CKA, and `note` says why."""
    effective_rank: Interval | None
    """Effective rank of the layer's rows."""
    anisotropy: Interval | None
    """Mean cosine between different rows."""
    null_p: float | None
    """P value of CKA with the last layer, Holm-adjusted over the encoder."""
    probe_kind: ProbeKind | None
    """The probe that the alignment ratio to the encoder's last layer asks for."""
    above_null: bool
    """Whether CKA with the last layer is above its null."""
    note: str | None
    """Why a number does not exist."""


@dataclass(frozen=True)
class DualEncoderDiagnosis:
    """Both encoders of one backbone on one split."""

    layers: tuple[DualEncoderLayer, ...]
    """The layers of the query encoder, then those of the page encoder."""
    ndcg: Interval
    """NDCG@5 of the last layers, the only ones in one space."""
    per_query: Ndcg
    """NDCG@5 of every query."""
    chance: float
    """NDCG@5 of a random order."""
    cross: CKAMatrix
    """CKA of every layer of the query encoder with every layer of the page encoder, over queries and their pages."""
    usable: Mapping[Side, tuple[int, ...]]
    """Layers of each encoder that have a CKA: rows and columns of `cross`."""
    queries: DistinctItems
    """Which queries enter CKA, alignment ratio, effective rank and anisotropy."""
    pages: DistinctItems
    """Which pages do."""
    n_pairs: int
    """Number of query-page pairs behind `cross`: one query a page."""
    rules: Rules
    """Thresholds."""

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self.queries.labels)

    @property
    def n_pages(self) -> int:
        """Number of pages."""
        return len(self.pages.labels)

    def of(self, side: Side) -> tuple[DualEncoderLayer, ...]:
        """Return the layers of one encoder."""
        return tuple(layer for layer in self.layers if layer.side == side)


def diagnose_dual_encoder(
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
) -> DualEncoderDiagnosis:
    """Diagnose both encoders; arguments are those of :func:`~miner_diag.cka.diagnosis.diagnose`.

    Parameters
    ----------
    queries : ndarray [Q, L_q, D_q]
        Pooled layers of the query encoder.
    pages : ndarray [P, L_p, D_p]
        Pooled layers of the page encoder; depth and width may differ from the queries'.

    Raises
    ------
    ValueError
        If there are fewer than four different queries, pages or pairs, or a last layer is constant or has no CKA.
    """
    rules = rules or Rules()
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
    width = min(queries.shape[2], pages.shape[2])
    query_vectors, page_vectors = _embedding(queries, width), _embedding(pages, width)
    if (constant := constant_side(query_vectors, page_vectors)) is not None:
        raise ValueError(f"the last layer is the same for all {constant}: nothing to compare with")
    ndcg = layer_ndcg(query_vectors, page_vectors, pairs.relevance, page_ids, layer=pages.shape[1] - 1)
    interval = bootstrap_means(ndcg.values[:, None], rng, clusters=query_documents, confidence=confidence)[0]
    options: dict[str, Any] = {"estimator": rules.estimator, "confidence": confidence, "device": device}
    encoders: dict[Side, list[DualEncoderLayer]] = {
        "query": _encoder("query", queries[own_queries.rows], own_queries.taken(query_documents), rules, options),
        "page": _encoder("page", pages[own_pages.rows], own_pages.taken(page_documents), rules, options),
    }
    usable = {side: tuple(layer.layer for layer in encoders[side] if layer.to_final is not None) for side in SIDES}
    cross = cka_matrix(
        [queries[pairs.query, layer] for layer in usable["query"]],
        [pages[pairs.page, layer] for layer in usable["page"]],
        names=[f"layer {layer} of the queries" for layer in usable["query"]],
        other_names=[f"layer {layer} of the pages" for layer in usable["page"]],
        groups=pairs.documents,
        **options,
    )
    return DualEncoderDiagnosis(
        layers=(*encoders["query"], *encoders["page"]),
        ndcg=interval,
        per_query=ndcg,
        chance=pairs.chance,
        cross=cross,
        usable=usable,
        queries=own_queries,
        pages=own_pages,
        n_pairs=len(pairs),
        rules=rules,
    )


def _encoder(
    side: Side, states: np.ndarray, documents: np.ndarray | None, rules: Rules, options: dict[str, Any]
) -> list[DualEncoderLayer]:
    last = states.shape[1] - 1
    views: dict[int, Comparison] = {}
    notes: dict[int, str] = {}
    for layer in range(last + 1):
        names = (f"layer {layer} of the {side} encoder", f"layer {last} of the {side} encoder")
        try:
            views[layer] = compare(states[:, layer], states[:, last], names=names, groups=documents, **options)
        except UndefinedCKAError as error:
            notes[layer] = str(error)
    if last in notes:
        raise ValueError(f"layer {last} of the {side} encoder, the last one, has no CKA: {notes[last]}")
    adjusted = dict(zip(views, holm([view.null.p_value for view in views.values()]), strict=True))
    over: dict[str, Any] = {"groups": documents, "confidence": options["confidence"]}
    layers = []
    for layer in range(last + 1):
        view, rows = views.get(layer), states[:, layer]
        layers.append(
            DualEncoderLayer(
                side=side,
                layer=layer,
                relative_depth=layer / last if last else 1.0,
                to_final=view,
                effective_rank=None if view is None else effective_rank(rows, **over),
                anisotropy=None if view is None else anisotropy(rows, **over),
                null_p=adjusted.get(layer),
                probe_kind=probe_kind(layer == last, view, rules.ratio_threshold)[0],
                above_null=layer in adjusted and bool(adjusted[layer] < ALPHA),
                note=notes.get(layer) or (view.no_ratio if view is not None else None),
            )
        )
    return layers


def _embedding(states: np.ndarray, width: int) -> np.ndarray:
    """Return an encoder's last layer without the zeros it is filled with, [N, width]."""
    if states[:, -1, width:].any():
        raise ValueError(f"the encoders' last layers must share a space of at most {width} dimensions")
    return states[:, -1, :width]
