"""jina-embeddings-v4 in its single-vector mode: the retrieval adapter on Qwen2.5-VL, mean over the picture's tokens.

After ``modeling_jina_embeddings_v4.py`` (huggingface.co/jinaai/jina-embeddings-v4, arXiv 2506.18902); its Python code
is not run.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
from transformers import AutoConfig

from miner_diag.backbones.base import Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.loading import load_model
from miner_diag.backbones.lora import merge_adapter
from miner_diag.backbones.pipeline import read_json
from miner_diag.backbones.qwen_vl import PICTURE, QwenVLRetriever
from miner_diag.backbones.templates import Template

TASK = "retrieval"
"""The adapter that is merged, of the three in the file."""
MANY_VECTORS = re.compile(r"(^|\.)multi_vector_projector(\.|$)")
"""Weights that only the mode of many vectors needs."""


class JinaEmbeddingsV4(QwenVLRetriever):
    """jina-embeddings-v4. A query is pooled over all its tokens, a page from its picture's start mark to its end mark.

    Takes the repository's own folder (base weights and ``adapters/``) or one with the adapter merged already.
    """

    family: ClassVar[str] = "jina_v4"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="mean",
        query_prompt="Query: ",
        page_prompt="Describe the image.",
        max_tokens=32768,
        min_pixels=4 * 28 * 28,
        max_pixels=768 * 28 * 28,
    )
    harmless_unexpected: ClassVar[re.Pattern[str]] = MANY_VECTORS

    def template(self, side: Side) -> Template:
        """Return the words around a text or a picture."""
        if side == "query":
            return Template(self.query_prompt)
        return Template("<|im_start|>user\n" + PICTURE + self.page_prompt, "<|im_end|>\n")

    def pooled_span(self, ids: np.ndarray, side: Side) -> tuple[int, int]:
        """Leave out what is not between the marks of the picture."""
        if side == "query":
            return 0, 0
        marks = [int(self.tokenizer.convert_tokens_to_ids(mark)) for mark in ("<|vision_start|>", "<|vision_end|>")]
        start, end = (int(np.flatnonzero(ids == mark)[0]) for mark in marks)
        return start, len(ids) - 1 - end

    def load_weights(self) -> Any:
        """Return the language and vision model with the retrieval adapter merged into it."""
        folder = self.checkpoint.folder
        content = read_json(folder / "config.json", dict)
        kept = {name: value for name, value in content.items() if name not in ("auto_map", "model_type")}
        model = load_model(
            folder,
            dtype=self.dtype,
            device=self.device,
            config=AutoConfig.for_model("qwen2_5_vl", **kept),
            harmless_unexpected=self.harmless_unexpected,
        )
        if (folder / "adapters").is_dir():
            merge_adapter(model, folder / "adapters", part=TASK, harmless=MANY_VECTORS)
        return model

    def extra_key(self) -> dict[str, str]:
        """Return which adapter was merged."""
        return {"adapter": TASK if (self.checkpoint.folder / "adapters").is_dir() else "merged in the file"}
