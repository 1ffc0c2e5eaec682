"""llama-nemotron-embed-vl: SigLIP tiles in front of a bidirectional Llama, mean over all tokens.

After the checkpoint's ``modeling_llama_nemotron_vl.py`` and its processor (huggingface.co/nvidia); put together from
transformers' SigLIP and Llama, so its Python code is not run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from miner_diag.backbones.base import Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.loading import load_model
from miner_diag.backbones.pictures import closest_tiling, size_of_longest
from miner_diag.backbones.pipeline import read_json
from miner_diag.backbones.templates import Template
from miner_diag.backbones.vision_language import Plan, VisionLanguageRetriever

PAGE_TILES = 1650 / 512
"""The longer side, in tiles, of a page before it is cut: letter paper at 150 dpi, as the authors' pages are."""
MAX_TILES = 6
"""The largest number of tiles where the processor's settings state none."""


class NemotronVLConfig(PreTrainedConfig):
    """The configuration of the checkpoint, as its files have it."""

    model_type = "llama_nemotron_vl"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": SiglipVisionConfig, "llm_config": LlamaConfig}

    def __init__(self, vision_config: Any = None, llm_config: Any = None, **rest: Any) -> None:
        self.vision_config = (
            vision_config if hasattr(vision_config, "to_dict") else _part(SiglipVisionConfig, vision_config)
        )
        self.llm_config = llm_config if hasattr(llm_config, "to_dict") else _part(LlamaConfig, llm_config)
        self.llm_config.is_causal = False
        self.downsample_ratio = rest.pop("downsample_ratio", 0.5)
        self.force_image_size = rest.pop("force_image_size", None)
        self.select_layer = rest.pop("select_layer", -1)
        self.pooling = rest.pop("pooling", "avg")
        self.img_context_token_id = rest.pop("img_context_token_id", None)
        super().__init__(**rest)

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> Any:
        """Return the language model's part."""
        return self.llm_config


class NemotronVLModel(PreTrainedModel):
    """SigLIP -> pixel shuffle -> MLP -> bidirectional Llama."""

    config_class = NemotronVLConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = ["LlamaDecoderLayer"]  # type: ignore[misc]

    def __init__(self, config: NemotronVLConfig) -> None:
        super().__init__(config)
        wide = config.vision_config.hidden_size * round(1 / config.downsample_ratio) ** 2
        width = config.llm_config.hidden_size
        self.vision_model = SiglipVisionModel(config.vision_config)
        self.language_model = LlamaModel(config.llm_config)
        self.mlp1 = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, width), nn.GELU(), nn.Linear(width, width))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.language_model.embed_tokens

    def see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the visual tokens [n_tiles, V, D] of tiles [n_tiles, C, H, W]."""
        pixel_values = pixel_values.to(self.dtype)
        if self.config.select_layer == -1:
            states = self.vision_model(pixel_values).last_hidden_state
        else:
            states = self.vision_model(pixel_values, output_hidden_states=True).hidden_states[self.config.select_layer]
        n_tiles, n_patches, width = states.shape
        side = round(n_patches**0.5)
        merge = round(1 / self.config.downsample_ratio)
        merged = states.view(n_tiles, side // merge, merge, side // merge, merge, width)
        # order within a merged token: rows outermost, then columns, then channels
        merged = merged.permute(0, 1, 3, 2, 4, 5).reshape(n_tiles, (side // merge) ** 2, merge * merge * width)
        return self.mlp1(merged)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        **rest: Any,
    ) -> Any:
        """Return the language model's output."""
        states = self.language_model.embed_tokens(input_ids)
        if pixel_values is not None:
            visual = (input_ids == self.config.img_context_token_id)[..., None].expand_as(states)
            states = states.masked_scatter(visual, self.see(pixel_values).to(states.dtype))
        return self.language_model(inputs_embeds=states, attention_mask=attention_mask, **rest)


