"""From options to scores: a late-interaction retriever judged, beside a single-vector one if asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from miner_diag.backbones import Backbone, load_backbone
from miner_diag.backbones.late import Kept, LateBackbone
from miner_diag.backbones.late_registry import load_late_backbone
from miner_diag.corpus import Corpus
from miner_diag.corpus.clusters import over_documents
from miner_diag.embeddings import extract_corpus
from miner_diag.embeddings.extract_tokens import TokenStores, extract_corpus_tokens
from miner_diag.embeddings.job import RetrieverOptions, facts_of
from miner_diag.embeddings.tokens import StoredDtype, score_stores
from miner_diag.provenance import RunClock
from miner_diag.retrieval import Ndcg, Relevance, ndcg_with_ties, score_all
from miner_diag.stats import Interval, bootstrap_mean, paired_bootstrap, paired_permutation


@dataclass(frozen=True)
class LateOptions(RetrieverOptions):
    """Judge a late-interaction retriever: nDCG@k of exact MaxSim, tokens and bytes per page."""

    model: str = "page-text-late"
    """page-text-late, page-vision-late, or a local folder of a ColPali, ColQwen2, ColModernVBERT or text encoder
    checkpoint."""
    keep: Kept = "text"
    """Which tokens of a text encoder take part: those of the text, or all, special tokens and prompt included."""
    stored_dtype: StoredDtype = "float32"
    """Of token vectors on disk; float16 takes half the space."""
    against: str | None = None
    """A single-vector retriever (page-text, page-vision, or a local folder) to compare with, query by query; it has
    its own limit and prompts."""
    out: Path = Path("runs/late")
    """Folder that is written to; a run that was stopped is taken up there."""
    k: int = 5
    """Ranks that count."""
    intervals_over: Literal["auto", "items", "documents"] = "auto"
    """What intervals are over: whole documents, whose queries are alike, or single queries; auto takes documents from
    6 on."""
    confidence: float = 0.95
    """Nominal coverage of the intervals."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        """Refuse options that no run can have."""
        if self.k < 1:
            raise ValueError(f"k must be at least 1; got {self.k}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, both excluded; got {self.confidence}")


@dataclass(frozen=True, eq=False)
class Partner:
    """A single-vector retriever over the same queries and pages."""

    backbone: Backbone
    """What ran; its last layer under cosine is what is judged."""
    ndcg: Ndcg
    """Per query."""
    interval: Interval | None
    """Of its mean."""
    difference: Interval | None
    """Late interaction less single vector, paired by query; None for a single query."""
    p_value: float | None
    """Two-sided, of the paired permutation test of no difference."""
    bytes_per_page: int
    """Of one vector in float32."""


@dataclass(frozen=True, eq=False)
class LateScores:
    """A late-interaction retriever, judged."""

    corpus: Corpus
    """The queries and pages of the split."""
    backbone: LateBackbone
    """The retriever."""
    stores: TokenStores
    """Token vectors of queries and pages."""
    scores: np.ndarray
    """[Q, P] float32, rows and columns as in `corpus`."""
    ndcg: Ndcg
    """Per query, with the bounds that ties leave."""
    interval: Interval | None
    """Of the mean; None for a single query, which has no spread."""
    partner: Partner | None
    """What it was compared with."""
    by_document: bool
    """Whether intervals and the test are over documents."""
    cautions: tuple[str, ...]
    """Sentences on what the numbers do not say."""

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of all this."""
        partner = self.partner
        return {
            **facts_of(self.backbone, self.corpus, self.stores.pages.counts),
            "pages": self.stores.pages.cost.as_dict(),
            "queries": self.stores.queries.cost.as_dict(),
            "stored_dtype": str(self.stores.pages.dtype),
            "intervals_over": "documents" if self.by_document else "items",
            "against": None if partner is None else partner.backbone.key(),
            "notes": list(self.cautions),
        }


def late_scores(options: LateOptions, clock: RunClock | None = None) -> LateScores:
    """Load, embed (or open what ``options.out`` holds), score by MaxSim and judge.

    Raises
    ------
    ValueError
        If the data or a model can't be used, or the folder holds another store; see the functions this calls.
    """
    clock = RunClock() if clock is None else clock
    corpus = options.load_corpus()
    by_document, cautions = over_documents(corpus, options.intervals_over)
    clock.stage("corpus")
    shared: dict[str, Any] = {
        "reader": options.reader,
        "render": corpus.render,
        "device": options.device,
        "dtype": options.dtype,
        "trust_remote_code": options.trust_remote_code,
    }
    backbone = load_late_backbone(
        options.model,
        keep=options.keep,
        max_tokens=options.max_tokens,
        query_prompt=options.query_prompt,
        page_prompt=options.page_prompt,
        **shared,
    )
    clock.stage("backbone")
    stores = extract_corpus_tokens(
        backbone, corpus, options.out / "tokens", token_budget=options.token_budget, stored_dtype=options.stored_dtype
    )
    clock.stage("extract")
    scores = score_stores(*stores)
    clock.stage("maxsim")
    gold = Relevance.from_qrels(corpus.qrels, stores.queries.ids, stores.pages.ids)
    ndcg = ndcg_with_ties(scores, gold, options.k)
    judge = _Judge(options, [query.doc_id for query in corpus.queries] if by_document else None)
    partner = None
    if options.against is not None:
        partner = _compare(load_backbone(options.against, **shared), corpus, gold, ndcg, options, judge)
        clock.stage("against")
    return LateScores(
        corpus, backbone, stores, scores, ndcg, judge.interval(ndcg.values), partner, by_document, tuple(cautions)
    )


class _Judge:
    """Intervals and the test over the same units; each starts at the seed, whatever else is asked."""

    def __init__(self, options: LateOptions, documents: list[str] | None) -> None:
        self.seed = options.seed
        self.common: dict[str, Any] = {"clusters": documents, "confidence": options.confidence}

    def interval(self, values: np.ndarray) -> Interval | None:
        return bootstrap_mean(values, np.random.default_rng(self.seed), **self.common) if len(values) > 1 else None

    def compare(self, mine: np.ndarray, other: np.ndarray) -> tuple[Interval | None, float | None]:
        if len(mine) < 2:
            return None, None
        difference = paired_bootstrap(mine, other, np.random.default_rng(self.seed), **self.common)
        flips = np.random.default_rng(self.seed)
        return difference, paired_permutation(mine, other, flips, clusters=self.common["clusters"])


def _compare(
    backbone: Backbone, corpus: Corpus, gold: Relevance, late: Ndcg, options: LateOptions, judge: _Judge
) -> Partner:
    stores = extract_corpus(backbone, corpus, options.out / "against", token_budget=options.token_budget)
    last = [store.layer(store.shape[1] - 1) for store in stores]
    ndcg = ndcg_with_ties(
        score_all(last[0], last[1], query_ids=stores.queries.ids, page_ids=stores.pages.ids), gold, options.k
    )
    interval = judge.interval(ndcg.values)
    difference, p_value = judge.compare(late.values, ndcg.values)
    return Partner(backbone, ndcg, interval, difference, p_value, 4 * stores.pages.shape[2])
