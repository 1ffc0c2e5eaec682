"""ColPali, ColQwen2 and ColModernVBERT: late interaction over a page's picture, through transformers' own classes.

Prompts, query augmentation and picture tokens are those of each class's processor, called for one item at a time; all
tokens take part, as in its ``score_retrieval``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from miner_diag.backbones.base import BackboneError, CheckpointError, Encoded, Side, forward_key, ids_of
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.families import late_class
from miner_diag.backbones.late import unit_tokens
from miner_diag.backbones.loading import choose_device, load_model, load_processor
from miner_diag.backbones.revision import folder_revision
from miner_diag.backbones.settings import choose_dtype, limit_within
from miner_diag.corpus.images import on_white

if TYPE_CHECKING:
    from miner_diag.corpus.core import Page, Query

PROCESSORS = {
    "ColPaliForRetrieval": "ColPaliProcessor",
    "ColQwen2ForRetrieval": "ColQwen2Processor",
    "ColModernVBertForRetrieval": "ColModernVBertProcessor",
}
"""The processor of each late-interaction class."""

LONGEST_SIDE = 1024
"""The smallest longer side, in pixels, that a page is drawn at; the image processor resizes from there."""

_TOKENS = ("input_ids", "token_type_ids")
_DROPPED = ("attention_mask", "labels", "mm_token_type_ids")  # made anew, for training, not taken by these classes


class ColVision:
    """A checkpoint of one of the ``Col…ForRetrieval`` classes over the pictures of pages.

    Batches are padded on the right. One forward per page: picture tokens are computed once.

    Parameters
    ----------
    checkpoint : Checkpoint
        The folder with its processor. Of its options, `max_tokens` is the longest input (a query's text is cut to fit,
        its augmentation stays), and the prompts stand in place of the processor's ``query_prefix`` and
        ``visual_prompt_prefix``; "auto" runs the forward in bfloat16 on a GPU, in float32 on a CPU.

    Raises
    ------
    CheckpointError
        If the folder cannot be loaded whole; the message says what is missing.
    """

    long_pages = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        folder, options = checkpoint.folder, checkpoint.options
        retriever = late_class(folder)
        if retriever is None:
            raise CheckpointError(
                f"{folder / 'config.json'} must name one of {', '.join(PROCESSORS)} as its architecture, and does not"
            )
        self.options, self.name, self.architecture = options, checkpoint.name, retriever.name
        self.render = checkpoint.pictures.render
        self.device = choose_device(options.device, self.name)
        self.dtype = choose_dtype(options.dtype, self.device, self.name, on_gpu=torch.bfloat16)
        self.processor = load_processor(folder, getattr(transformers, PROCESSORS[self.architecture]))
        query_prompt = checkpoint.changes.get("query_prompt") if options.query_prompt is None else options.query_prompt
        if query_prompt is not None:
            self.processor.query_prefix = query_prompt
        if options.page_prompt is not None:
            self.processor.visual_prompt_prefix = self._page_prompt(options.page_prompt)
        self.model = load_model(
            folder, dtype=self.dtype, device=self.device, model_class=getattr(transformers, self.architecture)
        )
        text = self.model.config.get_text_config()
        text.use_cache = False
        positions = int(text.max_position_embeddings)
        self.max_tokens = limit_within(options.max_tokens, positions, positions)
        self.revision = folder_revision(folder)
        self.width = int(self.model.config.embedding_dim)
        size = dict(self.processor.image_processor.size)
        longest = size.get("longest_edge") or 0
        # Qwen2's longest_edge counts pixels of the whole picture, the others' the pixels of a side.
        self.longest_side = LONGEST_SIDE if "shortest_edge" in size else max(LONGEST_SIDE, longest)
        self.last_layer = (
            f"Token vectors are the embeddings of {self.architecture}: its last layer, projected to {self.width} "
            "dimensions, L2-normalised; all tokens have one, prompt and augmentation included."
        )

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything of the backbone that changes a number of `side` (of either side if None)."""
        processor = self.processor
        key = forward_key(self) | {
            "tokenizer": type(processor.tokenizer).__name__,
            "max_tokens": str(self.max_tokens),
        }
        if side != "page":
            key |= {"query_prompt": processor.query_prefix, "query_augmentation": processor.query_augmentation_token}
        if side != "query":
            key |= {
                "page_prompt": processor.visual_prompt_prefix,
                "image_processor": type(processor.image_processor).__name__,
                "longest_side": str(self.longest_side),
                "pillow": metadata.version("pillow"),
            }
        return key

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items with their prompts, pages as pixels: some megabytes each, so prepare a few at once.

        Raises
        ------
        BackboneError
            If `side` is unknown, the items are not that side's, nothing draws the pages, or a page's picture alone
            has more tokens than the model takes.
        """
        one = self._query if side == "query" else self._page
        return [one(item_id, item) for item_id, item in zip(ids_of(items, side), items, strict=True)]

    def embed_tokens(self, batch: Sequence[Encoded]) -> list[np.ndarray]:
        """Run one forward; return [T_i, D] float32 of each item."""
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        inputs = self.collate(batch)
        with torch.inference_mode():
            embeddings = self.model(**inputs).embeddings
        return unit_tokens(embeddings, inputs["attention_mask"])

    def collate(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Pad a batch: tokens on the right; pictures of fewer patches or tiles with zeros, which the models drop."""
        length = max(item.n_tokens for item in batch)
        mask = np.zeros((len(batch), length), dtype=np.int64)
        for row, item in enumerate(batch):
            mask[row, : item.n_tokens] = 1
        inputs = {"attention_mask": torch.from_numpy(mask)}
        for name, first in batch[0].inputs.items():
            size = length if name in _TOKENS else max(len(item.inputs[name]) for item in batch)
            fill = (self.processor.tokenizer.pad_token_id or 0) if name == "input_ids" else 0
            padded = np.full((len(batch), size, *first.shape[1:]), fill, dtype=first.dtype)
            for row, item in enumerate(batch):
                padded[row, : len(item.inputs[name])] = item.inputs[name]
            inputs[name] = torch.from_numpy(padded)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def _page_prompt(self, given: str) -> str:
        """Return the user's prompt of pages; it must hold the picture's token as often as the processor's own does."""
        token = str(getattr(self.processor, "image_token", ""))
        default = self.processor.visual_prompt_prefix
        if token and default.count(token) != given.count(token):
            raise BackboneError(
                f"--page-prompt of {self.name} must hold the picture's token {token} as often as the checkpoint's own "
                f"prompt, {default!r}; got {given!r}"
            )
        return given

    def _query(self, item_id: str, query: Any) -> Encoded:
        text = query.text
        inputs = self._process_query(text)
        over, truncated = len(inputs["input_ids"]) - self.max_tokens, False
        while over > 0:
            spans = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            starts = [start for start, _ in spans["offset_mapping"]]
            if over > len(starts):
                raise BackboneError(
                    f"max_tokens is {self.max_tokens}, which the prompt and the augmentation of a query fill; raise it"
                )
            text, truncated = text[: starts[-over]], True
            inputs = self._process_query(text)
            over = len(inputs["input_ids"]) - self.max_tokens
        n_tokens = len(inputs["input_ids"])
        return Encoded(item_id, "query", inputs, n_tokens, truncated=truncated, empty=not query.text.strip())

    def _process_query(self, text: str) -> dict[str, np.ndarray]:
        return _single(self.processor.process_queries(text=[text]))

    def _page(self, item_id: str, _page: Any) -> Encoded:
        if self.render is None:
            raise BackboneError(
                f"{self.name} looks at pictures, but nothing draws page {item_id}; give render=corpus.render"
            )
        picture = on_white(self.render(item_id, self.longest_side))
        inputs = _single(self.processor.process_images(images=[picture]))
        n_tokens = len(inputs["input_ids"])
        if n_tokens > self.max_tokens:
            raise BackboneError(
                f"page {item_id!r} has {n_tokens} tokens, {self.name} takes {self.max_tokens}; lower the size in its "
                "preprocessor_config.json"
            )
        return Encoded(item_id, "page", inputs, n_tokens)


def _single(processed: Any) -> dict[str, np.ndarray]:
    """Return the inputs of a batch of one without the batch's dimension."""
    return {name: value[0].numpy() for name, value in processed.items() if name not in _DROPPED}
