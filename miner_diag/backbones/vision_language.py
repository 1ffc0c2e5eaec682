"""Vision-language models as page retrievers: pages are pictures, queries are texts, and both pass the same layers."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from miner_diag.backbones.base import SIDES, BackboneError, Encoded, Pooling, Side, check_side, forward_key, item_id
from miner_diag.backbones.batches import join_pixels, pad_batch
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.hooks import find_blocks, passes_final_norm
from miner_diag.backbones.layer_pooling import TwoPoolings
from miner_diag.backbones.loading import choose_device, load_image_processor, load_model, load_tokenizer
from miner_diag.backbones.revision import folder_revision
from miner_diag.backbones.settings import choose_dtype, overrule_pooling, text_limit
from miner_diag.backbones.templates import Template, encode_between, expand_placeholder, without_markers

if TYPE_CHECKING:
    from miner_diag.corpus.core import Page, Query

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How one picture is seen, decided from its proportions alone."""

    size: tuple[int, int]
    """The (width, height) that it is drawn at, in pixels."""
    visual: np.ndarray
    """The token ids [V] that stand instead of the placeholder."""


class VisionLanguageRetriever(TwoPoolings, ABC):
    """A vision-language checkpoint with one vector a page; families say what is particular to them.

    Layer 0 is what enters the first block: text embeddings with the visual tokens in their places. Layer l is what
    leaves block l, the last layer is ``last_hidden_state``. Where a model adds visual features between blocks
    (Qwen3-VL's deepstack), layer l is the state before that addition, as ``output_hidden_states`` has it.

    Pixels are drawn and preprocessed inside :meth:`embed`, one batch at a time, with transformers' PIL image
    processors whatever else is installed. Batches are padded on the right; pooling reads the mask.
    """

    family: ClassVar[str]
    """The family's name, as ``--model-family`` takes it."""
    defaults: ClassVar[FamilyDefaults]
    """What the family's authors do."""
    image_processor_class: ClassVar[str]
    """The name of the transformers class that is pinned for this family."""
    placeholder: ClassVar[str]
    """The token that stands for a picture."""
    harmless_unexpected: ClassVar[re.Pattern[str] | None] = None
    """The names of weights in the file that a single vector does not need."""
    long_pages = None
    shared_layers = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        options, defaults = checkpoint.options, checkpoint.under_protocol(self.defaults)
        self.protocol_defaults = defaults
        self.checkpoint, self.options = checkpoint, options
        self.folder = checkpoint.folder if checkpoint.base_model is None else None
        self.name, self.pictures = checkpoint.name, checkpoint.pictures
        self.pooling: Pooling = overrule_pooling(options.pooling, defaults.pooling, self.name)
        self.device = choose_device(options.device, self.name)
        self.dtype = choose_dtype(options.dtype, self.device, self.name, on_gpu=torch.bfloat16)
        self.query_prompt = defaults.query_prompt if options.query_prompt is None else options.query_prompt
        self.page_prompt = defaults.page_prompt if options.page_prompt is None else options.page_prompt
        self.tokenizer = load_tokenizer(self.files(), trust_remote_code=options.trust_remote_code)
        self.image_processor = self.load_processor()
        self.model = self.load_weights()
        self.revision = folder_revision(checkpoint.folder)
        self.base_revision = "" if checkpoint.base_model is None else folder_revision(checkpoint.base_model)
        config: Any = self.language_model().config
        self.n_layers, self.width = int(config.num_hidden_layers), int(config.hidden_size)
        config.use_cache = False
        self.min_pixels, self.max_pixels = self._pixels()
        self._blocks = find_blocks(self.language_model(), self.n_layers)
        self._limit = text_limit(options.max_tokens, defaults.max_tokens, self.model)
        self._placeholder_id = int(self.tokenizer.convert_tokens_to_ids(self.placeholder))
        self._templates = {side: self.template(side) for side in SIDES}
        self._normed = passes_final_norm(self.model, self._blocks, self._probe())
        where = "after the final norm" if self._normed else "as it leaves the last block (no norm stands behind it)"
        self.last_layer = (
            f"Layer {self.n_layers} is last_hidden_state of {type(self.model).__name__}, {where}, under "
            f"{self.pooling} pooling; {self.name} ({self.family}) retrieves with it."
        )

    # What each family defines.

    @abstractmethod
    def template(self, side: Side) -> Template:
        """Return the authors' words around an item of that side; those of a page hold the placeholder."""

    @abstractmethod
    def plan(self, proportion: float) -> Plan:
        """Return how a picture of these proportions (width / height) is seen."""

    @abstractmethod
    def preprocess(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """Return the pixel inputs of one picture of planned size; arrays of a batch are joined along axis 0."""

    @abstractmethod
    def language_model(self) -> Any:
        """Return the part of the model whose blocks are the layers."""

    def largest_picture(self) -> int | None:
        """Return the most pixels that the image processor's own settings allow, where they set a limit that stays."""
        return None

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run the model; return what it retrieves with, before pooling, [B, T, D]."""
        return self.model(**inputs).last_hidden_state

    def load_weights(self) -> Any:
        """Return the model, in inference mode."""
        return load_model(
            self.checkpoint.folder,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.options.trust_remote_code,
            harmless_unexpected=self.harmless_unexpected,
        )

    def load_processor(self) -> Any:
        """Return the image processor: the pinned class with the checkpoint's settings."""
        return load_image_processor(self.image_processor_class, self.files())

    def files(self) -> Any:
        """Return the folder with tokenizer and image processor."""
        return self.checkpoint.folder

    def closing(self, side: Side) -> str:
        """Return what closes a message of that side, for families where that differs between protocols."""
        defaults = self.protocol_defaults
        return (defaults.query_closing if side == "query" else defaults.page_closing) or ""

    def query_text(self, text: str) -> str:
        """Return a query's text as it enters the template."""
        return text

    def pooled_span(self, ids: np.ndarray, side: Side) -> tuple[int, int]:
        """Return how many leading and trailing tokens are left out of the pooling."""
        return 0, 0

    def extra_key(self) -> dict[str, str]:
        """Return what else of the family changes a number."""
        return {}

    # The protocol.

    def layer_shape(self, side: Side) -> tuple[int, int]:
        """Return (L, D); both sides share their layers."""
        check_side(side)
        return self.n_layers + 1, self.width

    def max_tokens(self, side: Side) -> int:
        """Return the limit of queries in tokens; pages are limited by their pixels."""
        check_side(side)
        return self._limit

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything of the backbone that changes a number of `side` (of either side if None)."""
        key = forward_key(self) | {
            "family": self.family,
            "tokenizer": type(self.tokenizer).__name__,
            "pooling": self.pooling,
            **self.extra_key(),
        }
        if self.layer_pooling is not None:
            key["layer_pooling"] = self.layer_pooling
        for one in SIDES if side is None else (side,):
            check_side(one)
            template = self._templates[one]
            key[f"{one}_prompt"] = self.query_prompt if one == "query" else self.page_prompt
            key[f"{one}_template"] = f"{template.before}{{}}{template.after}"
            if one == "query":
                key["query_max_tokens"] = str(self._limit)
        if side != "query":
            key["page_pixels"] = f"{self.min_pixels} to {self.max_pixels}"
            key["image_processor"] = self.image_processor_class
            key["pillow"] = metadata.version("pillow")
        return key

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items tokenised, with their templates; pictures are planned here and drawn in :meth:`embed`.

        Raises
        ------
        BackboneError
            If `side` is unknown, the items are not that side's, or nothing draws the pages.
        """
        check_side(side)
        ids = [item_id(item, side) for item in items]
        if side == "query":
            texts = [item.text for item in items]
            return [self.encode_query(name, text) for name, text in zip(ids, texts, strict=True)]
        bar = tqdm(ids, desc="measuring pages", unit="page", delay=2, leave=None, disable=not self.checkpoint.progress)
        return [self._page(name) for name in bar]

    def collate(
        self, batch: Sequence[Encoded], padding_side: str = "right"
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Pad a batch and draw its pictures; return the model's inputs and the pooling mask [B, T]."""
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        inputs, pool_mask = pad_batch(batch, fill, padding_side, self.device)
        return {**inputs, **join_pixels(batch, self.device)}, pool_mask

    def texts_read(self, pages: Sequence[Page]) -> None:
        """Return None: pages are looked at as pictures."""
        return

    def embed_kept(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Draw the batch's pictures, run one forward and pool inside it; return [B, R, D], float32."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        return self.embed_collated(*self.collate(batch))

    def embed_chosen(self, batch: Sequence[Encoded], layers: Sequence[int]) -> np.ndarray:
        """Run one forward as far as the highest of these layers; return them as :meth:`embed` does, [B, K, D]."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        return self.embed_collated(*self.collate(batch), layers)

    def embed_collated(
        self, inputs: Mapping[str, torch.Tensor], pool_mask: torch.Tensor, chosen: Sequence[int] | None = None
    ) -> np.ndarray:
        """Run one forward over a padded batch, see :meth:`collate`.

        Returns
        -------
        ndarray [B, R, D] or [B, K, D]
            All that is kept of it, or the layers that are chosen.
        """
        return self.pool_forward(lambda: self.forward(inputs), pool_mask, chosen)

    def encode_query(self, name: str, text: str) -> Encoded:
        """Return one query in its template."""
        spoken = self.query_text(without_markers(text, (self.placeholder,)))
        ids, truncated = encode_between(self.tokenizer, self._templates["query"], spoken, self._limit)
        return self._encoded(name, "query", ids, truncated=truncated, empty=not text.strip())

    def _page(self, page_id: str) -> Encoded:
        plan = self.plan(self.pictures.proportion(page_id))
        ids, _ = encode_between(self.tokenizer, self._templates["page"], "", 1 << 30)
        ids = expand_placeholder(ids, self._placeholder_id, plan.visual)
        return self._encoded(
            page_id, "page", ids, pixels=lambda: self.preprocess(self.pictures.draw(page_id, plan.size))
        )

    def _encoded(self, name: str, side: Side, ids: np.ndarray, **facts: Any) -> Encoded:
        leading, trailing = self.pooled_span(ids, side)
        inputs = {"input_ids": ids.astype(np.int32), **self.token_inputs(ids, side)}
        return Encoded(name, side, inputs, len(ids), prompt_tokens=leading, closing_tokens=trailing, **facts)

    def token_inputs(self, ids: np.ndarray, side: Side) -> dict[str, np.ndarray]:
        """Return further inputs of one number a token."""
        return {}

    def _probe(self) -> dict[str, torch.Tensor]:
        ids, _ = encode_between(self.tokenizer, Template("", ""), "a", 1 << 30)
        ids = ids if len(ids) else np.zeros(1, dtype=np.int64)
        return {
            "input_ids": torch.from_numpy(ids)[None].to(self.device),
            "attention_mask": torch.ones((1, len(ids)), dtype=torch.int64, device=self.device),
        }

    def _pixels(self) -> tuple[int, int]:
        fewest, given = self.protocol_defaults.min_pixels, self.options.max_pixels
        if given is not None and given < fewest:
            raise BackboneError(f"max_pixels must be at least {fewest} for {self.family}; got {given}")
        largest = self.largest_picture()
        if given is not None and largest is not None and given > largest:
            logger.warning(
                "--max-pixels %d is above the %d pixels that the image processor of %s takes, which are used",
                given,
                largest,
                self.name,
            )
        return fewest, self.protocol_defaults.max_pixels if given is None else given
