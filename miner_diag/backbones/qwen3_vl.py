"""Qwen3-VL-Embedding (2B, 8B): chat template with an instruction as system message, last token.

After the authors' ``Qwen3VLEmbedder`` (github.com/QwenLM/Qwen3-VL-Embedding, arXiv 2601.04720).
"""

from __future__ import annotations

import unicodedata
from typing import ClassVar

from miner_diag.backbones.base import Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.qwen_vl import PICTURE, QwenVLRetriever
from miner_diag.backbones.templates import Template

SLOT = "@@item@@"
"""Marks where the item goes while the checkpoint's chat template is filled in."""
FALLBACK = (
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n" + SLOT + "<|im_end|>\n<|im_start|>assistant\n"
)
"""The authors' template, for a checkpoint that brings none along."""


class Qwen3VLEmbedding(QwenVLRetriever):
    """Qwen3-VL-Embedding. The checkpoint's own chat template is used where it has one, as its authors do.

    A prompt is the instruction; it ends in a full stop where the user's does not. An empty query is "NULL".
    """

    family: ClassVar[str] = "qwen3_vl"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="last",
        query_prompt="Retrieve images or text relevant to the user's query.",
        page_prompt="Represent the user's input.",
        max_tokens=8192,
        min_pixels=4 * 32 * 32,
        max_pixels=1800 * 32 * 32,
    )

    def template(self, side: Side) -> Template:
        """Return the chat template around a text or a picture."""
        instruction = (self.query_prompt if side == "query" else self.page_prompt).strip()
        if instruction and not unicodedata.category(instruction[-1]).startswith("P"):
            instruction += "."
        content = {"type": "text", "text": SLOT} if side == "query" else {"type": "image"}
        if self.tokenizer.chat_template:
            message = self.tokenizer.apply_chat_template(
                [
                    {"role": "system", "content": [{"type": "text", "text": instruction}]},
                    {"role": "user", "content": [content]},
                ],
                tokenize=False,
                add_generation_prompt=True,
            )
        else:
            message = FALLBACK.format(instruction=instruction).replace(SLOT, SLOT if side == "query" else PICTURE)
        before, _, after = message.partition(SLOT)
        return Template(before, after)

    def query_text(self, text: str) -> str:
        """Return the text; "NULL" for an empty one."""
        return text if text.strip() else "NULL"
