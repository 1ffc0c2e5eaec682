"""Queries, pages, qrels and splits, from a manifest, a folder of PDFs, or a BEIR table."""

from miner_diag.corpus.core import Corpus, CorpusError, Page, Query, Skipped

__all__ = ["Corpus", "CorpusError", "Page", "Query", "Skipped"]
