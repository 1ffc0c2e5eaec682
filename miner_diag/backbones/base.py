"""The protocol that every frozen single-vector retriever follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from miner_diag.backbones.errors import BackboneError, CheckpointError, UnknownBackboneError
from miner_diag.backbones.options import POOLINGS, LoadOptions, LongPages, Pooling

if TYPE_CHECKING:
    import torch

    from miner_diag.corpus.core import Page, Query

__all__ = [
    "POOLINGS",
    "SIDES",
    "Backbone",
    "BackboneError",
    "CheckpointError",
    "Encoded",
    "KeptLayers",
    "OnePooling",
    "Pooling",
    "Side",
    "UnknownBackboneError",
    "check_side",
    "forward_key",
    "ids_of",
    "item_id",
]

Side = Literal["query", "page"]
"""Which side of the retrieval an item is on."""

SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True)
class Encoded:
    """One item, ready for the backbone: everything of it that the forward needs."""

    item_id: str
    """The id of the query or page."""
    side: Side
    """The side that the item was prepared for; that side's prompt is already in `inputs`."""
    inputs: Mapping[str, np.ndarray]
    """The model's inputs for this one item, without padding, as ``input_ids`` [T]."""
    n_tokens: int
    """The number of tokens that the backbone sees, special and visual ones included: the item's length in a batch."""
    prompt_tokens: int = 0
    """The number of leading tokens that are left out of the pooling; 0 where the prompt is pooled too."""
    closing_tokens: int = 0
    """The number of trailing tokens that are left out of the pooling."""
    windows: tuple[int, ...] = ()
    """The lengths of the windows that a long item is read in, in tokens; `inputs` holds them one behind the other, each
    with its prompt and special tokens. Empty for an item that is one input."""
    characters: int = 0
    """The number of characters of the item's text, prompt left out; 0 where that is not known."""
    characters_read: int = 0
    """How many of these characters lie before the cut; all of them where nothing was cut off."""
    truncated: bool = False
    """Whether the item was longer than the limit, so that its end was cut off."""
    empty: bool = False
    """Whether there was nothing to see: an empty query, or a page without text."""
    pixels: Callable[[], Mapping[str, np.ndarray]] | None = None
    """Draws and preprocesses the item's picture, called in the forward, so that no two batches' pixels are held
    together; None where no picture is looked at. Arrays of a batch are joined along their first axis."""


@dataclass(frozen=True)
class KeptLayers:
    """Which vectors of an item are kept from one forward, and which of them are its layers."""

    count: int
    """The number R of vectors that are kept."""
    layers: tuple[int, ...]
    """[L], the number of each layer's vector among them."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen retriever that hands out the pooled state of every layer.

    Layer 0 is the embedding output (the input of the first transformer block), layers 1 … n_layers - 1 are
    the blocks' outputs, layer n_layers is what the backbone retrieves with.
    """

    options: LoadOptions
    """The options that it was loaded with."""
    name: str
    """What tables call it: "page-text", or the folder's name."""
    revision: str
    """What pins the weights: "sha256:…" over the weight and configuration files of a local folder."""
    folder: Path | None
    """The folder whose files are all that is needed to load it again; None where there is no such folder, as for an
    adapter."""
    n_layers: int
    """The number of transformer blocks; there are ``L = n_layers + 1`` hidden states. A dual encoder gives that of its
    page encoder."""
    width: int
    """The width D of the hidden states. A dual encoder gives that of its page encoder."""
    pooling: Pooling
    """How token states become one vector: "last", "mean" or "cls". A dual encoder gives that of its page encoder."""
    query_prompt: str
    """What is put before a query; "" if nothing."""
    page_prompt: str
    """What is put before a page's text; "" if nothing."""
    dtype: torch.dtype
    """The precision of the forward; pooled vectors are float32 in any case."""
    device: torch.device
    """Where the forward runs."""
    last_layer: str
    """A sentence: what layer L is, and that the backbone retrieves with it."""
    long_pages: LongPages | None
    """What is done with pages and queries beyond the limit; None where only one way is there."""
    shared_layers: bool
    """Whether both sides pass the same layers, so that layer l of a query and layer l of a page correspond. False for a
    dual encoder, whose layers must not be paired."""

    def layer_shape(self, side: Side) -> tuple[int, int]:
        """Return (L, D) of a side; both sides have the same where layers are shared."""
        ...

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything of the backbone that changes a number of that side (of either side if None)."""
        ...

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items ready for :meth:`embed`, in their order, cut at the backbone's limit."""
        ...

    def texts_read(self, pages: Sequence[Page]) -> list[str] | None:
        """Return what the backbone reads of each page as text, cut where it cuts; None where it looks at pictures."""
        ...

    def kept(self, side: Side) -> KeptLayers:
        """Return which vectors of an item of that side are kept, and which of them are its layers."""
        ...

    def embed(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Run one forward; return layer_embeddings [B, L, D], float32, pooled inside the forward."""
        ...

    def embed_kept(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Run one forward; return all vectors that are kept of it [B, R, D], float32."""
        ...

    def embed_chosen(self, batch: Sequence[Encoded], layers: Sequence[int]) -> np.ndarray:
        """Run one forward as far as the highest of these layers; return them [B, K, D] as :meth:`embed` does."""
        ...


class OnePooling:
    """What retrievers share whose layers are pooled in one way: an item's layers are all that is kept of it."""

    def kept(self: Any, side: Side) -> KeptLayers:
        """Return that each vector that is kept is a layer."""
        n_layers, _ = self.layer_shape(side)
        return KeptLayers(n_layers, tuple(range(n_layers)))

    def embed_kept(self: Any, batch: Sequence[Encoded]) -> np.ndarray:
        """Return what :meth:`embed` returns."""
        return self.embed(batch)

    def embed_chosen(self: Any, batch: Sequence[Encoded], layers: Sequence[int]) -> np.ndarray:
        """Return these layers of what :meth:`embed` returns."""
        return self.embed(batch)[:, list(layers)]


def forward_key(backbone: Any) -> dict[str, str]:
    """Return what changes a number of any transformers model's forward: the part that all keys share."""
    import torch

    model = backbone.model
    # only where it was run, so that the keys of all other stores stay as they were
    remote = {"remote_code": "run"} if backbone.options.trust_remote_code else {}
    return remote | {
        "backbone": backbone.name,
        "backbone_revision": backbone.revision,
        "architecture": type(model).__name__,
        "attention": str(getattr(model.config, "_attn_implementation", "unknown")),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": backbone.device.type,
        "transformers": metadata.version("transformers"),
        "torch": torch.__version__,
    }


def check_side(side: str) -> None:
    """Check that `side` is one of the two.

    Raises
    ------
    BackboneError
        If it is not.
    """
    if side not in SIDES:
        raise BackboneError(f"side must be one of {', '.join(SIDES)}; got {side!r}")


def item_id(item: Query | Page, side: Side) -> str:
    """Return the id of an item of that side.

    Raises
    ------
    BackboneError
        If the item is of the other side.
    """
    identifier = getattr(item, f"{side}_id", None)
    if identifier is None:
        raise BackboneError(f"side is {side!r}, so items must have a {side}_id; got a {type(item).__name__}")
    return str(identifier)


def ids_of(items: Sequence[Query] | Sequence[Page], side: Side) -> list[str]:
    """Return the items' ids.

    Raises
    ------
    BackboneError
        If `side` is unknown, or an item is not of that side.
    """
    check_side(side)
    return [item_id(item, side) for item in items]
