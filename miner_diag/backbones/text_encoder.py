"""A text encoder from a local folder as a page retriever: it reads a page's text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from miner_diag.backbones.base import (
    SIDES,
    BackboneError,
    CheckpointError,
    Encoded,
    Side,
    check_side,
    forward_key,
    ids_of,
)
from miner_diag.backbones.batches import pad_batch
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.hooks import find_blocks, passes_final_norm
from miner_diag.backbones.layer_pooling import TwoPoolings
from miner_diag.backbones.loading import choose_device, load_model, load_tokenizer
from miner_diag.backbones.options import LongPages, Pooling, WindowPooling
from miner_diag.backbones.pipeline import read_pipeline
from miner_diag.backbones.pooling import Pooler
from miner_diag.backbones.reader import PageReader
from miner_diag.backbones.revision import folder_revision
from miner_diag.backbones.settings import check_vocabulary, choose_dtype, choose_limit, choose_pooling
from miner_diag.backbones.windows import (
    characters_covered,
    join_windows,
    text_windows,
    window_batches,
    windows_of,
)

if TYPE_CHECKING:
    from miner_diag.corpus.core import Page, Query

_ONE_INPUT: tuple[int, ...] = ()

TEXTS_AT_ONCE = 256
"""The number of texts that are tokenised between two steps of the progress bar."""


class TextEncoder(TwoPoolings):
    """A transformers or sentence-transformers checkpoint over the text of queries and pages.

    Its last layer, L2-normalised, is what sentence-transformers returns for the same text, where that is within the
    limit. Both sides pass the same layers. A longer text is cut at the limit, or read in windows as long as the limit,
    whose pooled vectors become one in every layer (:mod:`miner_diag.backbones.windows`). Under cls and last pooling
    each window has a first or last token of its own, and the item's vector is the mean of their states: weighted by the
    windows' tokens, or all alike. Such a checkpoint was trained on single inputs, so this mean is our choice.

    Batches are padded on the right, where positions count from 0 for every item; pooling reads the attention mask, so
    it would not matter.

    An empty text (a page that shows none, an empty query) is embedded as the prompt and special tokens alone,
    so all such pages share one vector; where a tokenizer gives no token at all, its end-of-text token stands in.

    Parameters
    ----------
    checkpoint : Checkpoint
        The folder with weights and tokenizer, and what overrules the pooling, limit, prompts, device and dtype that
        its files state. A pooling must be given where they state none.
    reader : PageReader, optional
        Where a page's text comes from; what the options say if not given.

    Raises
    ------
    CheckpointError
        If the folder cannot be loaded as a text encoder; the message says what is missing.
    """

    shared_layers = True

    def __init__(self, checkpoint: Checkpoint, reader: PageReader | None = None) -> None:
        folder, options = checkpoint.folder, checkpoint.options
        self.folder: Path | None = folder
        self.pipeline = read_pipeline(folder)
        self.options, self.name = options, checkpoint.name
        self.pooling: Pooling = choose_pooling(options.pooling, self.pipeline, folder)
        self.device = choose_device(options.device, self.name)
        self.dtype = choose_dtype(options.dtype, self.device, self.name)
        if reader is None:
            reader = PageReader(options.reader or "auto", checkpoint.pictures.render, progress=checkpoint.progress)
        self.reader = reader
        self.query_prompt = self.pipeline.query_prompt if options.query_prompt is None else options.query_prompt
        self.page_prompt = self.pipeline.page_prompt if options.page_prompt is None else options.page_prompt
        source, trusted = self.pipeline.transformer, options.trust_remote_code
        self.tokenizer = load_tokenizer(source, lower_case=self.pipeline.lower_case, trust_remote_code=trusted)
        self.model = load_model(source, dtype=self.dtype, device=self.device, trust_remote_code=trusted)
        self.revision = folder_revision(folder)
        check_vocabulary(self.tokenizer, self.model, folder)
        config = self.model.config.get_text_config()
        self.n_layers = int(config.num_hidden_layers)
        self.width = int(config.hidden_size)
        self._blocks = find_blocks(self.model, self.n_layers)
        self._limits = {
            side: choose_limit(side, options.max_tokens, self.pipeline, self.tokenizer, self.model) for side in SIDES
        }
        self.long_pages: LongPages | None = options.long_pages or checkpoint.long_pages
        self.window_overlap = options.window_overlap or 0
        self.window_pooling: WindowPooling = options.window_pooling or "tokens"
        if self.long_pages == "truncate":
            self.reader.max_words = self._limits["page"]
        self._prompt_tokens = {side: self._count_prompt(side) for side in SIDES}
        # an overlap that leaves no room is told before anything runs
        for side in SIDES if self.long_pages == "windows" else ():
            self._encode(["a"], ["a " * 2 * self._limits[side]], side)
        self._normed = passes_final_norm(
            self.model, self._blocks, self.collate([self._encode(["a"], ["a"], "query")[0]])[0]
        )
        where = "after the final norm" if self._normed else "as it leaves the last block (no norm stands behind it)"
        self.last_layer = (
            f"Layer {self.n_layers} is last_hidden_state of {type(self.model).__name__}, {where}, under "
            f"{self.pooling} pooling; {self.name} retrieves with it."
        )

    def layer_shape(self, side: Side) -> tuple[int, int]:
        """Return (L, D); both sides share their layers."""
        check_side(side)
        return self.n_layers + 1, self.width

    def max_tokens(self, side: Side) -> int:
        """Return the limit of an input, or of a window, in tokens; prompt and special tokens are included."""
        check_side(side)
        return self._limits[side]

    def key(self, side: Side | None = None) -> dict[str, str]:
        """Return everything of the backbone that changes a number of `side` (of either side if None)."""
        key = forward_key(self) | {
            "tokenizer": type(self.tokenizer).__name__,
            "lower_case": str(self.pipeline.lower_case),
            "pooling": self.pooling,
            "prompt_pooled": str(self.pipeline.include_prompt),
        }
        if self.layer_pooling is not None:
            key["layer_pooling"] = self.layer_pooling
        if self.long_pages == "windows":  # not where texts are cut, so that the keys of other stores stay as they were
            key["long_pages"] = f"windows, {self.window_overlap} tokens of overlap"
            key["window_pooling"] = self.window_pooling
        for one in SIDES if side is None else (side,):
            check_side(one)
            key[f"{one}_prompt"] = self.query_prompt if one == "query" else self.page_prompt
            key[f"{one}_max_tokens"] = str(self._limits[one])
            if one == "page":
                key["reader"] = self.reader.describe()
        return key

    def prepare(self, items: Sequence[Query] | Sequence[Page], side: Side) -> list[Encoded]:
        """Return the items tokenised, with their side's prompt, cut at the limit or in windows.

        Raises
        ------
        BackboneError
            If `side` is unknown, or the items are not that side's.
        """
        ids = ids_of(items, side)
        if side == "query":
            return self._encode(ids, [item.text for item in items], side)
        encoded = self._encode(ids, self.reader.read(items), side)  # type: ignore[arg-type]
        # nobody knows how much stands behind the words at which the reading of a picture was stopped
        stopped = [item.truncated and self.reader.stops_early(page) for item, page in zip(encoded, items, strict=True)]  # type: ignore[arg-type]
        return [
            replace(item, characters=0, characters_read=0) if unknown else item
            for item, unknown in zip(encoded, stopped, strict=True)
        ]

    def prepare_texts(self, texts: Sequence[str], side: Side, prompt: str | None = None) -> list[Encoded]:
        """Return texts tokenised as :meth:`prepare` does, behind another prompt than their side's if one is given."""
        return self._encode([f"{side} {number}" for number in range(len(texts))], texts, side, prompt)

    def texts_read(self, pages: Sequence[Page]) -> list[str]:
        """Return what is read of each page: all of its text, or what stands before the cut."""
        texts = self.reader.read(pages, draw_again=False)
        if self.long_pages == "windows":
            return texts
        encoded = self._encode([page.page_id for page in pages], texts, "page")
        return [text[: item.characters_read] for text, item in zip(texts, encoded, strict=True)]

    def collate(
        self, batch: Sequence[Encoded], padding_side: str = "right"
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Pad a batch; an item that is read in windows has a row for each.

        Returns
        -------
        inputs : dict of Tensor [W, T]
            What the model's forward takes.
        pool_mask : Tensor [W, T]
            The attention mask without the prompt's tokens where the checkpoint leaves those out.
        """
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id or 0}
        return pad_batch(windows_of(batch), fill, padding_side, self.device)

    def embed_kept(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Pass every token once, pool inside the forward, and join the windows; return [B, R, D], float32."""
        return self._embed(batch, None)

    def embed_chosen(self, batch: Sequence[Encoded], layers: Sequence[int]) -> np.ndarray:
        """Pass every token as far as the highest of these layers; return them as :meth:`embed` does, [B, K, D]."""
        return self._embed(batch, layers)

    def embed_collated(
        self, inputs: Mapping[str, torch.Tensor], pool_mask: torch.Tensor, chosen: Sequence[int] | None = None
    ) -> np.ndarray:
        """Run one forward over a padded batch, see :meth:`collate`.

        Returns
        -------
        ndarray [B, R, D] or [B, K, D]
            All that is kept of it, or the layers that are chosen.
        """
        return self.pool_forward(lambda: self.model(**inputs).last_hidden_state, pool_mask, chosen)

    def token_states(self, batch: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run one forward and pool nothing, for late interaction; an item that is read in windows has a row for each.

        Returns
        -------
        states : Tensor [W, T, D]
            The last layer.
        seen : Tensor [W, T] of bool
            True at every token that is no padding.
        own : Tensor [W, T] of bool
            True at the tokens of the item's text: no special token, nothing of the prompt.
        """
        inputs, _ = self.collate(batch)
        frame = torch.tensor(sorted(set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}))
        seen = inputs["attention_mask"].to(torch.bool)
        own = seen & ~torch.isin(inputs["input_ids"], frame.to(self.device))
        for row, item in enumerate(windows_of(batch)):
            own[row, : self._leading_tokens(item.side)] = False
        with torch.inference_mode():
            return self.model(**inputs).last_hidden_state, seen, own

    def plain_forward(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Run the forward and pool the last layer only: what the backbone costs without a diagnosis. [B, D]."""
        vectors = []
        for windows in window_batches(batch):
            inputs, pool_mask = self.collate(windows)
            with torch.inference_mode():
                vectors.append(Pooler(pool_mask, self.pooling)(self.model(**inputs).last_hidden_state).float().cpu())
        return join_windows(torch.cat(vectors).numpy()[:, None], batch, self.window_pooling)[:, 0]

    def _embed(self, batch: Sequence[Encoded], chosen: Sequence[int] | None) -> np.ndarray:
        if not batch:
            raise BackboneError("batch must hold at least one item; got none")
        vectors = [self.embed_collated(*self.collate(windows), chosen) for windows in window_batches(batch)]
        joined = vectors[0] if len(vectors) == 1 else np.concatenate(vectors)
        # without windows there is nothing to join, which a single query feels
        return join_windows(joined, batch, self.window_pooling) if any(item.windows for item in batch) else joined

    def _encode(self, ids: Sequence[str], texts: Sequence[str], side: Side, prompt: str | None = None) -> list[Encoded]:
        if not texts:
            return []
        own = self.query_prompt if side == "query" else self.page_prompt
        prompt = own if prompt is None else prompt
        n_prompt = self._prompt_tokens[side] if prompt == own else self._count_prompt(side, prompt)
        encodings: list[Any] = []
        bar = tqdm(total=len(texts), desc=f"tokenising {side}", delay=2, leave=None, disable=not self.reader.progress)
        with bar:
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                prompted = [prompt + text for text in texts[start : start + TEXTS_AT_ONCE]]
                encodings += self._tokenize(prompted, self._limits[side])
                bar.update(len(prompted))
        names = [name for name in self.tokenizer.model_input_names if name in ("input_ids", "token_type_ids")]
        items = []
        for identity, text, encoding in zip(ids, texts, encodings, strict=True):
            values, lengths = {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids}, _ONE_INPUT
            truncated, characters_read = bool(encoding.overflowing), len(text)
            if truncated and self.long_pages == "windows":
                windows = text_windows(encoding, self._limits[side], self.window_overlap, len(prompt))
                values = {
                    name: list(chain.from_iterable(parts))
                    for name, parts in zip(values, zip(*windows, strict=True), strict=True)
                }
                lengths, truncated = tuple(len(window) for window, _ in windows), False
            elif truncated:
                characters_read = min(characters_covered(encoding, len(prompt)), len(text))
            elif not encoding.ids:
                values = {"input_ids": [self._stand_in()], "token_type_ids": [0]}
            inputs = {name: np.asarray(values[name], dtype=np.int32) for name in names}
            n_tokens = len(inputs["input_ids"])
            items.append(
                Encoded(
                    identity,
                    side,
                    inputs,
                    n_tokens,
                    prompt_tokens=min(n_prompt, n_tokens - 1),
                    windows=lengths,
                    characters=len(text),
                    characters_read=characters_read,
                    truncated=truncated,
                    empty=not text.strip(),
                )
            )
        return items

    def _tokenize(self, texts: list[str], limit: int) -> list[Any]:
        encoded = self.tokenizer(texts, padding=False, truncation=True, max_length=limit, return_attention_mask=False)
        return list(encoded.encodings)

    def _stand_in(self) -> int:
        """Return the token that stands for a text of no tokens."""
        for token in (self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, self.tokenizer.bos_token_id):
            if token is not None:
                return int(token)
        raise CheckpointError(f"the tokenizer of {self.name} gives no token for an empty text and has none to stand in")

    def _count_prompt(self, side: Side, prompt: str | None = None) -> int:
        """Count the leading tokens to leave out of the pooling."""
        return 0 if self.pipeline.include_prompt else self._leading_tokens(side, prompt)

    def _leading_tokens(self, side: Side, prompt: str | None = None) -> int:
        """Count a prompt's tokens, the side's own if none is given; a closing special token is not the prompt's."""
        if prompt is None:
            prompt = self.query_prompt if side == "query" else self.page_prompt
        if not prompt:
            return 0
        ids = self._tokenize([prompt], self._limits[side])[0].ids
        return len(ids) - (1 if ids and ids[-1] in self.tokenizer.all_special_ids else 0)
