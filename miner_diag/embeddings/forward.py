"""One forward per item: every layer pooled, or every token kept, for the items of one shard."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from miner_diag.backbones.base import Backbone, Encoded, Side
from miner_diag.backbones.late import LateBackbone
from miner_diag.corpus.core import Page, Query
from miner_diag.embeddings.batching import plan_batches
from miner_diag.embeddings.shards import EMPTY, TRUNCATED

logger = logging.getLogger(__name__)

Output = TypeVar("Output")


class NonFiniteError(ValueError):
    """A layer or a token vector holds NaN or an infinity."""


class OutOfMemoryError(ValueError):
    """A single item does not fit into memory."""


def embed_layers(
    backbone: Backbone,
    items: Sequence[Query] | Sequence[Page],
    side: Side,
    token_budget: int,
    advance: Callable[[int], object],
) -> dict[str, np.ndarray]:
    """Run every item through a retriever once and pool each layer, in both ways where the retriever has two.

    Batches are made of these items alone, of like length.

    Parameters
    ----------
    backbone : Backbone
        A frozen retriever.
    items : sequence of Query or of Page
        The n items of a shard.
    side : {"query", "page"}
        Which they are.
    token_budget : int
        The largest number of tokens in a padded batch.
    advance : callable
        Takes the number of items after each batch.

    Returns
    -------
    dict
        "layer_embeddings" [n, R, D] float32, "notes" [n] int64, "characters" [n, 2] int64, "inputs" [n] int64.

    Raises
    ------
    NonFiniteError
        If a layer gives NaN or an infinity; the layer and the item are named.
    OutOfMemoryError
        If one item alone does not fit into memory.
    """
    encoded = backbone.prepare(items, side)
    return {
        "layer_embeddings": pool_layers(backbone, encoded, side, token_budget, advance),
        "notes": notes_of(encoded),
        "characters": characters_of(encoded),
        "inputs": np.array([input_hash(items[row], read) for row, read in enumerate(encoded)], dtype=np.int64),
    }


def pool_layers(
    backbone: Backbone,
    encoded: Sequence[Encoded],
    side: Side,
    token_budget: int,
    advance: Callable[[int], object],
    chosen: Sequence[int] | None = None,
) -> np.ndarray:
    """Run prepared items through a retriever once and pool each layer, or those that are chosen; as `embed_layers`.

    Parameters
    ----------
    chosen : sequence of int, optional
        The layers that are pooled, in this order; no block above the highest of them is run.

    Returns
    -------
    ndarray [n, R, D] or [n, K, D]
        float32: all that is kept of an item, or the chosen layers.
    """
    kept, width = _kept_shape(backbone, side)
    vectors = np.empty((len(encoded), kept if chosen is None else len(chosen), width), dtype=np.float32)

    def embed(members: Sequence[Encoded]) -> np.ndarray:
        return backbone.embed_kept(members) if chosen is None else backbone.embed_chosen(members, chosen)

    for batch in plan_batches([item.n_tokens for item in encoded], token_budget):
        members = [encoded[position] for position in batch]
        layers = embed_halving(embed, members)
        _check_layers(backbone, members, layers, chosen)
        vectors[batch] = layers
        advance(len(batch))
    return vectors


def embed_token_vectors(
    backbone: LateBackbone,
    items: Sequence[Query] | Sequence[Page],
    side: Side,
    token_budget: int,
    stored_dtype: str,
    advance: Callable[[int], object],
) -> dict[str, np.ndarray]:
    """Run every item through a late-interaction retriever once and keep each token; as :func:`embed_layers`.

    Returns
    -------
    dict
        "lengths" [n] int64, "notes" [n] int64, "characters" [n, 2] int64, and "token_vectors" [sum of lengths, D] in
        `stored_dtype`, without padding.
    """
    encoded = backbone.prepare(items, side)
    vectors: list[np.ndarray] = [np.empty(0)] * len(encoded)
    for batch in plan_batches([item.n_tokens for item in encoded], token_budget):
        members = [encoded[position] for position in batch]
        outputs = [tokens for part in run_halving(backbone.embed_tokens, members) for tokens in part]
        for position, item, tokens in zip(batch, members, outputs, strict=True):
            _check_tokens(backbone, item, tokens)
            vectors[position] = tokens
        advance(len(batch))
    return {
        "lengths": np.array([len(item) for item in vectors], dtype=np.int64),
        "notes": notes_of(encoded),
        "characters": characters_of(encoded),
        "token_vectors": np.concatenate(vectors).astype(stored_dtype),
    }


def notes_of(encoded: Sequence[Encoded]) -> np.ndarray:
    """Return what is noted of each item, [n] int64: the bits of `EMPTY` and `TRUNCATED`."""
    return np.array([EMPTY * item.empty + TRUNCATED * item.truncated for item in encoded], dtype=np.int64)


def characters_of(encoded: Sequence[Encoded]) -> np.ndarray:
    """Return how many characters of each item were read, and how many its text has, [n, 2] int64; 0 if not known."""
    return np.array([(item.characters_read, item.characters) for item in encoded], dtype=np.int64).reshape(-1, 2)


def input_hash(item: Query | Page, encoded: Encoded) -> int:
    """Return a hash of what the forward gets of an item, 64 bits: equal for items that a retriever cannot tell apart.

    A picture is not drawn for it: pages that look the same are equal, but for those from which words are taken out.
    """
    sha256 = hashlib.sha256(repr(encoded.windows).encode())
    for name, array in sorted(encoded.inputs.items()):
        sha256.update(f"{name} {array.dtype} {array.shape}".encode())
        sha256.update(array.tobytes())
    if encoded.pixels is not None and isinstance(item, Page):
        sha256.update((item.page_id if item.words_hidden else item.page_hash).encode())
    return int.from_bytes(sha256.digest()[:8], "little", signed=True)


def embed_halving(embed: Callable[[Sequence[Encoded]], np.ndarray], batch: Sequence[Encoded]) -> np.ndarray:
    """Embed a batch, in parts where memory does not suffice; see :func:`run_halving`. Return what `embed` does."""
    parts = run_halving(embed, batch)
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


def _kept_shape(backbone: Backbone, side: Side) -> tuple[int, int]:
    """Return (R, D): how many vectors of an item are kept, and their width."""
    return backbone.kept(side).count, backbone.layer_shape(side)[1]


def _check_layers(
    backbone: Backbone, batch: Sequence[Encoded], layers: np.ndarray, chosen: Sequence[int] | None
) -> None:
    n_kept, width = _kept_shape(backbone, batch[0].side)
    expected = (len(batch), n_kept if chosen is None else len(chosen), width)
    if layers.shape != expected or layers.dtype != np.float32:
        raise ValueError(
            f"layer embeddings must be float32 {list(expected)}; {backbone.name} gave {layers.dtype} "
            f"{list(layers.shape)} for {batch[0].side} {batch[0].item_id!r} and its batch"
        )
    finite = np.isfinite(layers).all(axis=2)  # [B, R]
    if not finite.all():
        row, kept = (int(index) for index in np.argwhere(~finite)[0])
        n_layers = backbone.layer_shape(batch[0].side)[0]  # behind the layers come inner ones in another pooling
        layer = kept % n_layers if chosen is None else chosen[kept]
        raise NonFiniteError(
            f"layer {layer} of {backbone.name} is not finite for {batch[row].side} {batch[row].item_id!r} "
            f"({int((~finite).sum())} layer vectors of {finite.size} in its batch; dtype "
            f"{str(backbone.dtype).removeprefix('torch.')}). Try --dtype float32, or look at the item"
        )


def _check_tokens(backbone: LateBackbone, item: Encoded, tokens: np.ndarray) -> None:
    expected = tokens.ndim == 2 and len(tokens) and tokens.shape[1] == backbone.width and tokens.dtype == np.float32
    if not expected:
        raise ValueError(
            f"token vectors must be float32 [tokens, {backbone.width}], at least one token; {backbone.name} gave "
            f"{tokens.dtype} {list(tokens.shape)} for {item.side} {item.item_id!r}"
        )
    if not np.isfinite(tokens).all():
        token = int(np.argmin(np.isfinite(tokens).all(axis=1)))
        raise NonFiniteError(
            f"token {token} of {item.side} {item.item_id!r} is not finite in {backbone.name} (dtype "
            f"{str(backbone.dtype).removeprefix('torch.')}). Try --dtype float32, or look at the item"
        )


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell memory running out from other runtime errors: torch has a class for GPUs and only words for CPUs."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
