"""Evaluation: saved systems on any corpus, compared query by query with one bootstrap and stated families of tests."""

from miner_diag.evaluation.compare import (
    Comparison,
    Difference,
    EvaluationError,
    SystemComparison,
    SystemValues,
    compare_systems,
)
from miner_diag.evaluation.document_splits import SplitValues, put_together
from miner_diag.evaluation.main_table import main_table
from miner_diag.evaluation.plots import ablation_figure, cost_figure, folds_figure, query_differences_figure
from miner_diag.evaluation.scored_system import Measures, ScoredSystem

__all__ = [
    "Comparison",
    "Difference",
    "EvaluationError",
    "Measures",
    "ScoredSystem",
    "SplitValues",
    "SystemComparison",
    "SystemValues",
    "ablation_figure",
    "compare_systems",
    "cost_figure",
    "folds_figure",
    "main_table",
    "put_together",
    "query_differences_figure",
]
