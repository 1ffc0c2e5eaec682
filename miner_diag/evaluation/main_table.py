"""The main table: backbones, chosen heads, fusions, late interaction, run files and BM25, with bytes per page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

COLUMNS = (
    "data",
    "queries",
    "split",
    "model",
    "system",
    "role",
    "low",
    "high",
    "backbone",
    "difference_to_backbone",
    "difference_low",
    "difference_high",
    "p_value",
    "p_holm",
    "family",
    "verdict",
    "detectable",
    "relative",
    "head",
    "difference_to_head",
    "head_difference_low",
    "head_difference_high",
    "head_p_value",
    "head_p_holm",
    "head_family",
    "head_verdict",
    "head_detectable",
    "bytes_per_page",
    "share_of_characters_read",
    "n_queries",
    "n_documents",
    "effective_documents",
    "confidence",
)
"""Columns of ``main_table.csv``, which are those of ``comparison.csv`` but for what belongs to a training. The metric
stands behind the role."""

ROLES = ("backbone", "head", "fusion", "late", "run", "lexical")
"""What the table holds, in its order; of the heads the chosen ones alone."""


def metric_of(table: pd.DataFrame) -> str:
    """Return the metric of a table of compared systems, which is the name of its column."""
    return next(name for name in table.columns if re.fullmatch(r"ndcg_at_\d+", name))


def main_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the main table: each backbone with its chosen head, its fusions and what is held against it.

    Parameters
    ----------
    table : DataFrame
        ``comparison.csv``. The head of a model that the others are compared with is its chosen head.

    Returns
    -------
    DataFrame
        The same numbers, so that no interval and no p value of a system differs between the two tables.
    """
    chosen = set(table.loc[table["head"].notna(), ["model", "head"]].itertuples(index=False, name=None))
    is_chosen = np.array([pair in chosen for pair in zip(table["model"], table["system"], strict=True)], dtype=bool)
    kept = table["role"].isin(ROLES) & (table["role"].ne("head") | is_chosen)
    rows = table[kept]
    held_against = rows["backbone"].where(rows["role"].ne("backbone"), rows["model"])
    models = {model: number for number, model in enumerate(rows.loc[rows["role"].eq("backbone"), "model"])}
    roles = {role: number for number, role in enumerate(ROLES)}
    order = pd.DataFrame({"model": held_against.map(models), "role": rows["role"].map(roles)})
    columns = [*COLUMNS]
    columns.insert(columns.index("role") + 1, metric_of(table))
    return rows.loc[order.sort_values(["model", "role"], kind="stable").index, columns].reset_index(drop=True)
