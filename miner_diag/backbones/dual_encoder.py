"""Dual encoders: queries pass a query encoder, page pictures a page encoder; only the last layers share a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from miner_diag.backbones.base import (
    SIDES,
    BackboneError,
    Encoded,
    OnePooling,
    Pooling,
    Side,
    check_side,
    forward_key,
    item_id,
)
from miner_diag.backbones.batches import join_pixels, pad_batch
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.hooks import find_blocks, pooled_forward
from miner_diag.backbones.loading import choose_device, load_image_processor, load_model, load_tokenizer
from miner_diag.backbones.pooling import Pooler
from miner_diag.backbones.revision import folder_revision
from miner_diag.backbones.settings import check_room, choose_dtype, limit_within

if TYPE_CHECKING:
    from miner_diag.corpus.core import Page, Query

MOST_STRETCHED = 4
"""The longer side of a drawn page is at most this many times the shorter one, which the page encoder sees."""


class DualEncoder(OnePooling):
    """A dual encoder. Each side has its own layers, depth and width; ``layer_shape(side)`` tells.

    Layer l of the query encoder and layer l of the page encoder are different things and must not be paired. The last
    layer of either side is the embedding behind that encoder's own head, the only one that both sides share. Inner
    layers are pooled as the head reads them: at the token it reads, or over all patches where it attends to all. Where
    the embedding is narrower or wider than the hidden states, the narrower rows are filled with zeros, which moves no
    cosine, no CKA and no rank.

    Parameters
    ----------
    checkpoint : Checkpoint
        The folder with weights, tokenizer and image processor, and what overrules them.
    """

    family: ClassVar[str]
    """The family's name, as ``--model-family`` takes it."""
    image_processor_class: ClassVar[str]
    """The name of the transformers class that is pinned for this family."""
    poolings: ClassVar[dict[str, Pooling]]
    """How inner layers of each side are pooled."""
    heads: ClassVar[dict[str, str]]
    """What stands between the last block and the embedding of each side."""
    long_pages = None
    shared_layers = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        options = checkpoint.options
        self.checkpoint, self.options, self.folder = checkpoint, options, checkpoint.folder
        self.name, self.pictures = checkpoint.name, checkpoint.pictures
        self.device = choose_device(options.device, self.name)
        self.dtype = choose_dtype(options.dtype, self.device, self.name)
        self.query_prompt, self.page_prompt = options.query_prompt or "", ""
        folder, trusted = checkpoint.folder, options.trust_remote_code
        self.tokenizer = load_tokenizer(folder, trust_remote_code=trusted)
        self.image_processor = load_image_processor(self.image_processor_class, folder)
        self.model = load_model(folder, dtype=self.dtype, device=self.device, trust_remote_code=trusted)
        self.revision = folder_revision(folder)
        self.encoders: dict[str, Any] = {"query": self.model.text_model, "page": self.model.vision_model}
        self._depths = {side: int(encoder.config.num_hidden_layers) for side, encoder in self.encoders.items()}
        self._blocks = {side: find_blocks(encoder, self._depths[side]) for side, encoder in self.encoders.items()}
        self.embedding_width = self.width_of_embedding()
        self._widths = {
            side: max(int(encoder.config.hidden_size), self.embedding_width) for side, encoder in self.encoders.items()
        }
        self.n_layers, self.width, self.pooling = self._depths["page"], self._widths["page"], self.poolings["page"]
        positions = int(self.encoders["query"].config.max_position_embeddings)
        self._limit = limit_within(options.max_tokens, positions, positions)
        check_room(self._limit, self.tokenizer)
        layers = "; ".join(
            f"layer {self._depths[side]} of {items} is the embedding of width {self.embedding_width} behind "
            f"{self.heads[side]}"
            for side, items in (("query", "queries"), ("page", "pages"))
        )
        self.last_layer = (
            f"{self.name} is a dual encoder and retrieves with the last layers of both encoders: {layers}."
        )

    def width_of_embedding(self) -> int:
        """Return the width of the shared space."""
        raise NotImplementedError

    def head(self, output: Any, side: Side) -> torch.Tensor:
        """Return the embedding [B, E] of an encoder's output."""
        return output.pooler_output

    def layer_shape(self, side: Side) -> tuple[int, int]:
        """Return (L, D) of a side's encoder."""
        check_side(side)
        return self._depths[side] + 1, self._widths[side]

    def max_tokens(self, side: Side) -> int:
        """Return the limit of queries in tokens."""
        check_side(side)
        return self._limit

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything of the backbone that changes a number of `side` (of either side if None)."""
        key = forward_key(self) | {"family": self.family}
        for one in SIDES if side is None else (side,):
            check_side(one)
            key[f"{one}_pooling"] = f"{self.poolings[one]}, last layer behind {self.heads[one]}"
        if side != "page":
            key |= {
                "query_prompt": self.query_prompt,
                "query_max_tokens": str(self._limit),
                "tokenizer": type(self.tokenizer).__name__,
            }
        if side != "query":
            key |= {
                "image_processor": self.image_processor_class,
                "page_pixels": self.describe_pixels(),
                "pillow": metadata.version("pillow"),
            }
        return key

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items ready for :meth:`embed`; pictures are drawn there."""
        check_side(side)
        ids = [item_id(item, side) for item in items]
        if side == "query":
            texts = [item.text for item in items]
            return [self._query(name, text) for name, text in zip(ids, texts, strict=True)]
        bar = tqdm(ids, desc="measuring pages", unit="page", delay=2, leave=None, disable=not self.checkpoint.progress)
        return [self._page(name) for name in bar]

    def collate(
        self, batch: Sequence[Encoded], padding_side: str = "right"
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Pad a batch or draw its pictures; return an encoder's inputs and the pooling mask [B, T]."""
        inputs, pool_mask = pad_batch(batch, {"input_ids": self._padding()}, padding_side, self.device)
        pixels = join_pixels(batch, self.device)
        if not pixels:
            return inputs, pool_mask
        return pixels, pixels.get("pixel_attention_mask", pool_mask)

    def texts_read(self, pages: Sequence[Page]) -> None:
        """Return None: pages are looked at as pictures."""
        return

    def embed(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Run one forward of the side's encoder and pool every layer inside it; return [B, L, D], float32."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        return self.embed_collated(*self.collate(batch))

    def embed_chosen(self, batch: Sequence[Encoded], layers: Sequence[int]) -> np.ndarray:
        """Run one forward as far as the highest of these layers of the side's encoder; return them [B, K, D]."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        return self.embed_collated(*self.collate(batch), layers)

    def embed_collated(
        self, inputs: Mapping[str, torch.Tensor], pool_mask: torch.Tensor, chosen: Sequence[int] | None = None
    ) -> np.ndarray:
        """Run one forward over a padded batch, see :meth:`collate`.

        Returns
        -------
        ndarray [B, L, D] or [B, K, D]
            layer_embeddings, or the layers that are chosen.
        """
        side: Side = "page" if "pixel_values" in inputs else "query"
        return pooled_forward(
            lambda: self.head(self.encoders[side](**inputs), side),
            self._blocks[side],
            Pooler(pool_mask, self.poolings[side]),
            self.name,
            width=self._widths[side],
            chosen=chosen,
        )

    def describe_pixels(self) -> str:
        """Return how pages enter the page encoder."""
        raise NotImplementedError

    def page_tokens(self) -> int:
        """Return how many tokens the page encoder sees of a page."""
        raise NotImplementedError

    def drawn_size(self, proportion: float) -> tuple[int, int]:
        """Return the (width, height) a page is drawn at, before the image processor fits it."""
        raise NotImplementedError

    def preprocess(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Return the pixel inputs of one page."""
        made = self.image_processor(images=[picture], return_tensors="np")
        return {"pixel_values": np.asarray(made["pixel_values"], dtype=np.float32)}

    def tokenise(self, text: str) -> tuple[np.ndarray, bool]:
        """Return a query's token ids and whether its end was cut off."""
        encoding = self.tokenizer(text, truncation=True, max_length=self._limit).encodings[0]
        return np.asarray(encoding.ids, dtype=np.int32), bool(encoding.overflowing)

    def _padding(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def _query(self, name: str, text: str) -> Encoded:
        ids, truncated = self.tokenise(self.query_prompt + text)
        return Encoded(name, "query", {"input_ids": ids}, len(ids), truncated=truncated, empty=not text.strip())

    def _page(self, page_id: str) -> Encoded:
        size = self.drawn_size(self.pictures.proportion(page_id))
        return Encoded(
            page_id, "page", {}, self.page_tokens(), pixels=lambda: self.preprocess(self.pictures.draw(page_id, size))
        )


def drawn_to_cover(proportion: float, side: int) -> tuple[int, int]:
    """Return the (width, height) whose shorter side is `side`, the longer one at most `MOST_STRETCHED` times it."""
    longer = min(max(proportion, 1 / proportion), MOST_STRETCHED)
    return (round(side * longer), side) if proportion >= 1 else (side, round(side * longer))
