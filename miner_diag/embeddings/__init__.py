"""One forward per item, pooled vectors of every layer, and the store they are kept in.

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
from miner_diag.embeddings.job import Embedded, StoreOptions, embed
from miner_diag.embeddings.noise import NoiseFloor, noise_floor, noise_floor_of
from miner_diag.embeddings.rows import StoreRows
from miner_diag.embeddings.store import (
    DamagedStoreError,
    EmbeddingStore,
    ForeignStoreError,
    StoreError,
    UnfinishedStoreError,
    open_store,
)

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
    "UnfinishedStoreError",
    "corpus_key",
    "embed",
    "extract",
    "extract_corpus",
    "noise_floor",
    "noise_floor_of",
    "open_store",
    "plan_batches",
    "plan_shards",
    "store_key",
]
