"""Taking it home: one object that encodes queries and pages, and its exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miner_diag.serving.errors import ServingError
from miner_diag.serving.retriever import EncodedPages, FusedRetriever

if TYPE_CHECKING:
    from miner_diag.serving.sentence_module import load_sentence_transformer

__all__ = ["EncodedPages", "FusedRetriever", "ServingError", "load_sentence_transformer"]


def __getattr__(name: str) -> Any:
    """Import what needs sentence-transformers when it is asked for."""
    if name == "load_sentence_transformer":
        from miner_diag.serving.sentence_module import load_sentence_transformer

        return load_sentence_transformer
    raise AttributeError(f"module {__name__} has no attribute {name!r}")
