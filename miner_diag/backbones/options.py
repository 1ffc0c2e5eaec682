"""What a user may say about the retriever that is to be loaded; importing this loads no model library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from miner_diag.backbones.errors import BackboneError

Pooling = Literal["last", "mean", "cls"]
"""How token states become one vector: the last token's, the mean over tokens, the first token's."""

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

ReaderKind = Literal["text-layer", "ocr", "auto"]
"""The text layer as it is; every page's picture through RapidOCR; the picture only where there is no text."""

KeptTokens = Literal["all", "text"]
"""Which tokens take part in late interaction: all that the forward sees, or those of the item's own text, without
special tokens and prompt."""

LongPages = Literal["truncate", "windows"]
"""What is done with an item beyond the limit: its end is cut off, or it is read in windows as long as the limit."""

WindowPooling = Literal["tokens", "windows"]
"""How the pooled vectors of windows become one: weighted by their pooled tokens, or all alike."""

LayerPooling = Literal["readout", "mean"]
"""How the inner layers of a retriever that reads one token become one vector: that token's state, or the mean over all
tokens."""

Protocol = Literal["authors", "mteb"]
"""The authors' recipe, or what the runs of the public leaderboard (the library mteb) do."""

Dtype = Literal["auto", "float32", "bfloat16"]
"""The precision of the forward."""


@dataclass(frozen=True)
class LoadOptions:
    """Which retriever is loaded, and what overrules its own settings.

    An option that is left at None (or at "auto" for the device and the dtype) leaves the retriever as its authors made
    it. Each retriever declares which of these options it honours; one that it does not honour is refused.
    """

    model: str = "page-text"
    """The retriever: page-text, page-text-bge (12 layers; fetched once), page-vision (reads the page's picture), a
    local folder of a checkpoint, or a hub id (miner-diag backbones lists known ones)."""
    model_family: str | None = None
    """The family of a checkpoint whose files do not say which retriever it is: one of those that miner-diag backbones
    lists, or text."""
    revision: str | None = None
    """The commit hash of a hub id; a known checkpoint's own hash is used if this is not given."""
    base_model: str | None = None
    """The folder or hub id of the model that an adapter belongs to; the one that its files name is used if this is not
    given."""
    pooling: Pooling | None = None
    """How token states become one vector, for a checkpoint whose files do not state it."""
    layer_pooling: LayerPooling | None = None
    """How the inner layers of a retriever that reads one token (cls or last pooling) become one vector: readout reads
    that token in every layer (used if this is not given), mean takes the mean over all tokens in inner layers. The
    final layer is read from the token either way. The store keeps both, so that neither needs a second pass."""
    reader: ReaderKind | None = None
    """Where a page's text comes from: its text layer (text-layer), its picture (ocr), or the picture where the page has
    no text layer (auto, which is used if this is not given)."""
    kept_tokens: KeptTokens | None = None
    """Which tokens take part in late interaction: those of the item's own text (text, which is used if this is not
    given) or all, special tokens and prompt included."""
    device: str = "auto"
    """Where the forward runs: auto (a GPU where there is one), cpu, cuda or cuda:N."""
    dtype: Dtype = "auto"
    """The precision of the forward; auto is float32, and bfloat16 for vision-language models on a GPU. Pooled vectors
    are float32 in any case."""
    max_tokens: int | None = None
    """The longest input in tokens, instead of the checkpoint's own limit; with windows, the length of a window."""
    long_pages: LongPages | None = None
    """What is done with pages and queries that are longer than the limit: windows reads all of them in windows as long
    as the limit, truncate cuts their end off. The embedded retrievers read in windows, a checkpoint truncates as its
    authors let it, if this is not given."""
    window_overlap: int | None = None
    """How many tokens a window shares with the one before it; 0 if this is not given."""
    window_pooling: WindowPooling | None = None
    """How the windows of an item become one vector in every layer: tokens weighs them by their tokens, so that mean
    pooling is the mean over all tokens of all windows (used if this is not given); windows weighs them alike."""
    max_pixels: int | None = None
    """The largest picture of a page in pixels, instead of the checkpoint's own budget."""
    protocol: Protocol = "authors"
    """Whose prompts, pixels and closing tokens are used: those of the checkpoint's authors, or those of the public
    leaderboard's runs (mteb), so that a number can be held against a published one. Prompts and pixels that are given
    overrule both."""
    query_prompt: str | None = None
    """The prompt of queries, instead of the checkpoint's own."""
    page_prompt: str | None = None
    """The prompt of pages, instead of the checkpoint's own."""
    trust_remote_code: bool = False
    """Run Python code that a checkpoint brings along, with your rights."""

    def __post_init__(self) -> None:
        """Check each value by itself; whether a retriever honours it is checked when it is loaded."""
        if not DEVICE.fullmatch(self.device):
            raise BackboneError(f"device must be auto, cpu, cuda or cuda:N; got {self.device!r}")
        if not self.model:
            raise BackboneError("model must name a retriever; got an empty name (miner-diag backbones lists them)")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise BackboneError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        for name in ("max_tokens", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BackboneError(f"{name} must be at least 1; got {value}")
        if self.window_overlap is not None and self.window_overlap < 0:
            raise BackboneError(f"window_overlap must be at least 0 tokens; got {self.window_overlap}")

    def given(self) -> Mapping[str, Any]:
        """Return the options that differ from their defaults, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {field.name: values[field.name] for field in fields(self) if values[field.name] != field.default}


DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
"""What a device can be."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "pooling": POOLINGS,
    "layer_pooling": get_args(LayerPooling),
    "reader": get_args(ReaderKind),
    "kept_tokens": get_args(KeptTokens),
    "long_pages": get_args(LongPages),
    "window_pooling": get_args(WindowPooling),
    "protocol": get_args(Protocol),
    "dtype": get_args(Dtype),
}
"""The values of those options that have a few."""

OPTION_NAMES = frozenset(field.name for field in fields(LoadOptions))
"""The name of every loading option."""


def flag_of(option: str) -> str:
    """Return an option as it stands on the command line: ``--max-pixels`` for ``max_pixels``."""
    return f"--{option.replace('_', '-')}"
