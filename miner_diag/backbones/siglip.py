"""SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786): dual encoders with heads of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from miner_diag.backbones.base import BackboneError, Encoded, Pooling
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.dual_encoder import DualEncoder, drawn_to_cover
from miner_diag.backbones.pictures import size_of_area


class SiglipDualEncoder(DualEncoder):
    """SigLIP: a query's last position, padding included; a page's patches by attention. Pages are made square."""

    family: ClassVar[str] = "siglip"
    image_processor_class: ClassVar[str] = "SiglipImageProcessorPil"
    poolings: ClassVar[dict[str, Pooling]] = {"query": "last", "page": "mean"}
    heads: ClassVar[dict[str, str]] = {
        "query": "the final norm and a linear head",
        "page": "the final norm and an attention head",
    }

    def width_of_embedding(self) -> int:
        """Return the page encoder's width, which the text head projects to."""
        return int(self.encoders["page"].config.hidden_size)

    def describe_pixels(self) -> str:
        """Return how pages enter the page encoder."""
        size = self.image_processor.size
        return f"{size['width']} x {size['height']}, whatever their shape"

    def page_tokens(self) -> int:
        """Return the number of patches."""
        config = self.encoders["page"].config
        return (config.image_size // config.patch_size) ** 2

    def drawn_size(self, proportion: float) -> tuple[int, int]:
        """Return a size whose shorter side is the page encoder's."""
        return drawn_to_cover(proportion, int(self.image_processor.size["height"]))

    def tokenise(self, text: str) -> tuple[np.ndarray, bool]:
        """Return a query's ids, padded to the full length: the encoder was trained so and reads the last position."""
        encoding = self.tokenizer(text, truncation=True, padding="max_length", max_length=self._limit).encodings[0]
        return np.asarray(encoding.ids, dtype=np.int32), bool(encoding.overflowing)

    def collate(
        self, batch: Sequence[Encoded], padding_side: str = "right"
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Put a batch together; the query encoder is told of no mask, as in training."""
        inputs, pool_mask = super().collate(batch, padding_side)
        return {name: value for name, value in inputs.items() if name != "attention_mask"}, pool_mask


class Siglip2DualEncoder(SiglipDualEncoder):
    """SigLIP 2 of any proportion (NaFlex): as SigLIP, but a page keeps its shape within a number of patches."""

    family: ClassVar[str] = "siglip2"
    image_processor_class: ClassVar[str] = "Siglip2ImageProcessorPil"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        if self._patches() < 1:
            raise BackboneError(f"max_pixels must be at least {self._patch() ** 2}; got {self.options.max_pixels}")

    def describe_pixels(self) -> str:
        """Return how pages enter the page encoder."""
        return f"at most {self._patches()} patches of {self._patch()} pixels, in their own shape"

    def page_tokens(self) -> int:
        """Return the number of patches, padding included."""
        return self._patches()

    def drawn_size(self, proportion: float) -> tuple[int, int]:
        """Return a size of the budget's area."""
        return size_of_area(proportion, self._patches() * self._patch() ** 2)

    def preprocess(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Return patches, their mask and their grid."""
        made = self.image_processor(images=[picture], max_num_patches=self._patches(), return_tensors="np")
        return {
            "pixel_values": np.asarray(made["pixel_values"], dtype=np.float32),
            "pixel_attention_mask": np.asarray(made["pixel_attention_mask"], dtype=np.int64),
            "spatial_shapes": np.asarray(made["spatial_shapes"], dtype=np.int64),
        }

    def _patch(self) -> int:
        return int(self.image_processor.patch_size)

    def _patches(self) -> int:
        if self.options.max_pixels is None:
            return int(self.image_processor.max_num_patches)
        return self.options.max_pixels // self._patch() ** 2
