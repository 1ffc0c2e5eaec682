"""Queries, pages, qrels: the one in-memory form every source is read into."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

from PIL import Image

from miner_diag.files import canonical_json, sha256_bytes

Split = Literal["train", "validation", "test"]
Form = Literal["hidden", "verbatim"]
Elsewhere = Literal["leave", "drop"]
Kind = Literal["outline", "figure", "table", "given"]
Metric = Literal["ndcg_at_5", "ndcg_at_10"]

SPLITS: tuple[str, ...] = get_args(Split)


class CorpusError(ValueError):
    """A document, table or manifest that can't be used; the message says which, why and what to do."""


@dataclass(frozen=True)
class Page:
    """What is retrieved."""

    page_id: str
    """Unique in the corpus; "document/page number" where pages come from PDFs."""
    doc_id: str
    """The document it belongs to; splits go by it."""
    page_number: int
    """1 is the document's first page."""
    text: str
    """The page's text layer, "" where it has none; without the hidden queries' words in the hidden form."""
    page_hash: str
    """SHA-256 of the page's pixels as rendered, before anything is hidden; of the picture's file in a hub data set."""
    words_hidden: bool = False
    """Whether the hidden form takes words out of this page: only then do its two forms differ."""


@dataclass(frozen=True)
class Query:
    """What is asked."""

    query_id: str
    """Unique in the corpus."""
    text: str
    """As a person would type it."""
    kind: Kind
    """Where it comes from: an outline title, a figure's or a table's caption, or given with the data."""
    doc_id: str
    """The document of its page."""
    language: str = ""
    """The language it is asked in, as "english"; "" where the data do not say."""


@dataclass(frozen=True)
class Benchmark:
    """What a data set is to a public benchmark."""

    name: str
    """The benchmark, as "ViDoRe V3"."""
    task: str
    """What the library mteb calls the data set, as "Vidore3HrRetrieval"."""
    metric: Metric
    """The metric that stands for it in the benchmark's average."""
    query_prompt: str
    """The instruction that mteb passes to retrievers that take the task's own."""


@dataclass(frozen=True)
class Skipped:
    """A document, page or query that was left out, and why."""

    name: str
    """File, page or query."""
    reason: str
    """In words."""


