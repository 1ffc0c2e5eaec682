"""One forward per item: pooled vectors of every layer, or token vectors, and the one store they are kept in.

Importing this loads no model library.
"""

from miner_diag.embeddings.batching import plan_batches
from miner_diag.embeddings.embedded import CorpusStores, Embedded, EmbeddedCorpus, open_corpus
from miner_diag.embeddings.embedded_tokens import EmbeddedTokens, TokenCorpus, TokenStores, open_token_corpus
from miner_diag.embeddings.forward import NonFiniteError, OutOfMemoryError
from miner_diag.embeddings.noise import NoiseFloor, noise_floor
from miner_diag.embeddings.options import TOKEN_BUDGET, StoreOptions
from miner_diag.embeddings.plan import PlannedShard, plan_shards
from miner_diag.embeddings.shards import DamagedStoreError, ForeignStoreError, StoreError
from miner_diag.embeddings.store import EmbeddingStore, layer_bytes
from miner_diag.embeddings.tokens import StoredDtype, TokenCost, TokenStore, score_stores

__all__ = [
    "TOKEN_BUDGET",
    "CorpusStores",
    "DamagedStoreError",
    "Embedded",
    "EmbeddedCorpus",
    "EmbeddedTokens",
    "EmbeddingStore",
    "ForeignStoreError",
    "NoiseFloor",
    "NonFiniteError",
    "OutOfMemoryError",
    "PlannedShard",
    "StoreError",
    "StoreOptions",
    "StoredDtype",
    "TokenCorpus",
    "TokenCost",
    "TokenStore",
    "TokenStores",
    "layer_bytes",
    "noise_floor",
    "open_corpus",
    "open_token_corpus",
    "plan_batches",
    "plan_shards",
    "score_stores",
]
