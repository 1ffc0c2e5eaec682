"""CLIP as a page retriever: a dual encoder, each side projected into the shared space (arXiv 2103.00020)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from miner_diag.backbones.base import Pooling, Side
from miner_diag.backbones.dual_encoder import DualEncoder, drawn_to_cover


class CLIPDualEncoder(DualEncoder):
    """CLIP: a query's end-of-text token, a page's class token, each projected. Pages are cut to their middle square."""

    family: ClassVar[str] = "clip"
    image_processor_class: ClassVar[str] = "CLIPImageProcessorPil"
    poolings: ClassVar[dict[str, Pooling]] = {"query": "last", "page": "cls"}
    heads: ClassVar[dict[str, str]] = {
        "query": "the final norm and the text projection",
        "page": "the final norm and the visual projection",
    }

    def width_of_embedding(self) -> int:
        """Return the projection's width."""
        return int(self.model.config.projection_dim)

    def head(self, output: Any, side: Side) -> torch.Tensor:
        """Return the projected embedding."""
        project: nn.Module = self.model.text_projection if side == "query" else self.model.visual_projection
        return project(output.pooler_output)

    def describe_pixels(self) -> str:
        """Return how pages enter the page encoder."""
        return f"shorter side {self._side()}, middle square"

    def page_tokens(self) -> int:
        """Return patches and the class token."""
        config = self.encoders["page"].config
        return (config.image_size // config.patch_size) ** 2 + 1

    def drawn_size(self, proportion: float) -> tuple[int, int]:
        """Return a size whose shorter side is the page encoder's."""
        return drawn_to_cover(proportion, self._side())

    def _side(self) -> int:
        size = self.image_processor.size
        return int(size.get("shortest_edge") or size["height"])
