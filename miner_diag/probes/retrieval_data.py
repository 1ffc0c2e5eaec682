"""What probes are fitted to and evaluated on: layers of queries and pages, and which pages answer which query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from miner_diag.embeddings import EmbeddingStore
from miner_diag.retrieval.relevance import Relevance

Vectors = np.ndarray | EmbeddingStore
"""Pooled layers [N, L, D]: in memory, or in a store whose rows are read when they are asked for."""

Side = Literal["query", "page"]


@dataclass(frozen=True, eq=False)
class RetrievalData:
    """Queries and pages of one split with the pairs of them that belong together."""

    queries: Vectors
    """[Q, L, D] layers of the queries."""
    pages: Vectors
    """[P, L, D] layers of the pages."""
    relevance: Relevance
    """Which pages answer which query: a pair for every grade above 0."""
    page_groups: np.ndarray
    """[P] int64 labels, equal for pages that look the same."""
    documents: tuple[str, ...]
    """[Q] the document of each query."""
    fixed: Side | None = None
    """For a dual encoder, the side that stays as it is: its final embedding at every layer, which passes no probe."""
    given_negatives: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Row of a query -> rows of the pages that the data set itself names as its hard negatives, the hardest first."""

    def __post_init__(self) -> None:
        """Check that both sides have the same layers and fit the relevances."""
        queries, pages = self.queries.shape, self.pages.shape
        if queries[1:] != pages[1:]:
            raise ValueError(
                f"queries and pages must have the same layers and width; got {list(queries)} and {list(pages)}. For a "
                "dual encoder, set one side against the final embedding of the other; see final_at_every_layer"
            )
        if (queries[0], pages[0]) != (self.relevance.n_queries, self.relevance.n_pages):
            raise ValueError(
                f"relevance is of {self.relevance.n_queries} queries and {self.relevance.n_pages} pages; the vectors "
                f"are of {queries[0]} and {pages[0]}"
            )

    @classmethod
    def of(
        cls,
        queries: Vectors,
        pages: Vectors,
        relevance: Relevance,
        page_hashes: Sequence[str],
        documents: Sequence[str] | None = None,
        fixed: Side | None = None,
    ) -> RetrievalData:
        """Return data with `page_hashes` [P], equal for pages that look the same, and with the queries' `documents`."""
        _, groups = np.unique(np.asarray(page_hashes), return_inverse=True)
        labels = relevance.query_ids if documents is None else tuple(documents)
        return cls(queries, pages, relevance, groups.astype(np.int64), labels, fixed)

    @property
    def n_layers(self) -> int:
        """L, the number of hidden states."""
        return int(self.pages.shape[1])

    @property
    def width(self) -> int:
        """D, the number of neurons of a layer."""
        return int(self.pages.shape[2])

    @property
    def probed(self) -> list[Vectors]:
        """The sides that have layers to probe: queries and pages, or for a dual encoder the one that is not fixed."""
        return [vectors for side, vectors in (("query", self.queries), ("page", self.pages)) if side != self.fixed]

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the queries [M] and of the pages [M] that belong together."""
        true = self.relevance.grade > 0
        return self.relevance.query[true], self.relevance.page[true]

    @property
    def gold(self) -> list[dict[int, int]]:
        """[Q] page row -> grade 1 of the pages that answer each query, whatever their grades are."""
        answers: list[dict[int, int]] = [{} for _ in range(self.relevance.n_queries)]
        for query, page in zip(*self.pairs, strict=True):
            answers[query][int(page)] = 1
        return answers

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the page groups of all true pairs, query by query, and where each query's start [Q + 1]."""
        queries, pages = self.pairs
        known = np.unique(np.stack([queries, self.page_groups[pages]], axis=1), axis=0)
        starts = np.searchsorted(known[:, 0], np.arange(self.relevance.n_queries + 1))
        return known[:, 1], starts

    def known_matches(self, query_rows: np.ndarray, page_rows: np.ndarray) -> np.ndarray:
        """Return bool [B, C]: whether the page, or one that looks the same, answers the query."""
        groups, starts = self._known
        first, n_groups = starts[query_rows], starts[query_rows + 1] - starts[query_rows]
        row, wanted = _ranges(first, n_groups)
        columns = np.argsort(self.page_groups[page_rows], kind="stable")
        sorted_groups = self.page_groups[page_rows][columns]
        left, right = (np.searchsorted(sorted_groups, groups[wanted], side=side) for side in ("left", "right"))
        pair, place = _ranges(left, right - left)
        matches = np.zeros((len(query_rows), len(page_rows)), dtype=bool)
        matches[row[pair], columns[place]] = True
        return matches

    def shuffled(self, rng: np.random.Generator) -> RetrievalData:
        """Return the same vectors with the answers dealt out anew: nothing is left to learn."""
        order = rng.permutation(self.relevance.n_pages)
        relevance = replace(self.relevance, page=order[self.relevance.page])
        return replace(self, relevance=relevance, given_negatives={})


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for ranges one behind the other, the number of each element's range and the element itself."""
    number = np.repeat(np.arange(len(starts)), lengths)
    ends = np.cumsum(lengths)
    return number, np.arange(len(number)) - np.repeat(ends - lengths, lengths) + starts[number]


def rows_of(vectors: Vectors, rows: np.ndarray) -> np.ndarray:
    """Return the vectors [n, L, D] of some items."""
    return vectors[rows] if isinstance(vectors, np.ndarray) else vectors.rows(rows)


def layer_of(vectors: Vectors, layer: int) -> np.ndarray:
    """Return one layer's vectors [N, D]."""
    return vectors[:, layer] if isinstance(vectors, np.ndarray) else vectors.layer(layer)


def blocks_of(vectors: Vectors, size: int = 1024) -> Iterator[np.ndarray]:
    """Yield the vectors block by block, [n, L, D] each."""
    n = vectors.shape[0]
    return (rows_of(vectors, np.arange(start, min(start + size, n))) for start in range(0, n, size))


def final_at_every_layer(final: np.ndarray, n_layers: int, width: int) -> np.ndarray:
    """Return final embeddings [N, E] of one encoder as layers [N, n_layers, width], to be set against those of another.

    Narrower embeddings are filled up with zeros. Wider ones are cut, and what is cut off must be zeros, with which the
    narrower half of a dual encoder is filled up.

    Raises
    ------
    ValueError
        If the embeddings are wider and the rest is not zero: then the two sides share no space.
    """
    if final[:, width:].any():
        raise ValueError(
            f"the other encoder's final embeddings are {final.shape[1]} wide, the layers to probe {width}; scores "
            "between them need embeddings that are no wider than either encoder's layers"
        )
    held = np.zeros((len(final), width), dtype=np.float32)
    held[:, : final.shape[1]] = final[:, :width]
    return np.broadcast_to(held[:, None], (len(final), n_layers, width))
