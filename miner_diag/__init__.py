"""Layer-wise diagnosis of frozen single-vector page retrievers.

A folder is a stage, in the order the data flows: ``corpus`` (queries, pages, qrels, splits), ``backbones``
(frozen retrievers), ``embeddings`` (one forward per item, every layer kept), ``retrieval`` (nDCG@k, exact
search), ``cka`` (CKA, alignment ratio, the diagnosis). Each has a command: ``python -m miner_diag.cka``.
"""

from miner_diag.version import __version__

__all__ = ["__version__"]
