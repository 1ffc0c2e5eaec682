"""Two towers: the layers of each are compared with its own last one, and only the last layers retrieve.

Layer 7 of a text tower and layer 7 of a vision tower are different things in different spaces, of different depths and
widths. So nothing here pairs layers by their number: each tower stands for itself, CKA between the towers is taken for
every layer of one with every layer of the other (CKA needs no common space), and nDCG@5 where there is one: at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miner_diag.cka.alignment import Comparison, compare
from miner_diag.cka.diagnosis import (
    ALPHA,
    K,
    ProbeKind,
    Rules,
    check_sizes,
    constant_side,
    one_query_a_page,
    probe_kind,
)
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import anisotropy, effective_rank
from miner_diag.cka.matrix import CKAMatrix, cka_matrix
from miner_diag.retrieval.ndcg import Ndcg, chance_ndcg, ndcg_with_ties
from miner_diag.retrieval.relevance import Relevance
from miner_diag.retrieval.search import score_all
from miner_diag.stats import Interval, bootstrap_means, holm

SIDES = ("query", "page")


@dataclass(frozen=True)
class DualEncoderLayer:
    """One layer of one tower."""

    side: str
    """"query" or "page": whose tower."""
    layer: int
    """0 is what enters the tower's first block, the last is its embedding."""
    relative_depth: float
    """Layer over the tower's number of blocks: 0 to 1."""
    to_final: Comparison | None
    """This layer against the tower's own last one; None where it has no CKA, and `note` says why."""
    effective_rank: Interval | None
    anisotropy: Interval | None
    null_p: float | None
    """P value of CKA with the last layer, Holm-adjusted over the tower."""
    probe_kind: ProbeKind | None
    """What the alignment ratio to the tower's last layer says."""
    above_null: bool
    """Whether CKA with the last layer is above its null."""
    note: str | None
    """Why a number does not exist."""


@dataclass(frozen=True)
class DualEncoderDiagnosis:
    """Both towers of one backbone on one split."""

    layers: tuple[DualEncoderLayer, ...]
    """The queries' tower, then the pages'."""
    ndcg: Interval
    """NDCG@5 of the last layers, the only ones in one space."""
    per_query: Ndcg
    """The same for every query."""
    chance: float
    """NDCG@5 of a random order."""
    cross: CKAMatrix
    """CKA of every layer of the queries' tower with every layer of the pages', over queries and their pages."""
    usable: dict[str, tuple[int, ...]]
    """Layers of each tower that have a CKA: rows and columns of `cross`."""
    n_queries: int
    n_pages: int
    n_pairs: int
    rules: Rules

    def of(self, side: str) -> tuple[DualEncoderLayer, ...]:
        """Return the layers of one tower."""
        return tuple(layer for layer in self.layers if layer.side == side)


def diagnose_dual_encoder(
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
) -> DualEncoderDiagnosis:
    """Diagnose both towers; arguments as of :func:`~miner_diag.cka.diagnosis.diagnose`.

    Parameters
    ----------
    queries : ndarray [Q, L_q, D_q]
        Pooled layers of the queries' tower.
    pages : ndarray [P, L_p, D_p]
        Pooled layers of the pages' tower; depth and width may differ from the queries'.

    Raises
    ------
    ValueError
        If there are fewer than four queries, pages or pairs, or a last layer is constant or has no CKA.
    """
    rules = rules or Rules()
    pair_query, pair_page = one_query_a_page(gold, query_ids, page_hashes)
    check_sizes(len(queries), len(pages), len(pair_query))
    width = min(queries.shape[2], pages.shape[2])
    asked, shown = _embedding(queries, width), _embedding(pages, width)
    if (constant := constant_side(asked, shown)) is not None:
        raise ValueError(f"the last layer is the same for all {constant}: nothing to compare with")
    relevance = Relevance.of(list(gold), n_pages=len(pages))
    ndcg = ndcg_with_ties(score_all(asked, shown, query_ids=query_ids, page_ids=page_ids), relevance, K)
    interval = bootstrap_means(ndcg.values[:, None], rng, clusters=query_documents, confidence=rules.confidence)[0]
    options: dict[str, Any] = {"estimator": rules.estimator, "confidence": rules.confidence, "device": device}
    towers = {
        "query": _tower("query", queries, query_documents, rules, options),
        "page": _tower("page", pages, page_documents, rules, options),
    }
    usable = {side: tuple(layer.layer for layer in towers[side] if layer.to_final is not None) for side in SIDES}
    pair_documents = None if page_documents is None else np.asarray(page_documents)[pair_page]
    cross = cka_matrix(
        [queries[pair_query, layer] for layer in usable["query"]],
        [pages[pair_page, layer] for layer in usable["page"]],
        names=[f"layer {layer} of the queries" for layer in usable["query"]],
        other_names=[f"layer {layer} of the pages" for layer in usable["page"]],
        groups=pair_documents,
        **options,
    )
    chance = float(np.mean([chance_ndcg(len(pages), len(judged), K) for judged in gold]))
    return DualEncoderDiagnosis(
        (*towers["query"], *towers["page"]),
        interval,
        ndcg,
        chance,
        cross,
        usable,
        len(queries),
        len(pages),
        len(pair_query),
        rules,
    )


def _tower(
    side: str, states: np.ndarray, documents: Sequence[str] | None, rules: Rules, options: dict[str, Any]
) -> list[DualEncoderLayer]:
    last = states.shape[1] - 1
    views: dict[int, Comparison] = {}
    notes: dict[int, str] = {}
    for layer in range(last + 1):
        names = (f"layer {layer} of the {side} tower", f"layer {last} of the {side} tower")
        try:
            views[layer] = compare(states[:, layer], states[:, last], names=names, groups=documents, **options)
        except UndefinedCKAError as error:
            notes[layer] = str(error)
    if last in notes:
        raise ValueError(f"layer {last} of the {side} tower, the last one, has no CKA: {notes[last]}")
    adjusted = dict(zip(views, holm([view.null.p_value for view in views.values()]), strict=True))
    of_one = {"groups": documents, "confidence": rules.confidence}
    made = []
    for layer in range(last + 1):
        view, here = views.get(layer), states[:, layer]
        made.append(
            DualEncoderLayer(
                side,
                layer,
                layer / last if last else 1.0,
                view,
                None if view is None else effective_rank(here, **of_one),  # type: ignore[arg-type]
                None if view is None else anisotropy(here, **of_one),  # type: ignore[arg-type]
                adjusted.get(layer),
                probe_kind(layer == last, view, rules.ratio_threshold)[0],
                layer in adjusted and bool(adjusted[layer] < ALPHA),
                notes.get(layer) or (view.no_ratio if view is not None else None),
            )
        )
    return made


def _embedding(states: np.ndarray, width: int) -> np.ndarray:
    """Return a tower's last layer without the zeros it is filled with, [N, width]."""
    if states[:, -1, width:].any():
        raise ValueError(f"the towers' last layers must share a space of at most {width} dimensions")
    return states[:, -1, :width]
