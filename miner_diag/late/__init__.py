"""Late interaction, for comparison: a vector per token, MaxSim, and what that costs in tokens and bytes."""

from miner_diag.evaluation.late import LateScores, score_late

__all__ = ["LateScores", "score_late"]
