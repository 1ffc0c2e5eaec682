"""What a metric says of every query: the value, and what the order of tied pages could make of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

Values = TypeVar("Values", bound="MetricValues")


@dataclass(frozen=True, eq=False)
class MetricValues:
    """One metric of every query."""

    values: np.ndarray
    """[Q] float64, in [0, 1]: the expectation over all orders of tied pages."""
    worst: np.ndarray
    """[Q] float64: the value if every tie were broken against the query."""
    best: np.ndarray
    """[Q] float64: the value if every tie were broken in its favour."""
    query_ids: tuple[str, ...]
    """[Q] one id per row."""

    def joined(self: Values, *others: Values) -> Values:
        """Return the same metric of these queries, then of those of the others."""
        parts = (self, *others)
        values, worst, best = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "worst", "best")
        )
        query_ids = tuple(query_id for part in parts for query_id in part.query_ids)
        return replace(self, values=values, worst=worst, best=best, query_ids=query_ids)

    @property
    def mean(self) -> float:
        """Mean over queries."""
        return float(self.values.mean())

    @cached_property
    def order_matters(self) -> np.ndarray:
        """[Q] bool: True where the order of tied pages changes the value."""
        return self.best - self.worst > 1e-12  # the two sums run in different orders, so equal may differ by an ulp

    @property
    def tie_rate(self) -> float:
        """Share of queries whose value depends on the order of tied pages."""
        return float(self.order_matters.mean())

    @property
    def bounds(self) -> tuple[float, float]:
        """Mean over queries of the worst and of the best value."""
        return float(self.worst.mean()), float(self.best.mean())
