"""Late-interaction retrievers: a vector for every token instead of one for the item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

import numpy as np

from miner_diag.backbones.base import BackboneError, Encoded, Side
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.options import KeptTokens, LoadOptions

if TYPE_CHECKING:
    import torch

    from miner_diag.corpus.core import Page, Query


@runtime_checkable
class LateBackbone(Protocol):
    """A frozen retriever that hands out a vector per token; a page's score is MaxSim over them."""

    options: LoadOptions
    """What it was loaded with."""
    name: str
    """What tables call it: "page-text-late", or the folder's name."""
    revision: str
    """What pins the weights: "sha256:…" over the weight and configuration files."""
    width: int
    """Width D of a token vector."""
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
        """Return the items ready for :meth:`embed_tokens`, in their order; pictures make them large, so some at once.

        An item's inputs do not depend on the others'.
        """
        ...

    def embed_tokens(self, batch: Sequence[Encoded]) -> list[np.ndarray]:
        """Run one forward; return an array [T_i, D] an item, float32, rows of unit length, at least one row."""
        ...


class TokenStates(Protocol):
    """A backbone whose last layer can be had token by token; what :class:`LastLayerTokens` wraps."""

    options: LoadOptions
    name: str
    revision: str
    n_layers: int
    width: int
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
    backbone : TokenStates
        What runs; a :class:`~miner_diag.backbones.text_encoder.TextEncoder` is one.
    name : str, optional
        What tables call it; the backbone's with "-late" if not given.
    kept_tokens : {"all", "text"}
        Which tokens take part.

    Raises
    ------
    BackboneError
        If `kept_tokens` is unknown.
    """

    def __init__(self, backbone: TokenStates, *, name: str | None = None, kept_tokens: KeptTokens = "all") -> None:
        if kept_tokens not in get_args(KeptTokens):
            raise BackboneError(f"kept_tokens must be one of {', '.join(get_args(KeptTokens))}; got {kept_tokens!r}")
        self.backbone, self.options = backbone, backbone.options
        self.kept_tokens = kept_tokens
        self.name = f"{backbone.name}-late" if name is None else name
        self.revision, self.width = backbone.revision, backbone.width
        self.dtype, self.device = backbone.dtype, backbone.device
        which = "all tokens, special ones included" if kept_tokens == "all" else "the tokens of its own text"
        self.last_layer = (
            f"Token vectors are the states of layer {backbone.n_layers}, L2-normalised; an item has {which}."
        )

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything that changes a number of `side` (of either side if None)."""
        key = {
            name: value for name, value in self.backbone.key(side).items() if name not in ("pooling", "prompt_pooled")
        }
        return key | {"backbone": self.name, "kept_tokens": self.kept_tokens}

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items as the backbone prepares them."""
        return self.backbone.prepare(items, side)

    def embed_tokens(self, batch: Sequence[Encoded]) -> list[np.ndarray]:
        """Run one forward; return [T_i, D] float32 of each item."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        states, seen, own = self.backbone.token_states(batch)
        if self.kept_tokens == "text":
            seen = seen & (own | ~own.any(dim=1, keepdim=True))
        return unit_tokens(states, seen)


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


def late_page_text(checkpoint: Checkpoint) -> LastLayerTokens:
    """Return the late-interaction partner of ``page-text``: the same text, the same forward, its tokens not pooled."""
    from miner_diag.backbones.page_text import NAME, load_text_encoder

    return _partner(load_text_encoder(replace(checkpoint, name=NAME)), checkpoint.options)


def late_page_vision(checkpoint: Checkpoint) -> LastLayerTokens:
    """Return the late-interaction partner of ``page-vision``."""
    from miner_diag.backbones.page_vision.backbone import NAME, load_page_vision

    return _partner(load_page_vision(replace(checkpoint, name=NAME)), checkpoint.options)


def late_text_encoder(checkpoint: Checkpoint) -> LastLayerTokens:
    """Return the late-interaction partner of a text encoder in a folder.

    Nothing is pooled here, so a checkpoint that states no pooling is taken as if it stated the mean.
    """
    from miner_diag.backbones.page_text import load_text_encoder
    from miner_diag.backbones.pipeline import read_pipeline

    pooling = read_pipeline(checkpoint.folder).pooling or "mean"
    loaded = load_text_encoder(replace(checkpoint, options=replace(checkpoint.options, pooling=pooling)))
    return _partner(loaded, checkpoint.options)


def _partner(backbone: TokenStates, options: LoadOptions) -> LastLayerTokens:
    # "text" was settled on the validation split of debian-docs-small: not worse on hidden or verbatim queries
    partner = LastLayerTokens(backbone, kept_tokens=options.kept_tokens or "text")
    partner.options = options
    return partner
