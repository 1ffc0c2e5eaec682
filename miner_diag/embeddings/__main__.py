"""``python -m miner_diag.embeddings``: run a retriever once and keep the pooled vector of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from miner_diag.backbones import Pooling, load_backbone
from miner_diag.backbones.reader import ReaderKind
from miner_diag.command import run_command
from miner_diag.corpus import Corpus, load_corpus
from miner_diag.corpus.core import Form
from miner_diag.embeddings.extract import TOKEN_BUDGET, extract_corpus
from miner_diag.embeddings.noise import noise_floor
from miner_diag.provenance import RunClock, write_run


@dataclass(frozen=True)
class EmbeddingsOptions:
    """Run a retriever once over queries and pages and keep the pooled vector of every layer."""

    model: str = "page-text"
    """page-text, or a local folder of a transformers or sentence-transformers text encoder."""
    data: str = "sample"
    """A data set (sample, debian-docs-small, debian-docs-large), a folder of PDFs, a folder with a table in BEIR form
    (queries.jsonl, corpus.jsonl, qrels.tsv), or a manifest file (.yaml)."""
    queries: Form = "hidden"
    """hidden: a query's own words are taken out of its page; verbatim: pages as they are."""
    fold: int = 0
    """Salts the splits by document; 0 is the default partition."""
    split: Literal["train", "validation", "test", "all"] = "validation"
    """Which documents."""
    limit: int | None = None
    """At most this many pages, drawn by the hash of their ids."""
    out: Path = Path("runs/embeddings")
    """Folder that is written to; a run that was stopped is taken up there."""
    pooling: Pooling | None = None
    """last, mean or cls, for a checkpoint whose files state none."""
    reader: ReaderKind = "auto"
    """Where a page's text comes from: its text layer, its picture (ocr), or the picture where it has no text (auto)."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward; auto is float32 for text encoders. Pooled vectors are float32 whatever it is."""
    max_tokens: int | None = None
    """Overrules the checkpoint's limit."""
    query_prompt: str | None = None
    """Overrules the checkpoint's prompt of queries."""
    page_prompt: str | None = None
    """Overrules the checkpoint's prompt of pages."""
    trust_remote_code: bool = False
    """Run Python code that a checkpoint brings along, with your rights."""
    token_budget: int = TOKEN_BUDGET
    """Tokens of a padded batch."""


def run(options: EmbeddingsOptions) -> None:
    """Run the command."""
    clock = RunClock()
    corpus = load_corpus(options.data, queries=options.queries, fold=options.fold).split(options.split)
    if options.limit is not None:
        corpus = corpus.sample_pages(options.limit)
    clock.stage("corpus")
    backbone = load_backbone(
        options.model, pooling=options.pooling, reader=options.reader, render=corpus.render, device=options.device,
        dtype=options.dtype, max_tokens=options.max_tokens, query_prompt=options.query_prompt,
        page_prompt=options.page_prompt, trust_remote_code=options.trust_remote_code,
    )  # fmt: skip
    clock.stage("load")
    stores = extract_corpus(backbone, corpus, options.out, token_budget=options.token_budget)
    clock.stage("extract")
    floor = noise_floor(backbone, corpus.pages, "page", token_budget=options.token_budget)
    clock.stage("noise floor")
    write_run(
        options.out, "miner_diag.embeddings", options, clock,
        backbone=backbone.key(), last_layer=backbone.last_layer, corpus=corpus.name, corpus_part=corpus.part,
        corpus_revision=corpus.revision, n_queries=len(corpus.queries), n_pages=len(corpus.pages),
        pages_without_text=_without_text(corpus), skipped={item.name: item.reason for item in corpus.skipped},
        noise_floor=floor.as_dict(),
    )  # fmt: skip
    for side, store in zip(("queries", "pages"), stores, strict=True):
        n_items, n_states, width = store.shape
        print(f"{side:<8} {n_items} x {n_states} layers x {width}  {store.folder}")
    print(backbone.last_layer)
    print(
        f"noise floor of pages (batch of 1 against batched): at most {max(floor.max_relative_difference):.1e}, relative"
    )


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(EmbeddingsOptions, run, "embeddings", args)


def _without_text(corpus: Corpus) -> int:
    return sum(not page.text.strip() for page in corpus.pages)


if __name__ == "__main__":
    main()