@dataclass(frozen=True)
class Corpus:
    """Queries, pages and which page answers which query.

    Frozen; :meth:`split` and :meth:`sample_pages` return smaller ones. Pages without a query stay: they are
    what a retriever has to tell the right page from.
    """

    name: str
    """Name of the manifest or folder."""
    form: Form
    """"hidden": a query's words are not on its page; "verbatim": pages as they are."""
    fold: int
    """Salt of the splits; 0 is the default."""
    pages: tuple[Page, ...]
    """In a stable order."""
    queries: tuple[Query, ...]
    """In a stable order."""
    qrels: dict[str, dict[str, int]]
    """query_id -> page_id -> relevance > 0."""
    splits: dict[str, str]
    """doc_id -> "train" | "validation" | "test"."""
    renderer: Callable[[str, int], Image.Image] = field(repr=False, compare=False)
    """Draws a page: page_id, longest side in pixels."""
    skipped: tuple[Skipped, ...] = ()
    """What was left out on loading, by name."""
    part: str = "all"
    """Which part of the data this is: "all", a split, a limited split."""
    ignore_self: bool = False
    """Whether the page that has a query's own id is left out of that query's ranking."""
    negatives: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """query_id -> pages that were mined for it and do not answer it, nearest first where the data are in that order;
    only queries for which the data bring some."""
    benchmark: Benchmark | None = None
    """Which public benchmark this is a data set of; None for all other data."""
    test_only: bool = False
    """Whether all of it is test data, which nothing may be fitted to or chosen on."""

    def __post_init__(self) -> None:
        """Check that ids are unique and that qrels and negatives name what is there."""
        page_ids = _unique((page.page_id for page in self.pages), "page_id")
        query_ids = _unique((query.query_id for query in self.queries), "query_id")
        for query_id, gold in self.qrels.items():
            if query_id not in query_ids:
                raise CorpusError(f"qrels of {self.name} name query {query_id!r}, which is not among the queries")
            for page_id, relevance in gold.items():
                if page_id not in page_ids:
                    raise CorpusError(f"qrels of {self.name} name page {page_id!r}, which is not among the pages")
                if relevance <= 0:
                    raise CorpusError(f"qrels of {self.name}: relevance of {query_id!r} must be > 0; got {relevance}")
        for query_id in query_ids:
            if not self.qrels.get(query_id):
                raise CorpusError(f"query {query_id!r} of {self.name} has no page that answers it")
        for query_id, mined in self.negatives.items():
            if query_id not in query_ids or not page_ids.issuperset(mined) or self.qrels[query_id].keys() & set(mined):
                raise CorpusError(
                    f"negatives of {self.name} must name queries and pages that are there, and no page that answers; "
                    f"those of query {query_id!r} do not"
                )

    @cached_property
    def revision(self) -> str:
        """SHA-256 over everything here that can change a number: ids, texts, pixels' hashes, qrels, form."""
        content: dict[str, Any] = {
            "form": self.form,
            "pages": [[p.page_id, p.doc_id, p.text, p.page_hash] for p in self.pages],
            "queries": [[q.query_id, q.text, q.kind, q.doc_id] for q in self.queries],
            "qrels": self.qrels,
        }
        if self.ignore_self:
            content["ignore_self"] = True
        if self.negatives:
            content["negatives"] = self.negatives
        if self.languages:
            content["languages"] = [query.language for query in self.queries]
        return sha256_bytes(canonical_json(content).encode("utf-8"))

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the queries, in the order of the queries; empty where the data do not say."""
        return tuple(dict.fromkeys(query.language for query in self.queries if query.language))

    def split(self, name: str) -> Corpus:
        """Return the pages and queries of one split; "all" returns everything.

        Raises
        ------
        CorpusError
            If `name` is no split, or the split holds no query.
        """
        if name == "all":
            return self
        if name not in SPLITS:
            raise CorpusError(f"split must be one of {', '.join(SPLITS)} or all; got {name!r}")
        if self.test_only and name != "test":
            raise CorpusError(
                f"{self.name} is test data alone and has no {name} split: nothing is fitted to it or chosen on it. Use "
                "--split test, or other data to fit to"
            )
        pages = tuple(page for page in self.pages if self.splits[page.doc_id] == name)
        queries = tuple(query for query in self.queries if self.splits[query.doc_id] == name)
        if not queries:
            raise CorpusError(
                f"the {name} split of {self.name} (fold {self.fold}) holds no query: splits go by document, and it has "
                f"{len(self.splits)}, of which those that share a query stay together. Add documents, try another "
                "--fold, or use --split all"
            )
        return self.restrict(pages, queries, part=name)

    def sample_pages(self, n: int) -> Corpus:
        """Return `n` pages drawn by the hash of their ids, and the queries whose pages are all among them.

        Raises
        ------
        CorpusError
            If `n` < 1, or no query keeps its page.
        """
        if n < 1:
            raise CorpusError(f"limit must be at least 1 page; got {n}")
        if n >= len(self.pages):
            return self
        drawn = set(sorted((p.page_id for p in self.pages), key=_order)[:n])
        queries = tuple(q for q in self.queries if drawn.issuperset(self.qrels[q.query_id]))
        if not queries:
            raise CorpusError(f"none of the {n} pages drawn from {self.name} answers a query; raise --limit")
        pages = tuple(p for p in self.pages if p.page_id in drawn)
        return self.restrict(pages, queries, part=f"{self.part}, {n} pages")

    def restrict(self, pages: tuple[Page, ...], queries: tuple[Query, ...], **changes: Any) -> Corpus:
        """Return the corpus of these pages and queries alone, with what of qrels and negatives is about them.

        Negatives that are not among the pages go, so that no query meets a page of another split.
        """
        here = {page.page_id for page in pages}
        mined = {
            query.query_id: tuple(page_id for page_id in self.negatives[query.query_id] if page_id in here)
            for query in queries
            if query.query_id in self.negatives
        }
        return replace(
            self,
            pages=pages,
            queries=queries,
            qrels={query.query_id: self.qrels[query.query_id] for query in queries},
            negatives={query_id: page_ids for query_id, page_ids in mined.items() if page_ids},
            **changes,
        )

    def render(self, page_id: str, longest_side: int = 1024) -> Image.Image:
        """Draw a page as its reader may see it, in RGB, `longest_side` pixels on the longer side.

        Raises
        ------
        CorpusError
            If the page is unknown, or the picture would be unreasonably large.
        """
        return self.renderer(page_id, longest_side)


def _unique(ids: Iterable[str], what: str) -> set[str]:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise CorpusError(f"{what} {name!r} stands twice; ids must be unique")
        seen.add(name)
    return seen


def _order(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8")).hexdigest()
