"""ModernVBERT bi-encoders (bimodernvbert): pages in tiles, a bidirectional text encoder, mean over all tokens.

After ``BiModernVBertProcessor`` and ``BiModernVBert`` (github.com/illuin-tech/colpali, arXiv 2510.01149).
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

from miner_diag.backbones.base import Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.pictures import size_of_longest
from miner_diag.backbones.templates import Template
from miner_diag.backbones.vision_language import Plan, VisionLanguageRetriever


class BiModernVBERT(VisionLanguageRetriever):
    """A ModernVBERT checkpoint; a page is cut into tiles, row by row, and then stands once more as one tile.

    Queries have no prefix (the authors' ``process_texts``). The pixel budget is the square of the longest side that
    a page is drawn at; the image processor's own longest side is the most it may be.
    """

    family: ClassVar[str] = "modernvbert"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="mean",
        query_prompt="",
        page_prompt="Describe the image.",
        max_tokens=4096,
        min_pixels=64 * 64,
        max_pixels=2048 * 2048,
        query_closing="",
    )
    image_processor_class: ClassVar[str] = "Idefics3ImageProcessorPil"
    placeholder: ClassVar[str] = "<image>"
    harmless_unexpected: ClassVar[re.Pattern[str]] = re.compile(r"^(vision_model\.head|projection_head)\.")

    def language_model(self) -> Any:
        """Return the text encoder."""
        return self.model.text_model

    def template(self, side: Side) -> Template:
        """Return the words around a text or a picture."""
        if side == "query":
            return Template(self.query_prompt, self.closing(side))
        return Template(f"<|begin_of_text|>User:{self.placeholder}{self.page_prompt}<end_of_utterance>\nAssistant:")

    def largest_picture(self) -> int:
        """Return the square of the image processor's own longest side."""
        return int(self.image_processor.size["longest_edge"]) ** 2

    def longest_side(self) -> int:
        """Return how large a page is drawn, in pixels of its longer side."""
        return min(int(self.image_processor.size["longest_edge"]), math.isqrt(self.max_pixels))

    def plan(self, proportion: float) -> Plan:
        """Return the tiles' tokens."""
        size = size_of_longest(proportion, self.longest_side())
        rows, columns = self.tiling(size)
        seen = self.placeholder * int(self.model.image_seq_len)
        tiles = "".join(
            "".join(f"<fake_token_around_image><row_{row}_col_{column}>{seen}" for column in range(1, columns + 1))
            + "\n"
            for row in range(1, rows + 1)
        )
        overview = f"<fake_token_around_image><global-img>{seen}<fake_token_around_image>"
        text = f"{tiles}\n{overview}" if rows else overview
        return Plan(size, np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64))

    def tiling(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of the tiles that the image processor cuts a picture of this size into; (0, 0): none.

        The processor's own ``get_number_of_image_patches`` rounds otherwise than it cuts.
        """
        tile = int(self.image_processor.max_image_size["longest_edge"])
        empty: Any = np.broadcast_to(np.uint8(0), (3, size[1], size[0]))
        height, width = get_resize_output_image_size(empty, self.longest_side())
        shape = width / height
        if width >= height:
            width = math.ceil(width / tile) * tile
            height = math.ceil(int(width / shape) / tile) * tile
        else:
            height = math.ceil(height / tile) * tile
            width = math.ceil(int(height * shape) / tile) * tile
        return (0, 0) if max(height, width) <= tile else (height // tile, width // tile)

    def preprocess(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Return a page's tiles [n, C, H, W]."""
        made: Any = self.image_processor(
            images=[[picture]], size={"longest_edge": self.longest_side()}, return_tensors="np"
        )
        return {"pixel_values": np.asarray(made["pixel_values"], dtype=np.float32)[0]}

    def forward(self, inputs: Any) -> Any:
        """Run the model; the tiles of all pages go in as one list, so that none is padded."""
        inputs = dict(inputs)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"][None]
        return self.model(**inputs).last_hidden_state
