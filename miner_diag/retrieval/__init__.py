"""Exact search, late interaction, nDCG@k and the other metrics, on arrays and on run files."""

from miner_diag.retrieval.formats import read_qrels, read_run
from miner_diag.retrieval.maxsim import maxsim_scores
from miner_diag.retrieval.metric_values import MetricValues
from miner_diag.retrieval.metrics import METRICS, metrics_of_run, metrics_of_scores
from miner_diag.retrieval.ndcg import Ndcg, chance_ndcg, ndcg_at_k, ndcg_of_run, ndcg_with_ties
from miner_diag.retrieval.relevance import Relevance
from miner_diag.retrieval.search import Hits, PreparedPages, score_all, top_k
from miner_diag.retrieval.tokens import TokenVectors

__all__ = [
    "METRICS",
    "Hits",
    "MetricValues",
    "Ndcg",
    "PreparedPages",
    "Relevance",
    "TokenVectors",
    "chance_ndcg",
    "maxsim_scores",
    "metrics_of_run",
    "metrics_of_scores",
    "ndcg_at_k",
    "ndcg_of_run",
    "ndcg_with_ties",
    "read_qrels",
    "read_run",
    "score_all",
    "top_k",
]
