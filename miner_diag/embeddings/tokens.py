"""Token vectors, for late interaction, read from the store.

How many tokens an item has is known only once it was embedded, so lengths stand in the shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from miner_diag.embeddings.shards import DamagedStoreError, Kind
from miner_diag.embeddings.stored import Rows
from miner_diag.retrieval.maxsim import maxsim_scores
from miner_diag.retrieval.search import Similarity
from miner_diag.retrieval.tokens import TokenVectors

StoredDtype = Literal["float32", "float16"]
"""The precision of token vectors on disk; float16 halves the size and moves a cosine by some 1e-4."""

TOKENS = Kind(
    "token vectors", "tokens", ("lengths", "notes", "characters", "token_vectors"), {"query": 256, "page": 32}
)
"""The kind of store that keeps every token. A page's pixels can take 40 MB, so few pages are prepared at once."""


@dataclass(frozen=True)
class TokenCost:
    """What keeping every token costs."""

    items: int
    """The number of items."""
    tokens_mean: float
    """The mean number of tokens in an item."""
    tokens_max: int
    """The number of tokens in the longest item."""
    tokens_total: int
    """The number of tokens in all items."""
    bytes_mean: float
    """The mean size of an item's vectors in bytes, as stored."""
    bytes_max: int
    """The size of the longest item's vectors."""
    bytes_total: int
    """The size of all vectors."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for ``run.json``."""
        return asdict(self)


class TokenStore:
    """The token vectors of some queries or pages; they are memory-mapped until they are asked for.

    :meth:`TokenCorpus.take <miner_diag.embeddings.embedded_tokens.TokenCorpus.take>` returns it.

    Parameters
    ----------
    items : Rows
        Where each of the N items lies.
    width : int
        The width D of a token vector.
    dtype : {"float32", "float16"}
        The precision of the vectors on disk.
    """

    def __init__(self, items: Rows, width: int, dtype: StoredDtype) -> None:
        self.items = items
        """Where each item lies."""
        self.folder = items.folder.path
        """The folder of the store."""
        self.key: dict[str, str] = dict(items.folder.key)
        """Everything that changes a number."""
        self.ids = items.ids
        """The ids of the items, in the order in which they were asked for."""
        self.width = width
        """The width D of a token vector."""
        self.dtype = np.dtype(dtype)
        """The precision of the vectors on disk."""
        for shard in items.shards:
            vectors, n_tokens = shard.tensors["token_vectors"], int(shard.tensors["lengths"].sum())
            if vectors.shape != (n_tokens, width) or vectors.dtype != self.dtype:
                raise DamagedStoreError(shard.path, f"it holds {vectors.dtype} {list(vectors.shape)}")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def counts(self) -> dict[str, int]:
        """What was noted of these items; see :meth:`Rows.counts`."""
        return self.items.counts()

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each item, [N] int64."""
        lengths = np.empty(len(self), dtype=np.int64)
        for positions, shard, rows in self.items.by_shard():
            lengths[positions] = shard.tensors["lengths"][rows]
        lengths.setflags(write=False)
        return lengths

    @property
    def cost(self) -> TokenCost:
        """Tokens and bytes of an item: mean, largest, total."""
        tokens, size = self.lengths, self.width * self.dtype.itemsize
        total, longest = int(tokens.sum()), int(tokens.max())
        return TokenCost(
            len(self), total / len(self), longest, total, size * total / len(self), size * longest, size * total
        )

    def parts(self) -> Iterator[tuple[np.ndarray, TokenVectors]]:
        """Yield the items shard by shard: their numbers, and their token vectors, mapped where a whole shard is asked.

        Where only some items of a shard are asked for, those are copied.
        """
        for positions, shard, rows in self.items.by_shard():
            lengths = np.array(shard.tensors["lengths"])
            tokens = TokenVectors(shard.tensors["token_vectors"], np.concatenate([[0], np.cumsum(lengths)]))
            if not np.array_equal(rows, np.arange(len(lengths))):
                tokens = TokenVectors.from_items([tokens.item(row) for row in rows.tolist()])
            yield positions, tokens

    @cached_property
    def token_vectors(self) -> TokenVectors:
        """All token vectors, read into memory once; item i is ``ids[i]``. Read-only."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        vectors = np.empty((int(offsets[-1]), self.width), dtype=self.dtype)
        for positions, tokens in self.parts():
            for number, position in enumerate(positions):
                vectors[offsets[position] : offsets[position + 1]] = tokens.item(number)
        vectors.setflags(write=False)
        return TokenVectors(vectors, offsets)

    def take(self, ids: Sequence[str]) -> TokenStore:
        """Return the token vectors of some of these items, in the order of `ids`; nothing is read.

        Raises
        ------
        ValueError
            If an id is not among these items; it is named.
        """
        return TokenStore(self.items.take(ids), self.width, self.dtype.name)  # type: ignore[arg-type]


def score_stores(
    queries: TokenStore, pages: TokenStore, similarity: Similarity = "cosine", *, progress: bool = True
) -> np.ndarray:
    """Score every page for every query by MaxSim; return [Q, P] float32.

    Queries are read into memory, pages are not: they are scored shard by shard. Errors as in
    :func:`~miner_diag.retrieval.maxsim.maxsim_scores`.
    """
    scores = np.empty((len(queries), len(pages)), dtype=np.float32)
    bar = tqdm(total=len(pages), desc="late interaction", unit="page", delay=2, disable=not progress)
    with bar:
        for positions, tokens in pages.parts():
            names = [pages.ids[position] for position in positions]
            scores[:, positions] = maxsim_scores(
                queries.token_vectors, tokens, similarity, query_ids=queries.ids, page_ids=names
            )
            bar.update(len(positions))
    return scores
