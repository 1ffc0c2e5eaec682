"""From options to token vectors: what every command that runs a late-interaction retriever does first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from miner_diag.backbones import LoadOptions, load_late_backbone
from miner_diag.backbones.base import SIDES, Side
from miner_diag.backbones.late import LateBackbone
from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings.embedded import facts_of, load_both, refuse_unread_pages, unread_notes
from miner_diag.embeddings.folder import StoreFolder
from miner_diag.embeddings.forward import embed_token_vectors
from miner_diag.embeddings.options import StoreOptions
from miner_diag.embeddings.processes import one_process
from miner_diag.embeddings.stored import StoredCorpus, StoredSide, items_words
from miner_diag.embeddings.tokens import TOKENS, StoredDtype, TokenStore

if TYPE_CHECKING:
    from miner_diag.runs import RunFolder


class TokenStores(NamedTuple):
    """The token vectors of both sides of a corpus."""

    queries: TokenStore
    """Items are those of ``corpus.queries``."""
    pages: TokenStore
    """Items are those of ``corpus.pages``."""


@dataclass(frozen=True, eq=False)
class EmbeddedTokens:
    """Queries and pages that have passed through a late-interaction retriever."""

    corpus: Corpus
    """The queries and pages."""
    backbone: LateBackbone
    """The retriever."""
    stores: TokenStores
    """The token vectors of queries and pages; items are those of `corpus`."""

    def notes(self) -> list[str]:
        """Return sentences on what the retriever did not get to read."""
        return unread_notes(self.stores.pages.counts, len(self.corpus.pages), self.backbone)

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of all this."""
        queries, pages = self.stores
        return facts_of(self.backbone, self.corpus, pages.counts) | {
            "stores": {"queries": str(queries.folder), "pages": str(pages.folder)},
            "stored_dtype": pages.dtype.name,
            "query_tokens": queries.cost.as_dict(),
            "page_tokens": pages.cost.as_dict(),
        }


class TokenCorpus:
    """A corpus, a late-interaction retriever, and the store in which their token vectors are kept.

    As :class:`~miner_diag.embeddings.embedded.EmbeddedCorpus`, for token vectors; it runs in one process.

    Parameters
    ----------
    corpus : Corpus
        All splits.
    backbone : LateBackbone
        A frozen retriever.
    options : StoreOptions
        Where embeddings are kept.
    stored_dtype : {"float32", "float16"}
        The precision of the vectors on disk.
    run : RunFolder, optional
        Gets the times of the stages.
    progress : bool
        Whether sizes are told before it starts, and bars are shown after two seconds.
    """

    def __init__(
        self,
        corpus: Corpus,
        backbone: LateBackbone,
        options: StoreOptions | None = None,
        *,
        stored_dtype: StoredDtype = "float32",
        run: RunFolder | None = None,
        progress: bool = True,
    ) -> None:
        if stored_dtype not in get_args(StoredDtype):
            raise ValueError(f"stored_dtype must be one of {', '.join(get_args(StoredDtype))}; got {stored_dtype!r}")
        self.corpus = corpus
        """The queries and pages of all splits."""
        self.backbone = backbone
        """The retriever."""
        self.options = options or StoreOptions()
        """Where embeddings are kept."""
        self.stored_dtype: StoredDtype = stored_dtype
        """The precision of the vectors on disk."""
        self._run = run
        queries, pages = (self._side(side) for side in SIDES)
        self._stored = StoredCorpus(corpus, queries, pages, self._sizes, one_process(), progress=progress)

    def take(self, part: Corpus) -> EmbeddedTokens:
        """Return the token vectors of some of the queries and pages; what is not in the store is embedded.

        Parameters and errors are those of :meth:`~miner_diag.embeddings.embedded.EmbeddedCorpus.take`.
        """
        queries, pages = (TokenStore(rows, self.backbone.width, self.stored_dtype) for rows in self._stored.take(part))
        refuse_unread_pages(self.backbone, part, pages.counts)
        if self._run is not None:
            self._run.stage("embed")
        return EmbeddedTokens(part, self.backbone, TokenStores(queries, pages))

    def _side(self, side: Side) -> StoredSide:
        key = {
            **self.backbone.key(side),
            "token_budget": str(self.options.token_budget),
            "stored_dtype": self.stored_dtype,
        }
        fields = {"width": self.backbone.width, "dtype": self.stored_dtype}
        folder = StoreFolder(self.options.store, TOKENS, side, self.backbone.name, key, fields)
        return StoredSide(folder, self.corpus, self._embed)

    def _embed(
        self, items: Sequence[Query] | Sequence[Page], side: Side, advance: Callable[[int], object]
    ) -> Mapping[str, np.ndarray]:
        return embed_token_vectors(self.backbone, items, side, self.options.token_budget, self.stored_dtype, advance)

    def _sizes(self, counts: Mapping[Side, int]) -> tuple[str, int]:
        size = self.backbone.width * np.dtype(self.stored_dtype).itemsize
        return f"embedding {items_words(counts)} with {self.backbone.name}: every token kept, {size:,} bytes a token", 0


def open_token_corpus(
    load: LoadOptions,
    data: DataOptions,
    store: StoreOptions,
    run: RunFolder | None = None,
    *,
    split: str = "all",
    corpus: Corpus | None = None,
    stored_dtype: StoredDtype = "float32",
    progress: bool = True,
) -> TokenCorpus:
    """Load a corpus and a late-interaction retriever, and open the store of their token vectors.

    Nothing is embedded yet. Parameters and errors are those of :func:`~miner_diag.embeddings.embedded.open_corpus`;
    `stored_dtype` is the precision of the vectors on disk.
    """
    one_process()  # said before anything is loaded
    corpus, backbone = load_both(load_late_backbone, load, data, run, split=split, corpus=corpus, progress=progress)
    return TokenCorpus(corpus, backbone, store, stored_dtype=stored_dtype, run=run, progress=progress)
