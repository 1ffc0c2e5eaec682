"""GME-Qwen2-VL (2B, 7B): system message with an instruction, last token behind an end-of-text token.

After the authors' ``gme_inference.py`` (huggingface.co/Alibaba-NLP/gme-Qwen2-VL-2B-Instruct, arXiv 2412.16855).
"""

from __future__ import annotations

from typing import ClassVar

from miner_diag.backbones.base import Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.qwen_vl import PICTURE, QwenVLRetriever
from miner_diag.backbones.templates import Template


class GMEQwen2VL(QwenVLRetriever):
    """GME. A prompt is the system message; pages have the default one, as their authors do for documents.

    The authors cut a whole input at 1,800 tokens; here queries are, and a page's 1,280 visual tokens stay below it.
    """

    family: ClassVar[str] = "gme"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="last",
        query_prompt="Find an image that matches the given text.",
        page_prompt="You are a helpful assistant.",
        max_tokens=1800,
        min_pixels=4 * 28 * 28,
        max_pixels=1280 * 28 * 28,
    )

    def template(self, side: Side) -> Template:
        """Return the chat message around a text or a picture."""
        instruction = self.query_prompt if side == "query" else self.page_prompt
        return Template(
            f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{PICTURE if side == 'page' else ''}",
            "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
        )
