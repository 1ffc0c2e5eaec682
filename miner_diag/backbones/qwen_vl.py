"""What the retrievers built on Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: pictures of any size, cut into patches."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from miner_diag.backbones.base import BackboneError, Side
from miner_diag.backbones.pictures import size_of_area
from miner_diag.backbones.vision_language import Plan, VisionLanguageRetriever

PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
"""How a Qwen-VL text holds a picture."""


class QwenVLRetriever(VisionLanguageRetriever):
    """A Qwen-VL checkpoint; pages are drawn as large as the family's pixel budget allows.

    A page of grid h x w patches gives ``h * w / merge_size**2`` visual tokens; the grid follows from the page's
    proportions by the library's own rule (``smart_resize``).
    """

    image_processor_class: ClassVar[str] = "Qwen2VLImageProcessorPil"
    placeholder: ClassVar[str] = "<|image_pad|>"
    needs_token_types: ClassVar[bool] = True
    """Whether the forward takes an input that says which tokens are visual."""

    def language_model(self) -> Any:
        """Return the language model."""
        return self.model.language_model

    def plan(self, proportion: float) -> Plan:
        """Return the largest grid within the budget."""
        processor = self.image_processor
        factor = processor.patch_size * processor.merge_size
        width, height = size_of_area(proportion, self.max_pixels)
        try:
            height, width = smart_resize(height, width, factor, self.min_pixels, self.max_pixels)
        except ValueError as error:
            raise BackboneError(f"a page of proportion {proportion:.3g} cannot be cut into patches: {error}") from error
        n_tokens = (height // factor) * (width // factor)
        return Plan((width, height), np.full(n_tokens, self._placeholder_id, dtype=np.int64))

    def preprocess(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Return patches [h * w, C * t * p * p] and their grid [1, 3]."""
        made: Any = self.image_processor(images=[picture], do_resize=False, return_tensors="np")
        return {
            "pixel_values": np.asarray(made["pixel_values"], dtype=np.float32),
            "image_grid_thw": np.asarray(made["image_grid_thw"], dtype=np.int64),
        }

    def token_inputs(self, ids: np.ndarray, side: Side) -> dict[str, np.ndarray]:
        """Return 1 at visual tokens, 0 elsewhere, where an item has any."""
        visual = ids == self._placeholder_id
        return {"mm_token_type_ids": visual.astype(np.int32)} if visual.any() else {}
