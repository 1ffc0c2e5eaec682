"""Files of qrels and runs: TREC, tab-separated and JSON forms; what is wrong is named with its line."""

from __future__ import annotations

import math
from pathlib import Path

from miner_diag.qrels import PairFormat, Qrels, number, read_pairs, read_qrels

__all__ = ["Qrels", "Run", "read_qrels", "read_run"]

Run = dict[str, dict[str, float]]


def read_run(path: Path | str) -> Run:
    """Read a run: TREC (``query Q0 page rank score tag``), three columns (``query page score``) or JSON.

    The rank column of a TREC run is ignored: only scores rank. Tabs, spaces and headers are read as in `read_qrels`.

    Raises
    ------
    ValueError
        As in `read_qrels`; scores must be finite.
    """
    run: Run = {}
    for pair in read_pairs(path, RUN):
        run.setdefault(pair.query_id, {})[pair.page_id] = pair.value
    return run


def _score(raw: object) -> float:
    value = number(raw)
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return value


RUN = PairFormat(
    "score",
    {3: (0, 1, 2), 6: (0, 2, 4)},
    "a run has 3 columns (query, page, score) or 6 (query, Q0, page, rank, score, tag)",
    _score,
)
