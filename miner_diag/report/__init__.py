"""What is made of finished runs: every committed figure again, each from its table alone."""

from miner_diag.report.redraw import figure_of, redraw

__all__ = ["figure_of", "redraw"]
