"""Taking it home: one object that encodes queries and pages, and its exports."""

from miner_diag.serving.errors import ServingError
from miner_diag.serving.retriever import EncodedPages, FusedRetriever

__all__ = ["EncodedPages", "FusedRetriever", "ServingError"]
