"""Train, validation and test: by document, decided by a hash, so that they never move."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from miner_diag.corpus.core import Corpus, CorpusError, Skipped

logger = logging.getLogger(__name__)

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
    position = _position(doc_id, fold)
    for name, share in SHARES.items():
        if position < share:
            return name
        position -= share
    return "test"


def deal_splits(doc_ids: Iterable[str], together: Iterable[Collection[str]], fold: int) -> dict[str, str]:
    """Return the split of every document of a corpus.

    1. Documents that share a query stay together, directly or through further ones. Such a group takes the split
       (`split_of`) of its first document by name; a document alone takes its own.
    2. If that leaves a split without any query, and at least three groups have one, these groups are put in the order
       of their hashes, train first, and the borders between splits move by as few groups as give each split one.
       Nothing moves where no split is empty.

    Parameters
    ----------
    doc_ids : iterable of str
        All documents.
    together : iterable of collections of str
        For each query, the documents that answer it.
    fold : int
        As in `split_of`.

    Raises
    ------
    CorpusError
        If `fold` is negative.

    Examples
    --------
    The hashes of all four lie in train. One query asks for two of them, which stay together.

    >>> deal_splits(["north", "south", "east", "west"], [["north"], ["south"], ["east", "west"]], fold=0)
    {'north': 'test', 'south': 'validation', 'east': 'train', 'west': 'train'}
    """
    joined = [tuple(documents) for documents in together]
    groups = group_documents(doc_ids, joined)
    splits = {group: split_of(group, fold) for group in dict.fromkeys(groups.values())}
    asked = sorted({groups[documents[0]] for documents in joined}, key=lambda group: (_position(group, fold), group))
    names = list(SHARES)
    counts = [sum(splits[group] == name for group in asked) for name in names]
    if 0 in counts and len(asked) >= len(names):
        border = 0
        for number, name in enumerate(names):
            left = len(names) - 1 - number  # splits that still need a group each
            start = border
            border = min(max(sum(counts[: number + 1]), start + 1), len(asked) - left)
            splits |= dict.fromkeys(asked[start:border], name)
    return {doc_id: splits[group] for doc_id, group in groups.items()}


def group_documents(doc_ids: Iterable[str], together: Iterable[Collection[str]]) -> dict[str, str]:
    """Return document -> the first by name of the documents that it stays together with.

    Parameters
    ----------
    doc_ids : iterable of str
        All documents.
    together : iterable of collections of str
        Documents that stay together; groups that share a document become one.
    """
    leader: dict[str, str] = {doc_id: doc_id for doc_id in doc_ids}

    def first_of(doc_id: str) -> str:
        while leader[doc_id] != doc_id:
            leader[doc_id] = leader[leader[doc_id]]
            doc_id = leader[doc_id]
        return doc_id

    for documents in together:
        first, *others = sorted({first_of(doc_id) for doc_id in documents})
        for other in others:
            leader[other] = first
    return {doc_id: first_of(doc_id) for doc_id in leader}


def deal_with_negatives(
    doc_ids: Collection[str],
    documents: Mapping[str, str],
    qrels: Mapping[str, Collection[str]],
    negatives: Mapping[str, Collection[str]],
    fold: int,
) -> dict[str, str]:
    """Return the split of every document: those of a query's answers, and of its mined negatives, stay together.

    Mined negatives are the nearest pages of a query, and in a large data set they join most pages into one group. A
    group with more queries than the train split should have would leave the other splits next to nothing, so then
    negatives do not bind: `Corpus.restrict` leaves those of another split out, and the guard holds all the same.

    Parameters
    ----------
    doc_ids : collection of str
        All documents.
    documents : mapping
        page_id -> doc_id.
    qrels, negatives : mapping
        query_id -> pages.
    fold : int
        As in `split_of`.
    """
    answers = {query_id: {documents[page_id] for page_id in gold} for query_id, gold in qrels.items()}
    bound = [
        docs | {documents[page_id] for page_id in negatives.get(query_id, ())} for query_id, docs in answers.items()
    ]
    if negatives:
        groups = group_documents(doc_ids, bound)
        largest = max(Counter(groups[min(docs)] for docs in bound).values())
        if largest > SHARES["train"] * len(bound):
            logger.warning(
                "mined negatives join the pages of %d of %d queries into one group, so negatives do not decide the "
                "splits; those that lie in another split than their query are left out of it",
                largest,
                len(bound),
            )
            bound = list(answers.values())
    return deal_splits(doc_ids, bound, fold)


def _position(doc_id: str, fold: int) -> float:
    """Return where a document lies between 0 and 1."""
    digest = hashlib.sha256(f"{SALT}/{fold}/{doc_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


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
        If `fold` is negative, or all of the corpus is test data.
    """
    if corpus.test_only:
        raise CorpusError(f"{corpus.name} is test data alone: it is not dealt to other splits, so fold {fold} has none")
    documents = {page.page_id: page.doc_id for page in corpus.pages}
    splits = deal_with_negatives(corpus.splits, documents, corpus.qrels, corpus.negatives, fold)
    crossing = crossing_pages(((page.doc_id, page.page_hash) for page in corpus.pages), splits)
    gone = {page.page_id for page in corpus.pages if page.page_hash in crossing}
    queries = tuple(query for query in corpus.queries if gone.isdisjoint(corpus.qrels[query.query_id]))
    reason = f"the same picture stands in a document of another split of fold {fold}"
    return corpus.restrict(
        tuple(page for page in corpus.pages if page.page_id not in gone),
        queries,
        fold=fold,
        splits=splits,
        skipped=(*corpus.skipped, *(Skipped(page_id, reason) for page_id in sorted(gone))),
    )
