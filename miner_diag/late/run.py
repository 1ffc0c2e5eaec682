"""Score a late-interaction retriever, beside a single-vector one if asked: what the command of this folder does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import LoadOptions
from miner_diag.command import command_line
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings import StoredDtype, StoreOptions, open_corpus, open_token_corpus
from miner_diag.embeddings.bm25_reference import rank_texts
from miner_diag.evaluation.late import score_late, with_ndcg
from miner_diag.evaluation.lexical import lexical_system
from miner_diag.evaluation.scored_system import BACKBONE, Measures, ScoredSystem, compare_scored, system_key
from miner_diag.evaluation.systems import measure_backbone, score_backbone, with_systems
from miner_diag.late.table import late_lines, late_records
from miner_diag.retrieval.ndcg import Ndcg
from miner_diag.retrieval.score import per_query_frame
from miner_diag.runs import begin_run
from miner_diag.stats import StatisticsOptions

AGAINST = "ndcg_per_query_against"
"""The table of the retriever that late interaction is compared with."""


@dataclass(frozen=True)
class LateOptions:
    """Score a late-interaction retriever: nDCG@k of exact MaxSim, tokens and bytes per page."""

    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=lambda: LoadOptions("page-text-late"))
    """Which retriever: page-text-late, page-vision-late, or a ColPali, ColQwen2, ColModernVBERT or text encoder
    checkpoint."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    split: Literal["train", "validation", "test", "all"] = "validation"
    """Which documents."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where token vectors, and the layers of the retriever of --against, are kept."""
    statistics: Annotated[StatisticsOptions, OmitArgPrefixes] = field(default_factory=StatisticsOptions)
    """How intervals and tests are taken."""
    stored_dtype: StoredDtype = "float32"
    """The precision of token vectors on disk; float16 takes half the space."""
    against: str | None = None
    """A single-vector retriever (page-text, page-vision, a local folder or a hub id) to compare with, query by query.
    It runs on the same device, at the same --dtype and with the same --reader; its limit and prompts are its own."""
    k: int = 5
    """Ranks that count."""
    out: Path = Path("runs/late")
    """The folder that is written to."""

    def __post_init__(self) -> None:
        """Refuse options that no run can have."""
        if self.k < 1:
            raise ValueError(f"k must be at least 1; got {self.k}")


def run(options: LateOptions) -> None:
    """Run the command."""
    folder = begin_run(options.out, "miner_diag.late", options, [f"{AGAINST}.csv"])
    tokens = open_token_corpus(
        options.load, options.data, options.store, folder, split=options.split, stored_dtype=options.stored_dtype
    )
    part = options.data.part_of(tokens.corpus, options.split)
    by_document, cautions = over_documents(part, options.statistics.intervals_over)
    scores = score_late(tokens.take(part), k=options.k)
    folder.stage("maxsim")
    systems: list[ScoredSystem] = []
    ndcgs: list[Ndcg] = [scores.ndcg]
    facts: dict[str, Any] = {"against": None}
    if options.against is not None:
        own = options.load
        load = LoadOptions(
            options.against,
            reader=own.reader,
            device=own.device,
            dtype=own.dtype,
            long_pages=own.long_pages,
            window_overlap=own.window_overlap,
        )
        partner = open_corpus(load, options.data, options.store, folder, corpus=tokens.corpus)
        embedded = partner.take(part)
        measured = measure_backbone(embedded, with_ndcg(options.k))
        ndcgs.append(measured.ndcg(options.k))
        systems.append(score_backbone(embedded, partner.backbone.name, measured=measured))
        facts["against"] = partner.backbone.key()
        folder.stage("against")
    late = scores.system(system_key(systems[0].model, BACKBONE) if systems else None)
    systems.insert(0, late)
    ranked, missing = rank_texts(part, k=options.k)
    metric = f"ndcg_at_{options.k}"
    systems += [lexical_system(text, Measures({metric: text.ndcg.values[None]}), late.backbone) for text in ranked]
    ndcgs += [text.ndcg for text in ranked]
    documents = [query.doc_id for query in part.queries] if by_document else None
    comparison = compare_scored(systems, documents, options.statistics, metric)
    files = {"ndcg_per_query": ndcgs[0]} | ({AGAINST: ndcgs[1]} if options.against is not None else {})
    for name, ndcg in files.items():
        folder.table(name, per_query_frame(ndcg))
    folder.records(late_records(comparison, systems, ndcgs, scores, seed=options.statistics.seed))
    folder.stage("write")
    facts |= scores.embedded.facts() | {
        "intervals_over": "documents" if by_document else "items",
        "effective_documents": comparison.effective_documents,
        "caption": comparison.caption(),
    }
    lines = [*late_lines(comparison, systems, scores), *missing, *scores.embedded.notes(), *cautions]
    lines += skipped_lines(part.skipped)
    words = command_line("evaluation", options.data, options.store, split="test")
    next_command = with_systems(words, ["runs/fusion", options.load.model])
    folder.finish(facts=facts, lines=lines, next_command=next_command)
