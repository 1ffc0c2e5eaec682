"""Which items are embedded together: planned from the corpus alone, so that nothing depends on who asks first.

A shard is a file of the store. It holds items of one group only: a split of fold 0, and either pages that both forms of
the corpus share or pages from which the hidden form takes words. So a split of fold 0 is a union of shards, and the two
forms share exactly the shards of what is the same in both. (Documents that a corpus deals to another split than their
own hash says, see :func:`~miner_diag.corpus.splits.deal_splits`, stay in the shards of their hash, so that the plan
does not depend on the fold; then a shard may hold more than the split that was asked for.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from miner_diag.corpus.core import Form, Page, Query
from miner_diag.corpus.splits import split_of
from miner_diag.files import canonical_json, sha256_bytes

BOTH_FORMS = "common"
"""The group of items that are the same in both forms of a corpus."""

NAME_LENGTH = 32
"""Hexadecimal digits of a shard's name."""


class PlannedShard(NamedTuple):
    """Items that are embedded together and kept in one file."""

    name: str
    """The hash over what its items are, in their order; the file is named after it."""
    positions: tuple[int, ...]
    """The numbers of its items among those that were planned."""


def item_identity(item: Query | Page, form: Form) -> str:
    """Return the SHA-256 over everything about an item that changes its vectors.

    Parameters
    ----------
    item : Query or Page
        An item of a corpus.
    form : {"hidden", "verbatim"}
        The form of that corpus; it counts only for a page whose two forms differ.
    """
    if isinstance(item, Query):
        content = ["query", item.query_id, item.text]
    else:
        content = ["page", item.page_id, item.text, item.page_hash, form if item.words_hidden else BOTH_FORMS]
    return sha256_bytes(canonical_json(content).encode())


def plan_shards(items: Sequence[Query | Page], form: Form, shard_items: int) -> tuple[PlannedShard, ...]:
    """Put every item into one shard.

    Shards hold consecutive items of a document; documents with few items are put together within their group.

    Parameters
    ----------
    items : sequence of Query or of Page
        All queries or all pages of a corpus, in its order.
    form : {"hidden", "verbatim"}
        The form of the corpus.
    shard_items : int
        The largest number of items in a shard.

    Returns
    -------
    tuple of PlannedShard
        The shards in the order in which they are embedded. Those of a split of fold 0 are the same if that split is
        planned alone.

    Raises
    ------
    ValueError
        If `shard_items` is below 1.
    """
    if shard_items < 1:
        raise ValueError(f"shard_items must be at least 1; got {shard_items}")
    splits: dict[str, str] = {}
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for position, item in enumerate(items):
        if item.doc_id not in splits:
            splits[item.doc_id] = split_of(item.doc_id)
        altered = isinstance(item, Page) and item.words_hidden
        group = groups.setdefault((splits[item.doc_id], form if altered else BOTH_FORMS), {})
        group.setdefault(item.doc_id, []).append(position)
    identities = [item_identity(item, form) for item in items]
    return tuple(
        PlannedShard(_name(identities[position] for position in positions), positions)
        for _, documents in sorted(groups.items())
        for positions in pack(documents.values(), shard_items)
    )


def pack(documents: Iterable[Sequence[int]], shard_items: int) -> Iterator[tuple[int, ...]]:
    """Cut documents with many items into equal parts, and put those with few together.

    Parameters
    ----------
    documents : iterable of sequences
        The items of each document.
    shard_items : int
        The largest number of items in a part.

    Yields
    ------
    tuple of int
        Items; each comes once.

    Examples
    --------
    >>> list(pack([[0, 1, 2, 3], [4], [5, 6], [7]], shard_items=3))
    [(0, 1), (2, 3), (4, 5, 6), (7,)]
    """
    together: tuple[int, ...] = ()
    for items in documents:
        if len(items) > shard_items:
            n_parts = -(-len(items) // shard_items)
            yield from (tuple(int(item) for item in part) for part in np.array_split(items, n_parts))
            continue
        if len(together) + len(items) > shard_items:
            yield together
            together = ()
        together = (*together, *items)
    if together:
        yield together


def _name(identities: Iterable[str]) -> str:
    return sha256_bytes(canonical_json(list(identities)).encode())[:NAME_LENGTH]
