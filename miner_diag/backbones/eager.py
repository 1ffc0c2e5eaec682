"""eager-embed-v1: Qwen3-VL-4B with every page drawn as one square, last token behind an end-of-text token.

Two official templates differ in the generation prompt. That of the authors' ``inference_transformers.py``
(github.com/eagerworks/eager-embed) has one and is the default; that of MTEB's ``eagerworks_models.py`` has none
(``--protocol mteb``). MTEB also puts an empty text before a page's picture, which adds no token. Both are written here
as Qwen3-VL-Instruct's chat template writes them. Neither states a limit of queries; that of the base model is our
choice.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
from PIL import Image

from miner_diag.backbones.base import Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.qwen_vl import PICTURE, QwenVLRetriever
from miner_diag.backbones.templates import Template
from miner_diag.backbones.vision_language import Plan

CLOSING = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
"""What closes the message of either side in the authors' own example."""


class EagerEmbed(QwenVLRetriever):
    """eager-embed. A page is drawn as a square whatever its proportions, 784 x 784 pixels by default.

    784 is no multiple of the 32 pixels that a visual token covers, so the authors' processor resizes the square once
    more, to 768 x 768, and so it is done here. The pixel budget is the area of the first square.
    """

    family: ClassVar[str] = "eager"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="last",
        query_prompt="Query: ",
        page_prompt="",
        max_tokens=262144,
        min_pixels=32 * 32,
        max_pixels=784 * 784,
        query_closing=CLOSING,
        page_closing=CLOSING,
    )

    def template(self, side: Side) -> Template:
        """Return the user's message around a text or a picture; words of a page stand before its picture."""
        words = self.query_prompt if side == "query" else self.page_prompt + PICTURE
        return Template(f"<|im_start|>user\n{words}", self.closing(side))

    def plan(self, proportion: float) -> Plan:
        """Return the square; its tokens are those of the grid that it is resized to."""
        side = math.isqrt(self.max_pixels)
        return replace(super().plan(1.0), size=(side, side))

    def preprocess(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Return patches [h * w, C * t * p * p] and their grid [1, 3] of the square, resized to whole tokens."""
        return super().preprocess(picture.resize(super().plan(1.0).size, Image.Resampling.BICUBIC))
