"""Which queries and pages a command runs over."""

from __future__ import annotations

from dataclasses import dataclass

from miner_diag.corpus.core import Corpus, Elsewhere, Form
from miner_diag.corpus.elsewhere import without_elsewhere
from miner_diag.corpus.load import load_corpus


@dataclass(frozen=True)
class DataOptions:
    """Which queries and pages a command runs over."""

    data: str = "sample"
    """A data set (sample, debian-docs-small, debian-docs-large, vdr-multilingual-train, vdr-multilingual-test,
    colpali-train-set, and ViDoRe's as vidore-v3-hr), a folder of PDFs, a folder with a table in BEIR form
    (queries.jsonl, corpus.jsonl, qrels.tsv or qrels/test.tsv) or with parquet files laid out as on a hub, or a manifest
    file (.yaml)."""
    queries: Form | None = None
    """What is done to a query's own words: hidden takes them out of its page, verbatim leaves pages as they are. Hidden
    is used if this is not given. A table brings its own queries, so the option is refused there."""
    fold: int = 0
    """The number of the split by document: each number deals the documents to train, validation and test anew. It is
    refused for ViDoRe, which is test data alone."""
    limit: int | None = None
    """The largest number of pages, drawn by the hash of their ids: of the split that a command runs over, or of all
    pages where it runs over several splits."""
    ignore_self: bool = False
    """For a table whose queries are pages too: the page that has a query's own id is not ranked for that query."""
    elsewhere: Elsewhere = "leave"
    """What is done with pages that show the words of a query which another page of the same document answers, and that
    answer no query themselves, as lists of contents do: leave keeps them among the pages that are searched, drop takes
    them out. With hidden queries no page shows the words, so drop is refused."""
    subset: str | None = None
    """For a data set of a hub, or a folder of its parquet files: the part that is read, as en, or the language of the
    queries, as english; all parts if not given."""
    data_revision: str | None = None
    """For a data set of a hub: the full commit hash that is read, instead of its manifest's; needed where the manifest
    pins none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.fold < 0:
            raise ValueError(f"fold must be 0 or more; got {self.fold}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 page; got {self.limit}")

    def load(self, split: str = "all") -> Corpus:
        """Load the queries and pages of a split; `limit` draws from the pages of that split.

        Raises
        ------
        CorpusError
            If the data cannot be used, or the split holds no query.
        """
        corpus = load_corpus(
            self.data,
            queries=self.queries,
            fold=self.fold,
            ignore_self=self.ignore_self,
            subset=self.subset,
            data_revision=self.data_revision,
        )
        if self.elsewhere == "drop":
            corpus = without_elsewhere(corpus)
        corpus = corpus.split(split)
        return corpus if self.limit is None else corpus.sample_pages(self.limit)

    def load_around(self, split: str) -> Corpus:
        """Load the corpus that a split is a part of; see `part_of`.

        Without a limit these are all splits, so that what is planned over them is the same for every split. A limit
        makes a small corpus of its own out of the split.
        """
        return self.load("all" if self.limit is None else split)

    def part_of(self, corpus: Corpus, split: str) -> Corpus:
        """Return the queries and pages of a split, out of what `load_around` gave for the same split."""
        return corpus.split(split) if self.limit is None else corpus
