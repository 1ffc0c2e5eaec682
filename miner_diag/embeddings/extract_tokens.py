"""One forward per item, every token kept: from a late-interaction backbone and a corpus to a store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from miner_diag.backbones.base import Encoded, Side
from miner_diag.embeddings.batching import plan_batches
from miner_diag.embeddings.extract import TOKEN_BUDGET, NonFiniteError, corpus_key, item_ids, run_halving, store_key
from miner_diag.embeddings.shards import UnfinishedStoreError
from miner_diag.embeddings.tokens import EMPTY, TRUNCATED, StoredDtype, TokenStore, TokenWriter, open_token_store

if TYPE_CHECKING:
    from miner_diag.backbones.late import LateBackbone
    from miner_diag.corpus.core import Corpus, Page, Query

logger = logging.getLogger(__name__)

SHARD_ITEMS = 32
"""Items of a shard: what is prepared at once (a page's pixels can take 40 MB) and what a killed run loses at most."""


class TokenStores(NamedTuple):
    """Both sides of a corpus."""

    queries: TokenStore
    """Items in the order of ``corpus.queries``."""
    pages: TokenStore
    """Items in the order of ``corpus.pages``."""


def extract_tokens(
    backbone: LateBackbone,
    items: Sequence[Query] | Sequence[Page],
    side: Side,
    folder: Path | str,
    *,
    corpus_key: Mapping[str, str],
    token_budget: int = TOKEN_BUDGET,
    shard_items: int = SHARD_ITEMS,
    stored_dtype: StoredDtype = "float32",
    progress: bool = True,
) -> TokenStore:
    """Embed the tokens of `items` into the store at `folder`, or open it if it is there.

    As :func:`~miner_diag.embeddings.extract.extract`, but shards are runs of consecutive items: only they are prepared
    at once, and only in them are batches made of items of like length.

    Parameters
    ----------
    backbone : LateBackbone
        A frozen retriever.
    items : sequence of Query or of Page
        N items with distinct ids.
    side : {"query", "page"}
        Which they are.
    folder : path
        The store's own folder.
    corpus_key : mapping
        What the items come from.
    token_budget : int
        Tokens of a padded batch.
    shard_items : int
        Items of a shard.
    stored_dtype : {"float32", "float16"}
        Of the vectors on disk.
    progress : bool
        Show a bar after two seconds.

    Raises
    ------
    StoreError, NonFiniteError, OutOfMemoryError
        As :func:`~miner_diag.embeddings.extract.extract`.
    """
    if shard_items < 1:
        raise ValueError(f"shard_items must be at least 1; got {shard_items}")
    ids = item_ids(items, side)
    key = store_key(backbone, items, side, corpus_key=corpus_key, token_budget=token_budget, shard_items=shard_items)
    key["stored_dtype"] = stored_dtype
    try:
        return open_token_store(folder, key)
    except UnfinishedStoreError as unfinished:
        logger.debug("%s", unfinished)
    writer = TokenWriter(folder, key, ids, backbone.width, stored_dtype)
    shards = [range(start, min(start + shard_items, len(ids))) for start in range(0, len(ids), shard_items)]
    there = [writer.has(number, positions) for number, positions in enumerate(shards)]
    done = sum(len(positions) for positions, is_there in zip(shards, there, strict=True) if is_there)
    if any(there):
        logger.info("%s: %d of %d shards are there from an earlier run", folder, sum(there), len(shards))
    bar = tqdm(total=len(ids), initial=done, desc=f"{side} tokens", unit=side, delay=2, disable=not progress)
    with bar:
        for number, positions in enumerate(shards):
            if there[number]:
                continue
            encoded = backbone.prepare([items[position] for position in positions], side)  # type: ignore[arg-type]
            vectors: list[np.ndarray] = [np.empty(0)] * len(encoded)
            for batch in plan_batches([item.n_tokens for item in encoded], token_budget):
                some = [encoded[place] for place in batch]
                for place, tokens in zip(batch, _embed(backbone, some), strict=True):
                    vectors[place] = tokens
                bar.update(len(batch))
            notes = [EMPTY * item.empty + TRUNCATED * item.truncated for item in encoded]
            writer.write(number, positions, vectors, notes)
    return writer.finish(len(shards))


def extract_corpus_tokens(
    backbone: LateBackbone,
    corpus: Corpus,
    folder: Path | str,
    *,
    token_budget: int = TOKEN_BUDGET,
    stored_dtype: StoredDtype = "float32",
    progress: bool = True,
) -> TokenStores:
    """Embed a corpus into ``folder/queries`` and ``folder/pages``; see :func:`extract_tokens`."""
    options = {
        "corpus_key": corpus_key(corpus),
        "token_budget": token_budget,
        "stored_dtype": stored_dtype,
        "progress": progress,
    }
    return TokenStores(
        extract_tokens(backbone, corpus.queries, "query", Path(folder) / "queries", **options),  # type: ignore[arg-type]
        extract_tokens(backbone, corpus.pages, "page", Path(folder) / "pages", **options),  # type: ignore[arg-type]
    )


def _embed(backbone: LateBackbone, batch: Sequence[Encoded]) -> list[np.ndarray]:
    found = [tokens for part in run_halving(backbone.embed_tokens, batch) for tokens in part]
    for item, tokens in zip(batch, found, strict=True):
        if not np.isfinite(tokens).all():
            token = int(np.argmin(np.isfinite(tokens).all(axis=1)))
            raise NonFiniteError(
                f"token {token} of {item.side} {item.item_id!r} is not finite in {backbone.name} (dtype "
                f"{str(backbone.dtype).removeprefix('torch.')}). Try --dtype float32, or look at the item"
            )
    return found
