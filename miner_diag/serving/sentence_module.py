"""A served retriever as a module of sentence-transformers: one module from text to vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from miner_diag.backbones.base import Encoded, Side
from miner_diag.fusion.served import tells_sides_apart
from miner_diag.serving.errors import ServingError
from miner_diag.serving.retriever import FusedRetriever
from miner_diag.serving.sentence_folder import prompts_of, text_backbone

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError as error:  # said with the way out, whoever imports this
    raise ServingError(
        "sentence-transformers 6 or later is not installed: pip install 'sentence-transformers>=6.2'"
    ) from error

SIDES: dict[str, Side] = {"query": "query", "document": "page"}
"""What sentence-transformers calls the two sides, as task and as the name of a prompt -> what we call them."""


class FusedModule(InputModule):
    """A backbone and a system over its layers, as the one module of a ``SentenceTransformer``.

    Texts enter as in :class:`FusedRetriever`: long ones in windows, where the backbone reads so. It computes vectors
    and cannot be trained. The prompt is the one that sentence-transformers gives; a text whose prompt is neither the
    query's nor the document's is read as a document.

    Parameters
    ----------
    retriever : FusedRetriever
        Its backbone must read texts.
    """

    forward_kwargs: set[str] = {"task"}  # noqa: RUF012  (an instance variable in the base class)
    save_in_root = True

    def __init__(self, retriever: FusedRetriever) -> None:
        super().__init__()
        backbone = text_backbone(retriever)
        self.retriever, self.backbone = retriever, backbone
        self.tokenizer = backbone.tokenizer
        self.model, self.served = backbone.model, retriever.served  # so that .to(device) moves them
        self.max_seq_length = backbone.max_tokens("page")
        self.tells_sides_apart = tells_sides_apart(retriever.system)

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the texts tokenised, with their prompt.

        Raises
        ------
        ServingError
            If an input is no text, or the system tells queries from pages and neither task nor prompt does.
        """
        for number, text in enumerate(inputs):
            if not isinstance(text, str):
                raise ServingError(f"inputs[{number}] must be a text; got a {type(text).__name__}")
        side = self._side(prompt or "", task)
        return {"items": self.backbone.prepare_texts(list(inputs), side, prompt or ""), "side": side}

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the features with "sentence_embedding" [B, D], of length one."""
        items: Sequence[Encoded] = features["items"]
        self.backbone.device = next(self.model.parameters()).device
        vectors = torch.from_numpy(self.retriever.fuse(items, features["side"]))
        return {**features, "sentence_embedding": vectors.to(self.backbone.device)}

    def get_embedding_dimension(self) -> int:
        """Return the width D of a vector."""
        return self.retriever.width

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the retriever, its backbone with it, as a folder."""
        self.retriever.save_pretrained(output_path, with_backbone=True)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        revision: str | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> FusedModule:
        """Read what :meth:`save` wrote."""
        revision = None if Path(model_name_or_path).is_dir() else revision
        folder = Path(model_name_or_path) / subfolder if subfolder else model_name_or_path
        return cls(FusedRetriever.from_pretrained(folder, revision, trust_remote_code=trust_remote_code))

    def _side(self, prompt: str, task: str | None) -> Side:
        if task in SIDES:
            return SIDES[task]
        queries, pages = self.backbone.query_prompt, self.backbone.page_prompt
        if prompt == queries != pages:
            return "query"
        if self.tells_sides_apart and not prompt == pages != queries:
            raise ServingError(
                f"{self.retriever.name} makes other vectors of queries than of pages, and neither task nor prompt says "
                "which these texts are; use encode_query and encode_document"
            )
        return "page"


def load_sentence_transformer(model: Path | str | FusedRetriever, revision: str | None = None) -> SentenceTransformer:
    """Return a ``SentenceTransformer`` of a folder, a hub id or a retriever, without ``trust_remote_code``.

    sentence-transformers 6 imports no class of another package that a model's files name unless
    ``trust_remote_code=True`` is given, be that package installed or not. Here the class is known beforehand, so that
    nothing in the folder decides what is run.

    Parameters
    ----------
    model : path, str or FusedRetriever
        What ``FusedRetriever.from_pretrained`` takes, or the retriever itself.
    revision : str, optional
        The commit hash of a hub id.
    """
    retriever = model if isinstance(model, FusedRetriever) else FusedRetriever.from_pretrained(model, revision)
    module = FusedModule(retriever)
    return SentenceTransformer(
        modules=[module],
        prompts=prompts_of(module.backbone),
        similarity_fn_name="cosine",
        device=str(module.backbone.device),
    )
