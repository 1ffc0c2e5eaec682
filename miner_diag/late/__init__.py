"""Late interaction, for comparison: a vector per token, MaxSim, and what that costs in tokens and bytes."""

from miner_diag.late.job import LateOptions, LateScores, Partner, late_scores

__all__ = ["LateOptions", "LateScores", "Partner", "late_scores"]
