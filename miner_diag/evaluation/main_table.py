"""The main table: backbones, their chosen heads, their fusions, late interaction and BM25, with bytes per page."""

from __future__ import annotations

import numpy as np
import pandas as pd

COLUMNS = (
    "data",
    "queries",
    "split",
    "model",
    "system",
    "role",
    "ndcg_at_5",
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
    "relative",
    "head",
    "difference_to_head",
    "head_difference_low",
    "head_difference_high",
    "head_p_value",
    "head_p_holm",
    "head_family",
    "head_verdict",
    "bytes_per_page",
    "share_of_characters_read",
    "n_queries",
    "n_documents",
    "effective_documents",
)
"""Columns of ``main_table.csv``, which are those of ``comparison.csv`` but for what belongs to a training."""


def main_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the main table: for each backbone itself, the chosen head, the fusion, late interaction, BM25.

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
    kept = table["role"].isin(["backbone", "fusion", "late", "lexical"]) | (table["role"].eq("head") & is_chosen)
    rows = table[kept]
    held_against = rows["backbone"].where(rows["role"].ne("backbone"), rows["model"])
    models = {model: number for number, model in enumerate(rows.loc[rows["role"].eq("backbone"), "model"])}
    roles = {role: number for number, role in enumerate(("backbone", "head", "fusion", "late", "lexical"))}
    order = pd.DataFrame({"model": held_against.map(models), "role": rows["role"].map(roles)})
    return rows.loc[order.sort_values(["model", "role"], kind="stable").index, list(COLUMNS)].reset_index(drop=True)
