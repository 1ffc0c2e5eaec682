"""mteb as a second harness: retrievers and saved systems of ours as its models, pages of ours as its tasks.

Importing this does not import mteb; its functions need the extra ``mteb``.
"""

from miner_diag.evaluation.mteb.model import MtebModel, load_mteb_model
from miner_diag.evaluation.mteb.task import retrieval_task

__all__ = ["MtebModel", "load_mteb_model", "retrieval_task"]
