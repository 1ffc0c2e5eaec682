"""One forward per item, every layer kept: from a backbone and a corpus to a store."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from miner_diag.backbones.base import Backbone, Encoded, Side, ids_of
from miner_diag.embeddings.batching import plan_batches, plan_shards
from miner_diag.embeddings.processes import processes
from miner_diag.embeddings.shards import UnfinishedStoreError
from miner_diag.embeddings.store import EmbeddingStore, StoreWriter, open_store
from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.version import __version__

if TYPE_CHECKING:
    from miner_diag.corpus.core import Corpus, Page, Query

logger = logging.getLogger(__name__)

Output = TypeVar("Output")

TOKEN_BUDGET = 4096
"""Tokens of a padded batch: enough to keep a CPU busy, little memory."""

SHARD_ITEMS = 64
"""Items of a shard, about: what a killed run loses at most."""


class NonFiniteError(ValueError):
    """A layer gave NaN or an infinity for an item."""


class OutOfMemoryError(ValueError):
    """A single item does not fit into memory."""


class Keyed(Protocol):
    """Whatever can say what changes its numbers."""

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything that changes a number of that side."""
        ...


class CorpusStores(NamedTuple):
    """Both sides of a corpus."""

    queries: EmbeddingStore
    """Rows in the order of ``corpus.queries``."""
    pages: EmbeddingStore
    """Rows in the order of ``corpus.pages``."""


def corpus_key(corpus: Corpus) -> dict[str, str]:
    """Return everything of a corpus that changes a number, for a store's key."""
    return {
        "corpus": corpus.name,
        "corpus_form": corpus.form,
        "corpus_fold": str(corpus.fold),
        "corpus_part": corpus.part,
        "corpus_revision": f"sha256:{corpus.revision}",
    }


def store_key(
    backbone: Keyed,
    items: Sequence[Query] | Sequence[Page],
    side: Side,
    *,
    corpus_key: Mapping[str, str],
    token_budget: int = TOKEN_BUDGET,
    shard_items: int = SHARD_ITEMS,
) -> dict[str, str]:
    """Return the key of the store that :func:`extract` would write with these arguments."""
    described = [
        [name, item.text, getattr(item, "page_hash", "")]  # type: ignore[attr-defined]
        for name, item in zip(ids_of(items, side), items, strict=True)
    ]
    return {
        **backbone.key(side),
        **{name: str(value) for name, value in corpus_key.items()},
        "side": side,
        "items": f"sha256:{sha256_bytes(canonical_json(described).encode())}",
        "token_budget": str(token_budget),
        "shard_items": str(shard_items),
        "package_version": __version__,
    }


def extract(
    backbone: Backbone,
    items: Sequence[Query] | Sequence[Page],
    side: Side,
    folder: Path | str,
    *,
    corpus_key: Mapping[str, str],
    token_budget: int = TOKEN_BUDGET,
    shard_items: int = SHARD_ITEMS,
    progress: bool = True,
) -> EmbeddingStore:
    """Embed `items` into the store at `folder`, or open it if it is there.

    A run stopped at any moment is taken up at the first shard it did not finish; the bytes are then those of a
    run that was not stopped (on the same machine, with the same number of threads). Under a launcher of several
    processes each embeds its share of the shards; the bytes are those of one process.

    Parameters
    ----------
    backbone : Backbone
        A frozen retriever.
    items : sequence of Query or of Page
        N items with distinct ids.
    side : {"query", "page"}
        Which they are.
    folder : path
        The store's own folder.
    corpus_key : mapping
        What the items come from, as :func:`corpus_key` gives it.
    token_budget : int
        Tokens of a padded batch.
    shard_items : int
        Items of a shard, about.
    progress : bool
        Show a bar after two seconds.

    Returns
    -------
    EmbeddingStore
        layer_embeddings [N, L, D] in the order of `items`.

    Raises
    ------
    StoreError
        If the folder holds another store (the differing fields are named) or a damaged one (its file is named).
    NonFiniteError
        If a layer gives NaN or an infinity; names layer and item.
    OutOfMemoryError
        If one item alone does not fit into memory.
    """
    ids = item_ids(items, side)
    key = store_key(backbone, items, side, corpus_key=corpus_key, token_budget=token_budget, shard_items=shard_items)
    try:
        return open_store(folder, key)
    except UnfinishedStoreError as unfinished:
        logger.debug("%s", unfinished)
    encoded = backbone.prepare(items, side)
    shards = plan_shards(plan_batches([item.n_tokens for item in encoded], token_budget), shard_items)
    counts = {"empty": sum(item.empty for item in encoded), "truncated": sum(item.truncated for item in encoded)}
    here = processes()
    shape = (len(items), *backbone.layer_shape(side))
    if here.is_main:
        writer = StoreWriter(folder, key, ids, shape, counts)
    here.wait()
    if not here.is_main:
        writer = StoreWriter(folder, key, ids, shape, counts, tidy=False)
    positions = [[position for batch in batches for position in batch] for batches in shards]
    there = [writer.has(number, some) for number, some in enumerate(positions)]
    tokens = [sum(encoded[position].n_tokens for position in some) for some in positions]
    done = sum(count for count, is_there in zip(tokens, there, strict=True) if is_there)
    if any(there):
        logger.info("%s: %d of %d shards are there from an earlier run", folder, sum(there), len(shards))
    bar = tqdm(
        total=sum(tokens),
        initial=done,
        desc=f"{side} embeddings",
        unit="token",
        unit_scale=True,
        delay=2,
        disable=not (progress and here.is_main),
    )
    with bar:
        for number, batches in enumerate(shards):
            if not there[number] and here.takes(number):
                vectors = [_embed(backbone, [encoded[position] for position in batch], bar) for batch in batches]
                writer.write(number, positions[number], np.concatenate(vectors))
    here.wait()
    store = writer.finish(len(shards)) if here.is_main else None
    here.wait()
    return store if store is not None else open_store(folder, key, verify=False)


