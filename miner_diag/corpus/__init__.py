"""Queries, pages, qrels and splits, from a manifest, a folder of PDFs, or a BEIR table."""

from miner_diag.corpus.core import Benchmark, Corpus, CorpusError, Page, Query, Skipped
from miner_diag.corpus.folder import load_folder
from miner_diag.corpus.load import load_corpus
from miner_diag.corpus.manifest import load_manifest
from miner_diag.corpus.manifest_file import manifest_names, read_manifest
from miner_diag.corpus.splits import split_of
from miner_diag.corpus.table import load_table

__all__ = [
    "Benchmark",
    "Corpus",
    "CorpusError",
    "Page",
    "Query",
    "Skipped",
    "load_corpus",
    "load_folder",
    "load_manifest",
    "load_table",
    "manifest_names",
    "read_manifest",
    "split_of",
]
