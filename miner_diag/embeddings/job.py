"""From options to stores: what every command that needs layer embeddings does first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from miner_diag.backbones import Backbone, Pooling, load_backbone
from miner_diag.backbones.late import LateBackbone
from miner_diag.backbones.reader import ReaderKind
from miner_diag.corpus import Corpus, load_corpus
from miner_diag.corpus.core import Form
from miner_diag.embeddings.extract import TOKEN_BUDGET, CorpusStores, extract_corpus
from miner_diag.embeddings.noise import NoiseFloor, noise_floor_of
from miner_diag.embeddings.processes import leave_the_rest_to_the_main_process
from miner_diag.provenance import RunClock


@dataclass(frozen=True)
class RetrieverOptions:
    """Which retriever over which queries and pages; the fields every command that runs one shares."""

    model: str = "page-text"
    """page-text, page-vision (reads the page's picture), a local folder of a checkpoint, or a hub id (miner-diag
    backbones lists known ones)."""
    model_family: str | None = None
    """For a checkpoint whose files do not say which retriever it is: one of those that miner-diag backbones lists, or
    text."""
    revision: str | None = None
    """Commit hash of a hub id; a known checkpoint's own if not given."""
    base_model: str | None = None
    """Folder or hub id of the model that an adapter belongs to."""
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
    reader: ReaderKind = "auto"
    """Where a page's text comes from: its text layer, its picture (ocr), or the picture where it has no text (auto)."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward; auto is float32, for vision-language models on a GPU bfloat16. Pooled vectors are float32
    whatever it is."""
    max_tokens: int | None = None
    """Overrules the checkpoint's limit."""
    max_pixels: int | None = None
    """Overrules the pixel budget of a page, for retrievers that look at pictures."""
    query_prompt: str | None = None
    """Overrules the checkpoint's prompt of queries."""
    page_prompt: str | None = None
    """Overrules the checkpoint's prompt of pages."""
    trust_remote_code: bool = False
    """Run Python code that a checkpoint brings along, with your rights."""
    token_budget: int = TOKEN_BUDGET
    """Tokens of a padded batch."""

    def load_corpus(self) -> Corpus:
        """Load the queries and pages of the split.

        Raises
        ------
        CorpusError
            If the data can't be used, or the split holds no query.
        """
        corpus = load_corpus(self.data, queries=self.queries, fold=self.fold).split(self.split)
        return corpus if self.limit is None else corpus.sample_pages(self.limit)


@dataclass(frozen=True)
class StoreOptions(RetrieverOptions):
    """What commands that need pooled layers ask."""

    pooling: Pooling | None = None
    """last, mean or cls, for a checkpoint whose files state none."""


@dataclass(frozen=True)
class Embedded:
    """A corpus, run through a backbone once."""

    corpus: Corpus
    """The queries and pages of the split."""
    backbone: Backbone
    """The retriever."""
    stores: CorpusStores
    """Pooled layers of queries and pages, rows as in `corpus`."""
    noise: NoiseFloor
    """What of a number is rounding."""

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of all this."""
        facts = facts_of(self.backbone, self.corpus, self.stores.pages.counts)
        return facts | {"noise_floor": self.noise.as_dict()}

    def notes(self) -> list[str]:
        """Return sentences on what the retriever did not get to read."""
        n_pages, counts = len(self.corpus.pages), self.stores.pages.counts
        told = []
        if counts["truncated"]:
            limit = self.backbone.key("page").get("page_max_tokens", "its limit of")
            told.append(
                f"{counts['truncated']} of {n_pages} pages are longer than the {limit} tokens the retriever reads"
            )
        if counts["empty"]:
            told.append(f"{counts['empty']} of {n_pages} pages have no text to read (see --reader)")
        return told


def facts_of(backbone: Backbone | LateBackbone, corpus: Corpus, pages: Mapping[str, int]) -> dict[str, Any]:
    """Return what ``run.json`` says of a retriever, what it ran over, and what its store counted of the pages."""
    return {
        "backbone": backbone.key(),
        "last_layer": backbone.last_layer,
        "corpus": corpus.name,
        "corpus_part": corpus.part,
        "corpus_revision": corpus.revision,
        "n_queries": len(corpus.queries),
        "n_pages": len(corpus.pages),
        "pages_without_text": pages["empty"],
        "pages_truncated": pages["truncated"],
        "skipped": {item.name: item.reason for item in corpus.skipped},
    }


def embed(options: StoreOptions, folder: Path | str, clock: RunClock) -> Embedded:
    """Load the corpus and the backbone, and extract into ``folder/queries`` and ``folder/pages`` or open what is there.

    Under a launcher of several processes, only the main one returns; the others end here.

    Raises
    ------
    ValueError
        If the data or the model can't be used, or the folder holds another store; see the functions this calls.
    """
    corpus = options.load_corpus()
    clock.stage("corpus")
    backbone = load_backbone(
        options.model,
        model_family=options.model_family,
        revision=options.revision,
        base_model=options.base_model,
        max_pixels=options.max_pixels,
        pooling=options.pooling,
        reader=options.reader,
        render=corpus.render,
        device=options.device,
        dtype=options.dtype,
        max_tokens=options.max_tokens,
        query_prompt=options.query_prompt,
        page_prompt=options.page_prompt,
        trust_remote_code=options.trust_remote_code,
    )
    clock.stage("backbone")
    stores = extract_corpus(backbone, corpus, folder, token_budget=options.token_budget)
    clock.stage("extract")
    leave_the_rest_to_the_main_process()
    noise = noise_floor_of(stores.pages, backbone, corpus.pages)
    clock.stage("noise floor")
    return Embedded(corpus, backbone, stores, noise)
