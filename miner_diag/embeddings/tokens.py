"""Token vectors on disk, for late interaction: a folder of shards, each with some items' tokens without padding.

The files are those of :mod:`~miner_diag.embeddings.shards`. How many tokens an item has is known only once it was
embedded, so lengths stand in the shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from miner_diag.embeddings.shards import Layout, ShardWriter, map_shard, open_shards
from miner_diag.retrieval.maxsim import maxsim_scores
from miner_diag.retrieval.search import Similarity
from miner_diag.retrieval.tokens import TokenVectors

StoredDtype = Literal["float32", "float16"]
"""Of token vectors on disk; float16 halves the size and moves a cosine by some 1e-4."""

LAYOUT = Layout(kind="token vectors", fields=("width", "dtype"), tensors=("lengths", "notes", "token_vectors"))

EMPTY, TRUNCATED = 1, 2
"""Bits of an item's note."""


@dataclass(frozen=True)
class TokenCost:
    """What keeping every token costs."""

    items: int
    """How many."""
    tokens_mean: float
    """Tokens of an item."""
    tokens_max: int
    """Of the longest."""
    tokens_total: int
    """Of all."""
    bytes_mean: float
    """Bytes of an item's vectors, as stored."""
    bytes_max: int
    """Of the longest."""
    bytes_total: int
    """Of all."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for ``run.json``."""
        return asdict(self)


class TokenStore:
    """Reads a finished store of token vectors; they are memory-mapped until they are asked for.

    Use :func:`open_token_store`, which checks the files first.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], shards: Sequence[Path]) -> None:
        self.folder = folder
        """Where it lies."""
        self.key: dict[str, str] = dict(header["key"])
        """Everything that changes a number."""
        self.ids: tuple[str, ...] = tuple(header["ids"])
        """Ids of the items, in the order they were given."""
        self.width: int = int(header["width"])
        """Width D."""
        self.dtype = np.dtype(header["dtype"])
        """Of the vectors on disk."""
        self.lengths = np.zeros(len(self.ids), dtype=np.int64)
        """Tokens of each item, [N] int64."""
        notes = np.zeros(len(self.ids), dtype=np.int64)
        self._shards = []
        for path in shards:
            shard = map_shard(path)
            positions, lengths = np.array(shard["positions"]), np.array(shard["lengths"])
            self.lengths[positions], notes[positions] = lengths, shard["notes"]
            tokens = TokenVectors(shard["token_vectors"], np.concatenate([[0], np.cumsum(lengths)]))
            self._shards.append((positions, tokens))
        self.counts = {"empty": int((notes & EMPTY > 0).sum()), "truncated": int((notes & TRUNCATED > 0).sum())}
        """How many items had nothing to see, and of how many the end was cut off."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def cost(self) -> TokenCost:
        """Tokens and bytes of an item: mean, largest, total."""
        tokens, size = self.lengths, self.width * self.dtype.itemsize
        total, longest = int(tokens.sum()), int(tokens.max())
        return TokenCost(
            len(self), total / len(self), longest, total, size * total / len(self), size * longest, size * total
        )

    def parts(self) -> Iterator[tuple[np.ndarray, TokenVectors]]:
        """Yield the items shard by shard: their numbers and their token vectors, mapped."""
        yield from self._shards

    @cached_property
    def token_vectors(self) -> TokenVectors:
        """All token vectors, read into memory once; item i is ``ids[i]``."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        whole = np.empty((int(offsets[-1]), self.width), dtype=self.dtype)
        for positions, tokens in self._shards:
            for number, position in enumerate(positions):
                whole[offsets[position] : offsets[position + 1]] = tokens.item(number)
        whole.setflags(write=False)
        return TokenVectors(whole, offsets)


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


def open_token_store(folder: Path | str, key: Mapping[str, str] | None = None, *, verify: bool = True) -> TokenStore:
    """Open a finished store; parameters and errors as in :func:`~miner_diag.embeddings.shards.open_shards`."""
    header, shards = open_shards(folder, LAYOUT, key, verify=verify)
    return TokenStore(Path(folder), header, shards)


class TokenWriter(ShardWriter):
    """Fills a store of token vectors; errors as in :class:`~miner_diag.embeddings.shards.ShardWriter`.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    key : mapping of str
        Everything that changes a number.
    ids : sequence of str [N]
        The items, in the order the store gives them back.
    width : int
        D.
    dtype : {"float32", "float16"}
        What vectors are rounded to.
    """

    def __init__(
        self, folder: Path | str, key: Mapping[str, str], ids: Sequence[str], width: int, dtype: StoredDtype = "float32"
    ) -> None:
        if dtype not in get_args(StoredDtype):
            raise ValueError(f"dtype must be one of {', '.join(get_args(StoredDtype))}; got {dtype!r}")
        self.width, self.dtype = width, np.dtype(dtype)
        super().__init__(folder, LAYOUT, key, ids, {"width": width, "dtype": dtype})

    def fits(self, positions: Sequence[int], tensors: Mapping[str, np.ndarray]) -> bool:
        """Tell whether the lengths cut the vectors into the items."""
        lengths, vectors = tensors["lengths"], tensors["token_vectors"]
        shapes = lengths.shape == tensors["notes"].shape == (len(positions),)
        return shapes and vectors.dtype == self.dtype and vectors.shape == (int(lengths.sum()), self.width)

    def write(self, number: int, positions: Sequence[int], vectors: Sequence[np.ndarray], notes: Sequence[int]) -> None:
        """Write one shard: an array [T_i, D] float32 for each item at `positions`, and what is noted of it."""
        for position, item in zip(positions, vectors, strict=True):
            if item.ndim != 2 or item.shape[1] != self.width or not len(item) or item.dtype != np.float32:
                raise ValueError(
                    f"token vectors must be float32 [tokens, {self.width}], at least one token; item {position} has "
                    f"{item.dtype} {list(item.shape)}"
                )
        self.write_tensors(
            number,
            positions,
            {
                "lengths": np.array([len(item) for item in vectors], dtype=np.int64),
                "notes": np.array(notes, dtype=np.int64),
                "token_vectors": np.concatenate(vectors).astype(self.dtype),
            },
        )

    def finish(self, n_shards: int) -> TokenStore:
        """Note every shard's SHA-256, which makes the store whole, and open it."""
        self.write_index(n_shards)
        return open_token_store(self.folder, verify=False)
