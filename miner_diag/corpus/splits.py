"""Train, validation and test: by document, decided by a hash, so that they never move."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from miner_diag.corpus.core import Corpus, CorpusError, Skipped

SHARES = {"train": 0.50, "validation": 0.15, "test": 0.35}
"""Share of the documents that each split gets, in expectation."""
SALT = "miner_diag/277"
"""Part of every hash. Of 300 numbers, the one whose fold 0 comes closest to `SHARES` in queries on the three shipped
manifests: chosen by counts alone."""


def split_of(doc_id: str, fold: int = 0) -> str:
    """Return the split of a document: a function of its name and the fold alone.

    Parameters
    ----------
    doc_id : str
        Name of the document.
    fold : int
        Salts the hash; every fold is another partition. 0 is the default.

    Raises
    ------
    CorpusError
        If `fold` is negative.
    """
    if fold < 0:
        raise CorpusError(f"fold must be 0 or more; got {fold}")
    digest = hashlib.sha256(f"{SALT}/{fold}/{doc_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in SHARES.items():
        if position < share:
            return name
        position -= share
    return "test"


def crossing_pages(pages: Iterable[tuple[str, str]], splits: Mapping[str, str]) -> set[str]:
    """Return the page hashes that stand in more than one split; such pages are left out of all of them.

    Parameters
    ----------
    pages : iterable of (doc_id, page_hash)
        Every page of the corpus.
    splits : mapping
        doc_id -> split.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for doc_id, page_hash in pages:
        found[page_hash].add(splits[doc_id])
    return {page_hash for page_hash, names in found.items() if len(names) > 1}


def resplit(corpus: Corpus, fold: int) -> Corpus:
    """Return the same pages and queries with the documents dealt out anew, as `fold` does.

    Pages whose picture stands in more than one of the new splits are left out, and so are the queries they answer. No
    page comes in or changes, so vectors of `corpus` serve every fold.

    Raises
    ------
    CorpusError
        If `fold` is negative.
    """
    splits = {doc_id: split_of(doc_id, fold) for doc_id in corpus.splits}
    crossing = crossing_pages(((page.doc_id, page.page_hash) for page in corpus.pages), splits)
    gone = {page.page_id for page in corpus.pages if page.page_hash in crossing}
    queries = tuple(query for query in corpus.queries if gone.isdisjoint(corpus.qrels[query.query_id]))
    reason = f"the same picture stands in a document of another split of fold {fold}"
    return replace(
        corpus,
        fold=fold,
        splits=splits,
        pages=tuple(page for page in corpus.pages if page.page_id not in gone),
        queries=queries,
        qrels={query.query_id: corpus.qrels[query.query_id] for query in queries},
        skipped=(*corpus.skipped, *(Skipped(page_id, reason) for page_id in sorted(gone))),
    )