def extract_corpus(
    backbone: Backbone,
    corpus: Corpus,
    folder: Path | str,
    *,
    token_budget: int = TOKEN_BUDGET,
    shard_items: int = SHARD_ITEMS,
    progress: bool = True,
) -> CorpusStores:
    """Embed a corpus's queries and pages into ``folder/queries`` and ``folder/pages``; see :func:`extract`."""
    key, folder = corpus_key(corpus), Path(folder)
    options = {"corpus_key": key, "token_budget": token_budget, "shard_items": shard_items, "progress": progress}
    return CorpusStores(
        extract(backbone, corpus.queries, "query", folder / "queries", **options),  # type: ignore[arg-type]
        extract(backbone, corpus.pages, "page", folder / "pages", **options),  # type: ignore[arg-type]
    )


def embed_halving(backbone: Backbone, batch: Sequence[Encoded]) -> np.ndarray:
    """Embed a batch, in parts where memory does not suffice; see :func:`run_halving`. Return [B, L, D]."""
    parts = run_halving(backbone.embed, batch)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def run_halving(forward: Callable[[Sequence[Encoded]], Output], batch: Sequence[Encoded]) -> list[Output]:
    """Run a forward over a batch; where memory does not suffice, halve the batch and log that.

    Returns
    -------
    list
        The outputs of the parts, in order; one if the batch was not halved.

    Raises
    ------
    OutOfMemoryError
        If one item alone does not fit.
    """
    try:
        return [forward(batch)]
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise OutOfMemoryError(
                f"{batch[0].side} {batch[0].item_id!r} alone ({batch[0].n_tokens} tokens) does not fit into memory; "
                "lower --max-tokens or use a device with more"
            ) from error
    # Outside the except clause: the traceback of the failed forward would keep its tensors alive.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = (len(batch) + 1) // 2
    logger.warning("out of memory with %d items of %d tokens; the batch is halved", len(batch), batch[0].n_tokens)
    return run_halving(forward, batch[:half]) + run_halving(forward, batch[half:])


def _embed(backbone: Backbone, batch: Sequence[Encoded], bar: tqdm) -> np.ndarray:
    vectors = embed_halving(backbone, batch)
    finite = np.isfinite(vectors).all(axis=2)  # [B, L]
    if not finite.all():
        row, layer = (int(index) for index in np.argwhere(~finite)[0])
        raise NonFiniteError(
            f"layer {layer} of {backbone.name} is not finite for {batch[row].side} {batch[row].item_id!r} "
            f"({int((~finite).sum())} layer vectors of {finite.size} in its batch; dtype "
            f"{str(backbone.dtype).removeprefix('torch.')}). Try --dtype float32, or look at the item"
        )
    bar.update(sum(item.n_tokens for item in batch))
    return vectors


def item_ids(items: Sequence[Query] | Sequence[Page], side: Side) -> list[str]:
    """Return the items' ids.

    Raises
    ------
    ValueError
        If there is no item, an id stands twice, or the items are not that side's.
    """
    if not items:
        raise ValueError(f"items must hold at least one {side}; got none")
    ids = ids_of(items, side)
    if len(set(ids)) < len(ids):
        twice = next(one for number, one in enumerate(ids) if one in ids[:number])
        raise ValueError(f"{side} {twice!r} stands twice among the items; ids must be unique")
    return ids


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell memory running out from other runtime errors: torch has a class for GPUs and only words for CPUs."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
