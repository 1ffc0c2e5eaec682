"""Late-interaction retrievers: a vector for every token instead of one for the item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from miner_diag.backbones.base import BackboneError, Encoded, Side

if TYPE_CHECKING:
    import torch

    from miner_diag.corpus.core import Page, Query

Kept = Literal["all", "text"]
"""Which tokens take part: all the forward sees, or those of the item's own text, without special tokens and prompt."""


@runtime_checkable
class LateBackbone(Protocol):
    """A frozen retriever that hands out a vector per token; a page's score is MaxSim over them."""

    name: str
    """As it is called in tables: "page-text-late", or the folder's name."""
    revision: str
    """What pins the weights: "sha256:…" over the weight and configuration files."""
    width: int
    """Width D of a token vector."""
    dtype: torch.dtype
    """Of the forward; token vectors are float32 whatever it is."""
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
        As it is called in tables; the backbone's with "-late" if not given.
    keep : {"all", "text"}
        Which tokens take part.

    Raises
    ------
    BackboneError
        If `keep` is unknown.
    """

    def __init__(self, backbone: TokenStates, *, name: str | None = None, keep: Kept = "all") -> None:
        if keep not in get_args(Kept):
            raise BackboneError(f"keep must be one of {', '.join(get_args(Kept))}; got {keep!r}")
        self.backbone = backbone
        self.keep = keep
        self.name = f"{backbone.name}-late" if name is None else name
        self.revision, self.width = backbone.revision, backbone.width
        self.dtype, self.device = backbone.dtype, backbone.device
        which = "all tokens, special ones included" if keep == "all" else "the tokens of its own text"
        self.last_layer = (
            f"Token vectors are the states of layer {backbone.n_layers}, L2-normalised; an item has {which}."
        )

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything that changes a number of `side` (of either side if None)."""
        key = {
            name: value for name, value in self.backbone.key(side).items() if name not in ("pooling", "prompt_pooled")
        }
        return key | {"backbone": self.name, "kept_tokens": self.keep}

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items as the backbone prepares them."""
        return self.backbone.prepare(items, side)

    def embed_tokens(self, batch: Sequence[Encoded]) -> list[np.ndarray]:
        """Run one forward; return [T_i, D] float32 of each item."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        states, seen, own = self.backbone.token_states(batch)
        if self.keep == "text":
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
    return [item[keep].cpu().numpy() for item, keep in zip(vectors, mask.bool(), strict=True)]
