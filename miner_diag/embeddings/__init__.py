"""One forward per item: pooled vectors of every layer, or token vectors, and the stores they are kept in.

Importing this loads no model library.
"""

from miner_diag.embeddings.batching import plan_batches, plan_shards
from miner_diag.embeddings.extract import (
    CorpusStores,
    NonFiniteError,
    OutOfMemoryError,
    corpus_key,
    extract,
    extract_corpus,
    store_key,
)
from miner_diag.embeddings.extract_tokens import TokenStores, extract_corpus_tokens, extract_tokens
from miner_diag.embeddings.job import Embedded, StoreOptions, embed
from miner_diag.embeddings.noise import NoiseFloor, noise_floor, noise_floor_of
from miner_diag.embeddings.rows import StoreRows
from miner_diag.embeddings.shards import DamagedStoreError, ForeignStoreError, StoreError, UnfinishedStoreError
from miner_diag.embeddings.store import EmbeddingStore, open_store
from miner_diag.embeddings.tokens import TokenCost, TokenStore, open_token_store, score_stores

__all__ = [
    "CorpusStores",
    "DamagedStoreError",
    "Embedded",
    "EmbeddingStore",
    "ForeignStoreError",
    "NoiseFloor",
    "NonFiniteError",
    "OutOfMemoryError",
    "StoreError",
    "StoreOptions",
    "StoreRows",
    "TokenCost",
    "TokenStore",
    "TokenStores",
    "UnfinishedStoreError",
    "corpus_key",
    "embed",
    "extract",
    "extract_corpus",
    "extract_corpus_tokens",
    "extract_tokens",
    "noise_floor",
    "noise_floor_of",
    "open_store",
    "open_token_store",
    "plan_batches",
    "plan_shards",
    "score_stores",
    "store_key",
]
