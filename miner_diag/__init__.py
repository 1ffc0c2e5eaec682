"""What the inner layers of a frozen single-vector page retriever know, and one vector that uses them.

A folder is a stage, in the order the data flows: ``corpus`` (queries, pages, qrels, splits), ``retrieval`` (exact
search, nDCG@k), ``backbones`` (frozen retrievers), ``embeddings`` (one forward per item, every layer kept in one
store), ``cka`` (CKA, alignment ratio, the diagnosis), ``probes``, ``fusion`` (the method) and ``evaluation`` (the
measuring). Each has a command, as ``python -m miner_diag.cka``.
"""

from miner_diag.stopping import is_command_being_imported, stop_while_importing
from miner_diag.version import __version__

if is_command_being_imported():
    stop_while_importing()

__all__ = ["__version__"]
