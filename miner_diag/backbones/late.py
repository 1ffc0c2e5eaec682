"""Late-interaction retrievers: a vector for every token instead of one for the item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from miner_diag.backbones.base import BackboneError, Encoded, Side
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.options import KeptTokens, LoadOptions, LongPages
from miner_diag.backbones.windows import window_batches

if TYPE_CHECKING:
    import torch

    from miner_diag.corpus.core import Page, Query


@runtime_checkable
class LateBackbone(Protocol):
    """A frozen retriever that hands out a vector per token; a page's score is MaxSim over them."""

    options: LoadOptions
    """The options that it was loaded with."""
    name: str
    """What tables call it: "page-text-late", or the folder's name."""
    revision: str
    """What pins the weights: "sha256:…" over the weight and configuration files."""
    width: int
    """The width D of a token vector."""
    long_pages: LongPages | None
    """What is done with pages and queries beyond the limit; None where only one way is there."""
    dtype: torch.dtype
    """The precision of the forward; token vectors are float32 in any case."""
    device: torch.device
    """Where the forward runs."""
    last_layer: str
    """A sentence: what the token vectors are, and which tokens have one."""

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything of the backbone that changes a number of that side (of either side if None)."""
        ...

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items ready for :meth:`embed_tokens`, in their order; pictures make them large, so a few at once.

        An item's inputs do not depend on the others'.
        """
        ...

    def embed_tokens(self, batch: Sequence[Encoded]) -> list[np.ndarray]:
        """Run one forward; return an array [T_i, D] an item, float32, rows of unit length, at least one row."""
        ...


class TokenStates(Protocol):
    """A backbone whose last layer can be had token by token; what :class:`LastLayerTokens` wraps."""

    revision: str
    n_layers: int
    width: int
    long_pages: LongPages | None
    dtype: torch.dtype
    device: torch.device

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything that changes a number."""
        ...

    def prepare(self, items: Any, side: Side) -> list[Encoded]:
        """Return the items ready for the forward."""
        ...

    def token_states(self, batch: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the last layer [B, T, D], a mask [B, T] of all tokens and one of those of the items' own content."""
        ...


class LastLayerTokens:
    """The late-interaction partner of a single-vector backbone: the same forward, its last layer not pooled.

    Preparation (texts, prompts, limits) is the backbone's own, so both see the same input. An item without a token of
    its own (an empty page under "text") keeps all its tokens, special ones included.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its name is what tables call this; its options say which tokens take part: those of the text if nothing is said,
        which was not worse than all on the validation split of debian-docs-small, on hidden and on verbatim queries.
    encoder : TokenStates
        What runs, as a :class:`~miner_diag.backbones.text_encoder.TextEncoder`.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: TokenStates) -> None:
        self.options, self.name, self.encoder = checkpoint.options, checkpoint.name, encoder
        self.kept_tokens: KeptTokens = checkpoint.options.kept_tokens or "text"
        self.revision, self.width, self.long_pages = encoder.revision, encoder.width, encoder.long_pages
        self.dtype, self.device = encoder.dtype, encoder.device
        which = "all tokens, special ones included" if self.kept_tokens == "all" else "the tokens of its own text"
        self.last_layer = (
            f"Token vectors are the states of layer {encoder.n_layers}, L2-normalised; an item has {which}."
        )

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything that changes a number of `side` (of either side if None)."""
        key = {
            name: value
            for name, value in self.encoder.key(side).items()
            if name not in ("pooling", "layer_pooling", "prompt_pooled", "window_pooling")
        }
        return key | {"backbone": self.name, "kept_tokens": self.kept_tokens}

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items as the backbone prepares them."""
        return self.encoder.prepare(items, side)

    def embed_tokens(self, batch: Sequence[Encoded]) -> list[np.ndarray]:
        """Pass every token once; return [T_i, D] float32 of each item, all windows of an item one behind the other."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        tokens: list[np.ndarray] = []
        for windows in window_batches(batch):
            states, seen, own = self.encoder.token_states(windows)
            if self.kept_tokens == "text":
                seen = seen & (own | ~own.any(dim=1, keepdim=True))
            tokens += unit_tokens(states, seen)
        each = iter(tokens)
        return [np.concatenate([next(each) for _ in range(len(item.windows) or 1)]) for item in batch]


def unit_tokens(states: torch.Tensor, mask: torch.Tensor) -> list[np.ndarray]:
    """Return each item's token vectors [T_i, D], L2-normalised in float32; a state of zeros stays so.

    Parameters
    ----------
    states : Tensor [B, T, D]
        Token states.
    mask : Tensor [B, T]
        True where a token takes part.
    """
    from torch.nn.functional import normalize

    vectors = normalize(states.float(), dim=-1)
    return [item[kept].cpu().numpy() for item, kept in zip(vectors, mask.bool(), strict=True)]


def late_text_encoder(checkpoint: Checkpoint) -> LastLayerTokens:
    """Return the late-interaction partner of a text encoder.

    Nothing is pooled here, so a checkpoint that states no pooling is taken as if it stated the mean.
    """
    from miner_diag.backbones.pipeline import read_pipeline
    from miner_diag.backbones.text_encoder import TextEncoder

    pooling = read_pipeline(checkpoint.folder).pooling or "mean"
    options = replace(checkpoint.options, pooling=pooling)
    return LastLayerTokens(checkpoint, TextEncoder(replace(checkpoint, options=options)))


def late_page_vision(checkpoint: Checkpoint) -> LastLayerTokens:
    """Return the late-interaction partner of ``page-vision``."""
    from miner_diag.backbones.page_vision.backbone import load_page_vision

    return LastLayerTokens(checkpoint, load_page_vision(checkpoint))
