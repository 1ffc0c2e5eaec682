"""Files of qrels and runs: TREC, tab-separated and JSON forms; what is wrong is named with its line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.qrels import Pair, PairFormat, Qrels, number, read_pairs, read_qrels

__all__ = ["Qrels", "Run", "read_qrels", "read_run"]

Run = dict[str, dict[str, float]]

MTEB = "mteb_model_meta"
"""The key that a prediction file of mteb has beside its subsets."""


def read_run(path: Path | str) -> Run:
    """Read a run: TREC (``query Q0 page rank score tag``), three columns (``query page score``) or JSON.

    JSON is ``{query: {page: score}}``, as ranx writes it, or the prediction file of mteb, which holds that for each of
    its subsets. Only scores rank; the rank column of a TREC run must not say otherwise. Tabs, spaces and headers are
    read as in `read_qrels`.

    Raises
    ------
    ValueError
        As in `read_qrels`; scores must be finite, ranks whole numbers, and a page of a better rank must not have a
        lower score.
    """
    run: Run = {}
    ranked: dict[str, list[Pair]] = {}
    for pair in read_pairs(path, RUN):
        run.setdefault(pair.query_id, {})[pair.page_id] = pair.value
        if pair.rank is not None:
            ranked.setdefault(pair.query_id, []).append(pair)
    for pairs in ranked.values():
        _refuse_other_order(pairs)
    return run


def _refuse_other_order(pairs: Sequence[Pair]) -> None:
    """Raise ValueError where ranks and scores of one query order its pages in two ways, as distances would."""
    ranks = np.array([pair.rank for pair in pairs])
    with np.errstate(over="ignore", under="ignore"):  # what float32 cannot hold is found where scores are compared
        scores = np.array([pair.value for pair in pairs]).astype(np.float32)
    order = np.lexsort((-scores, ranks))
    rises = np.flatnonzero(np.diff(scores[order]) > 0)
    if len(rises):
        better, worse = pairs[order[rises[0]]], pairs[order[rises[0] + 1]]
        raise ValueError(
            f"{worse.where}: page {worse.page_id!r} of query {worse.query_id!r} has the rank {worse.rank} and the "
            f"score {worse.value:g}, page {better.page_id!r} the better rank {better.rank} and the lower score "
            f"{better.value:g}. Only scores rank, the highest first: turn the sign of distances, or correct the ranks"
        )


def _queries_of(content: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return each query of a JSON run with its pages; of a prediction file of mteb, those of all its subsets."""
    if MTEB not in content:
        return content.items()
    return _of_subsets({name: splits for name, splits in content.items() if name != MTEB})


def _of_subsets(subsets: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    found: dict[str, str] = {}
    for name, splits in subsets.items():
        if not isinstance(splits, dict) or not all(isinstance(queries, dict) for queries in splits.values()):
            raise ValueError(f"subset {name!r} must be {{split: {{query: {{page: score}}}}}}, as mteb writes it")
        for split, queries in splits.items():
            for query_id, pages in queries.items():
                if query_id in found:
                    raise ValueError(
                        f"query {query_id!r} stands in {found[query_id]} and in {name}, {split}; keep one subset and "
                        "split of the file, as {query: {page: score}}"
                    )
                found[query_id] = f"{name}, {split}"
                yield query_id, pages


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
    ranks={6: 3},
    queries_of=_queries_of,
)
