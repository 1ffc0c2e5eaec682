"""Several document splits judged together: how a method does on documents that it has not seen, whichever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from miner_diag.fusion.judge import SystemComparison, judge_systems

HEAD = "head"
"""The head on the final layer that validation liked best in each split."""


@dataclass(frozen=True, eq=False)
class SplitValues:
    """What one split's test documents gave."""

    query_ids: Sequence[str]
    """[Q]."""
    documents: Sequence[str]
    """[Q] the document of each query."""
    values: Mapping[str, np.ndarray]
    """System -> nDCG@5 [S, Q]; holds "backbone", "head" and "fusion"."""


def pool(found: Sequence[SplitValues]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return each system's nDCG@5 [S, U] on all queries that were in some test split, and their documents [U].

    A query that was in the test documents of several splits counts once, with its mean over them.

    Raises
    ------
    ValueError
        If the splits do not hold the same systems with the same number of seeds, or give a query two documents.
    """
    systems = {name: len(values) for name, values in found[0].values.items()}
    document: dict[str, str] = {}
    for fold in found:
        if {name: len(values) for name, values in fold.values.items()} != systems:
            raise ValueError(
                f"found must hold the same systems and seeds in every split; got {systems} and "
                f"{ {name: len(values) for name, values in fold.values.items()} }"
            )
        for query_id, name in zip(fold.query_ids, fold.documents, strict=True):
            if document.setdefault(query_id, name) != name:
                raise ValueError(f"query {query_id} must have one document; got {document[query_id]} and {name}")
    place = {query_id: number for number, query_id in enumerate(document)}
    columns = [np.array([place[query_id] for query_id in fold.query_ids], dtype=np.int64) for fold in found]
    times = np.bincount(np.concatenate(columns), minlength=len(place))
    pooled = {}
    for name, n_seeds in systems.items():
        total = np.zeros((n_seeds, len(place)))
        for fold, own in zip(found, columns, strict=True):
            total[:, own] += fold.values[name]
        pooled[name] = total / times
    return pooled, list(document.values())


def judge_pooled(
    found: Sequence[SplitValues], rng: np.random.Generator, *, by_document: bool = True, confidence: float = 0.95
) -> list[SystemComparison]:
    """Judge backbone, head and fusion on all splits together.

    Parameters
    ----------
    found : sequence of SplitValues
        One per split by document.
    rng : Generator
        For bootstrap and permutations.
    by_document : bool
        Intervals and tests over documents; over queries if not.
    confidence : float
        Of the intervals.

    Notes
    -----
    Trainings of different splits share documents, so their test documents are not quite independent draws; the
    intervals are over documents and seeds, not over training sets.
    """
    values, documents = pool(found)
    return judge_systems(values, rng, head=HEAD, clusters=documents if by_document else None, confidence=confidence)
