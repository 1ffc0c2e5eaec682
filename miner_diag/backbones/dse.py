"""DSE-Qwen2 (dse-qwen2-2b-mrl-v1): a question about the picture, last token behind an end-of-text token.

After its model card (huggingface.co/MrLight/dse-qwen2-2b-mrl-v1, arXiv 2406.11251).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from PIL import Image

from miner_diag.backbones.base import Encoded, Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.qwen_vl import PICTURE, QwenVLRetriever
from miner_diag.backbones.templates import Template

BLANK_SIDE = 56
"""The side, in pixels, of the blank picture before every query: the card says 1, which qwen_vl_utils raises to 56."""
BLANK_TOKENS = 4
"""The number of visual tokens of the blank picture."""


class DSEQwen2(QwenVLRetriever):
    """DSE on Qwen2-VL. A query goes behind a blank black picture of four visual tokens, as on its card."""

    family: ClassVar[str] = "dse"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="last",
        query_prompt="Query: ",
        page_prompt="What is shown in this image?",
        max_tokens=512,
        min_pixels=28 * 28,
        max_pixels=2560 * 28 * 28,
    )

    def template(self, side: Side) -> Template:
        """Return the chat message; both sides hold a picture."""
        words, picture = self.page_prompt, PICTURE
        if side == "query":
            words, picture = self.query_prompt, PICTURE.replace(self.placeholder, self.placeholder * BLANK_TOKENS)
        return Template(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n" + picture + words,
            "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
        )

    def query_pixels(self) -> dict[str, np.ndarray]:
        """Return the blank picture's pixels."""
        return self.preprocess(Image.new("RGB", (BLANK_SIDE, BLANK_SIDE)))

    def encode_query(self, name: str, text: str) -> Encoded:
        """Return a query with its blank picture."""
        plain = super().encode_query(name, text)
        return Encoded(
            name,
            "query",
            plain.inputs,
            plain.n_tokens,
            truncated=plain.truncated,
            empty=plain.empty,
            pixels=self.query_pixels,
        )
