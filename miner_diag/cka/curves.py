"""The rows that the figures of layers draw: a row per measure and layer, from records or from ``layers.csv``."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from miner_diag.records import Record, records_to_frame

MEASURES = (
    "cka_page_final",
    "cka_query_final",
    "cka_query_page",
    "alignment_ratio_page_final",
    "alignment_ratio_query_final",
    "alignment_ratio_query_page",
    "ndcg_at_5",
)
"""Measures that ``layers.csv`` holds with both ends of their intervals."""


def curve_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return the records of single layers as a frame.

    The value of a null is its 95th percentile where that is known (debiased CKA), else its mean.
    """
    frame = records_to_frame(records)
    frame = frame[frame["query_id"].isna() & frame["layer"].notna() & frame["other_layer"].isna()].copy()
    null = (frame["measure"] == "cka_query_page_null") & frame["high"].notna()
    frame.loc[null, "value"] = frame.loc[null, "high"]
    return frame


def table_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return what ``layers.csv`` holds in the form of `curve_frame`: columns measure, layer, value, low, high.

    Parameters
    ----------
    table : DataFrame
        As :func:`~miner_diag.cka.table.layer_table` returns it, or as it is read back from the file.
    """
    parts = []
    for measure in MEASURES:
        ends = {end: pd.to_numeric(table[f"{measure}_{end}"]) for end in ("low", "high")}
        parts.append(pd.DataFrame({"value": pd.to_numeric(table[measure]), **ends}).assign(measure=measure))
    level, mean = (pd.to_numeric(table[f"cka_query_page_null_{name}"]) for name in ("p95", "mean"))
    null = pd.DataFrame({"value": level.fillna(mean), "low": np.nan, "high": np.nan})
    parts.append(null.assign(measure="cka_query_page_null"))
    frame = pd.concat([part.assign(layer=table["layer"].to_numpy()) for part in parts], ignore_index=True)
    return frame.loc[frame["value"].notna(), ["measure", "layer", "value", "low", "high"]]
