"""Late interaction as one more system: token vectors from the shared store, MaxSim scores, bytes per page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miner_diag.backbones.late import LateBackbone
from miner_diag.corpus import Corpus
from miner_diag.embeddings import EmbeddedTokens, TokenCost, score_stores
from miner_diag.evaluation.scored_system import K, Measures, ScoredSystem
from miner_diag.retrieval.metrics import METRICS
from miner_diag.retrieval.ndcg import Ndcg
from miner_diag.retrieval.ranking import MeasuredRanking, measure_by_blocks
from miner_diag.retrieval.relevance import Relevance

LATE = "late"
"""The name of the system that is a late-interaction retriever."""


@dataclass(frozen=True, eq=False)
class LateScores:
    """A late-interaction retriever on one set of queries."""

    embedded: EmbeddedTokens
    """The queries and pages with a vector for every token."""
    scores: np.ndarray
    """[Q, P] float32 MaxSim scores; rows and columns are those of `corpus`."""
    k: int
    """The ranks that count in its nDCG."""
    measured: MeasuredRanking
    """All metrics of each query, with the bounds that ties leave."""

    @property
    def ndcg(self) -> Ndcg:
        """NDCG@k of each query."""
        return self.measured.ndcg(self.k)

    @property
    def corpus(self) -> Corpus:
        """The queries and pages."""
        return self.embedded.corpus

    @property
    def backbone(self) -> LateBackbone:
        """The retriever."""
        return self.embedded.backbone

    @property
    def cost(self) -> TokenCost:
        """What it costs to keep every token of every page."""
        return self.embedded.stores.pages.cost

    @property
    def dtype(self) -> str:
        """The precision of the vectors that are kept."""
        return str(self.embedded.stores.pages.dtype)

    def system(self, against: str | None = None) -> ScoredSystem:
        """Return the retriever as a system; `against` is the key of the backbone that it is compared with."""
        return ScoredSystem(
            self.backbone.name,
            self.backbone.revision,
            LATE,
            "late",
            f"late interaction (MaxSim), {self.cost.tokens_mean:.0f} tokens a page in the mean, kept as {self.dtype}",
            Measures.of([self.measured]),
            (None,),
            self.backbone.width,
            self.cost.bytes_mean,
            against,
        )


def score_late(embedded: EmbeddedTokens, *, k: int = K) -> LateScores:
    """Score every page for every query by MaxSim.

    Parameters
    ----------
    embedded : EmbeddedTokens
        The queries and pages with a vector for every token.
    k : int
        Ranks that count.
    """
    queries, pages = embedded.stores
    scores = score_stores(queries, pages)
    relevance = Relevance.from_qrels(
        embedded.corpus.qrels, queries.ids, pages.ids, ignore_self=embedded.corpus.ignore_self
    )
    return LateScores(embedded, scores, k, measure_by_blocks(lambda rows: scores[rows], relevance, with_ndcg(k)))


def with_ndcg(k: int) -> tuple[str, ...]:
    """Return the metrics of an evaluation, and nDCG@k among them."""
    return tuple(dict.fromkeys((f"ndcg_at_{k}", *METRICS)))


def partner_of(late: str, models: Sequence[str]) -> str | None:
    """Return the model whose backbone a late-interaction retriever is compared with.

    ``NAME-late`` is compared with NAME, any other with the first model.

    Examples
    --------
    >>> partner_of("page-vision-late", ["page-text", "page-vision"])
    'page-vision'
    >>> partner_of("colqwen2", ["page-text"]), partner_of("colqwen2", [])
    ('page-text', None)
    """
    base = late.removesuffix("-late")
    if base in models:
        return base
    return models[0] if models else None
