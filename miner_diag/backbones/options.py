"""What a user may say about the retriever that is to be loaded; importing this loads no model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pooling = Literal["last", "mean", "cls"]
"""How token states become one vector: the last token's, the mean over tokens, the first token's."""

ReaderKind = Literal["text-layer", "ocr", "auto"]
"""The text layer as it is; every page's picture through RapidOCR; the picture only where there is no text."""

KeptTokens = Literal["all", "text"]
"""Which tokens take part in late interaction: all that the forward sees, or those of the item's own text, without
special tokens and prompt."""


@dataclass(frozen=True)
class LoadOptions:
    """Which retriever is loaded, and what overrules its own settings.

    An option that is left at None (or at "auto" for the device and the dtype) leaves the retriever as its authors made
    it. Each retriever declares which of these options it honours; one that it does not honour is refused.
    """

    model: str = "page-text"
    """The retriever: page-text, page-vision (reads the page's picture), a local folder of a checkpoint, or a hub id
    (miner-diag backbones lists known ones)."""
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
    reader: ReaderKind | None = None
    """Where a page's text comes from: its text layer (text-layer), its picture (ocr), or the picture where the page has
    no text layer (auto, which is used if this is not given)."""
    kept_tokens: KeptTokens | None = None
    """Which tokens take part in late interaction: those of the item's own text (text, which is used if this is not
    given) or all, special tokens and prompt included."""
    device: str = "auto"
    """Where the forward runs: auto (a GPU where there is one), cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The precision of the forward; auto is float32, and bfloat16 for vision-language models on a GPU. Pooled vectors
    are float32 in any case."""
    max_tokens: int | None = None
    """The longest input in tokens, instead of the checkpoint's own limit."""
    max_pixels: int | None = None
    """The largest picture of a page in pixels, instead of the checkpoint's own budget."""
    query_prompt: str | None = None
    """The prompt of queries, instead of the checkpoint's own."""
    page_prompt: str | None = None
    """The prompt of pages, instead of the checkpoint's own."""
    trust_remote_code: bool = False
    """Run Python code that a checkpoint brings along, with your rights."""