class NemotronEmbedVL(VisionLanguageRetriever):
    """llama-nemotron-embed-vl. Tiles are square and follow the page's shape; a thumbnail of the page stands last.

    The pixel budget is that of the tiles, thumbnail not counted. A page's text is not put beside its picture.
    """

    family: ClassVar[str] = "nemotron_vl"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="mean",
        query_prompt="query: ",
        page_prompt="passage: ",
        max_tokens=10240,
        min_pixels=1,
        max_pixels=MAX_TILES * 512 * 512,
    )
    image_processor_class: ClassVar[str] = "PIL, bicubic, mean 0.5, std 0.5"
    placeholder: ClassVar[str] = "<IMG_CONTEXT>"

    def language_model(self) -> Any:
        """Return the language model."""
        return self.model.language_model

    def template(self, side: Side) -> Template:
        """Return the words around a text or a picture."""
        if side == "query":
            return Template(self.query_prompt)
        return Template(f"{self.page_prompt}<img>{self.placeholder}</img> ")

    def load_processor(self) -> Any:
        """Return the settings of tiles; the pixels are prepared here."""
        settings: dict[str, Any] = {}
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (self.checkpoint.folder / name).exists():
                settings |= read_json(self.checkpoint.folder / name, dict)
        return SimpleNamespace(
            most=int(settings.get("max_input_tiles") or settings.get("max_num_tiles") or MAX_TILES),
            thumbnail=bool(settings.get("use_thumbnail", True)),
        )

    def load_weights(self) -> Any:
        """Return the model, its vision weights renamed from how older versions of the library saved them."""
        config = NemotronVLConfig(**read_json(Path(self.checkpoint.folder) / "config.json", dict))
        if config.img_context_token_id is None:
            config.img_context_token_id = int(self.tokenizer.convert_tokens_to_ids(self.placeholder))
        return load_model(
            self.checkpoint.folder,
            dtype=self.dtype,
            device=self.device,
            config=config,
            model_class=NemotronVLModel,
            harmless_missing=re.compile(r"^vision_model\.head\."),
            key_mapping={r"^vision_model\.vision_model\.": "vision_model."},
        )

    @property
    def tile(self) -> int:
        """The side of a tile in pixels."""
        config = self.model.config
        return int(config.force_image_size or config.vision_config.image_size)

    def largest_picture(self) -> int:
        """Return the pixels of as many tiles as the processor's settings allow."""
        return self.image_processor.most * self.tile**2

    def plan(self, proportion: float) -> Plan:
        """Return the tiles' tokens."""
        size = size_of_longest(proportion, round(PAGE_TILES * self.tile))
        columns, rows = self.tiling(size)
        n_tiles = columns * rows + (1 if self.image_processor.thumbnail and columns * rows > 1 else 0)
        patches = self.tile // self.model.config.vision_config.patch_size
        of_one = round((patches * self.model.config.downsample_ratio) ** 2)
        return Plan(size, np.full(n_tiles * of_one, self._placeholder_id, dtype=np.int64))

    def tiling(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (columns, rows) of a picture's tiles."""
        most = max(1, min(self.image_processor.most, self.max_pixels // self.tile**2))
        tilings = [(c, r) for c in range(1, most + 1) for r in range(1, most + 1) if c * r <= most]
        return closest_tiling(size, self.tile, sorted(tilings, key=lambda tiling: (tiling[0] * tiling[1], tiling)))

    def preprocess(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Return a page's tiles [n, 3, H, W], row by row, the thumbnail last."""
        columns, rows = self.tiling(picture.size)
        side, bicubic = self.tile, Image.Resampling.BICUBIC
        fitted = picture.resize((columns * side, rows * side), bicubic)
        boxes = [(c * side, r * side, (c + 1) * side, (r + 1) * side) for r in range(rows) for c in range(columns)]
        tiles = [fitted.crop(box) for box in boxes]
        if self.image_processor.thumbnail and len(tiles) > 1:
            tiles.append(picture.resize((side, side), bicubic))
        values = np.stack([np.asarray(tile, dtype=np.float32).transpose(2, 0, 1) for tile in tiles])
        return {"pixel_values": (values / 255 - 0.5) / 0.5}

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run the model."""
        return self.model(**inputs, use_cache=False).last_hidden_state


def _part(kind: Any, content: dict[str, Any] | None) -> Any:
    return kind(**{name: value for name, value in (content or {}).items() if name not in ("model_type", "auto_map")})
