"""Train, validation and test: by document, decided by a hash, so that they never move."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from miner_diag.corpus.core import CorpusError

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
