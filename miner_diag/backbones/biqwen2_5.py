"""Qwen2.5-VL bi-encoders: nomic-embed-multimodal (3B, 7B) and other BiQwen2.5 adapters; last token.

After ``BiQwen2_5_Processor`` in the fork of colpali-engine that they were trained with (github.com/nomic-ai/colpali).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from miner_diag.backbones.base import Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.loading import load_model
from miner_diag.backbones.lora import merge_adapter
from miner_diag.backbones.qwen_vl import PICTURE, QwenVLRetriever
from miner_diag.backbones.templates import Template

HEADS = re.compile(r"(^|\.)(lm_head|custom_text_proj)$")
"""Adapted modules that stand behind the hidden states."""


class BiQwen25(QwenVLRetriever):
    """A bi-encoder on Qwen2.5-VL: a whole checkpoint, or an adapter that is merged into its base model."""

    family: ClassVar[str] = "biqwen2_5"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="last",
        query_prompt="Query: ",
        page_prompt="Describe the image.",
        max_tokens=8192,
        min_pixels=4 * 28 * 28,
        max_pixels=768 * 28 * 28,
        query_closing="<|endoftext|>",
    )

    def template(self, side: Side) -> Template:
        """Return the words around a text or a picture."""
        if side == "query":
            return Template(self.query_prompt, self.closing(side))
        return Template("<|im_start|>user\n" + PICTURE + self.page_prompt, "<|im_end|><|endoftext|>")

    def files(self) -> Path:
        """Return the adapter's folder if tokenizer and image processor are in it, else the base model's."""
        base, folder = self.checkpoint.base_model, self.checkpoint.folder
        complete = (folder / "tokenizer.json").exists() and (folder / "preprocessor_config.json").exists()
        return folder if base is None or complete else base

    def load_weights(self) -> Any:
        """Return the base model with the adapter merged into it, or the whole checkpoint."""
        if self.checkpoint.base_model is None:
            return super().load_weights()
        model = load_model(
            self.checkpoint.base_model,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.options.trust_remote_code,
        )
        merge_adapter(model, self.checkpoint.folder, harmless=HEADS)
        return model

    def extra_key(self) -> dict[str, str]:
        """Return the base model's revision, where there is one."""
        return {"base_revision": self.base_revision} if self.base_revision else {}
