"""The table behind the figure of the alignment ratio: what a projection gains at each layer, beside each ratio."""

from __future__ import annotations

import pandas as pd

from miner_diag.probes.compare_kinds import spearman

READINGS = {
    "alignment_ratio_page_final": "alignment ratio, page to final",
    "alignment_ratio_query_final": "alignment ratio, query to final",
    "alignment_ratio_query_page": "alignment ratio, query to its page",
}
"""Column of ``probes.csv`` -> what the figure calls it, in its order."""

COLUMNS = ("reading", "layer", "ratio", "difference", "low", "high", "p_holm", "spearman")
"""Columns of ``ratio.csv``: the alignment ratio of a layer, nDCG@5 of its projection less that of its base probe with
its interval, and Spearman's correlation of the two over the layers, the same in every row of a reading."""


def ratio_table(probes: pd.DataFrame) -> pd.DataFrame:
    """Return ``ratio.csv``: a row for each reading of the alignment ratio and each layer where it exists.

    Parameters
    ----------
    probes : DataFrame
        The rows of ``probes.csv``.
    """
    rows = probes[probes["kind"] == "normalized_projection"].drop(columns=["low", "high"])  # of nDCG@5 itself
    names = {"difference_to_other_kind": "difference", "difference_low": "low", "difference_high": "high"}
    rows = rows.rename(columns=names)
    parts = []
    for reading in READINGS:
        if reading in rows and rows[reading].notna().any():
            there = rows[rows[reading].notna()]
            ratio = there[reading].astype(float)
            rho = spearman(ratio.to_numpy(), there["difference"].to_numpy(float)) if len(there) > 2 else None
            parts.append(there.assign(reading=reading, ratio=ratio, spearman=rho)[list(COLUMNS)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
