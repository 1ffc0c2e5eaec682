"""Report: what the stages measured, on one table and in one picture."""

from miner_diag.report.main_table import ReportError, cost_figure, main_table

__all__ = ["ReportError", "cost_figure", "main_table"]
