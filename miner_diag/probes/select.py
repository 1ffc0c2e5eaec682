"""Which layers to keep: the best, all that come close to the final one, or those that add to it; and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from miner_diag.arrays import finite_array, label_array, real_array
from miner_diag.cka.jackknife import t_quantile
from miner_diag.retrieval.ndcg import ndcg_at_k
from miner_diag.retrieval.relevance import Relevance
from miner_diag.stats import effective_number

Rule = Literal["top_k", "within_delta", "greedy"]


@dataclass(frozen=True)
class SelectionRule:
    """How layers are chosen; the final layer always stays."""

    rule: Rule = "greedy"
    """How layers are chosen. top_k takes the best by nDCG@5. within_delta takes all that are at most delta below the
    final layer. greedy adds layer by layer, by the gain in nDCG@5 of the fused score, which is the sum of the layers'
    cosines."""
    top_k: int = 3
    """The number of layers that top_k keeps, the final one included."""
    delta: float = 0.05
    """The largest distance from the final layer that within_delta allows, in nDCG@5."""
    min_gain: float = 0.0
    """The gain in nDCG@5 that greedy demands of every further layer: it stops when no layer adds more than this."""
    gain_confidence: float = 0.95
    """greedy adds a layer only if the whole interval of its gain at this confidence lies above min_gain, over documents
    where they are known, so that no layer is kept for what may be noise. 0 takes the estimate itself."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, the final layer; got {self.top_k}")
        if self.delta < 0 or self.min_gain < 0:
            raise ValueError(f"delta and min_gain must be at least 0; got {self.delta} and {self.min_gain}")
        if not 0 <= self.gain_confidence < 1:
            raise ValueError(f"gain_confidence must be at least 0 and below 1; got {self.gain_confidence}")
        for name, rule in (
            ("top_k", "top_k"),
            ("delta", "within_delta"),
            ("min_gain", "greedy"),
            ("gain_confidence", "greedy"),
        ):
            if rule != self.rule and getattr(self, name) != getattr(SelectionRule, name):
                raise ValueError(
                    f"{name} is an option of rule {rule} and has no effect with rule {self.rule}; leave it out, or "
                    f"choose --rule {rule}"
                )

    def check(self, n_layers: int) -> None:
        """Raise ValueError if there are fewer layers than are to be kept."""
        if self.rule == "top_k" and self.top_k > n_layers:
            raise ValueError(f"top_k must be at most the number of layers, {n_layers}; got {self.top_k}")


class FusedScores:
    """The nDCG@5 per query of the summed scores of any set of layers, each computed once.

    Parameters
    ----------
    scores : ndarray [L, Q, P]
        Scores of each layer's chosen probe.
    relevance : Relevance
        Which pages answer which query.
    clusters : sequence [Q] of str, optional
        Document of each query; each query counts for itself if this is not given.

    Raises
    ------
    ValueError
        If the scores are not [L, Q, P], or the clusters not [Q].
    """

    def __init__(self, scores: np.ndarray, relevance: Relevance, clusters: Sequence[str] | None = None) -> None:
        scores = real_array(scores, "scores")
        if scores.ndim != 3 or not len(scores):
            raise ValueError(f"scores must be [L, Q, P], the scores of each layer; got {list(scores.shape)}")
        self.scores = scores
        self.relevance = relevance
        self.labels = np.arange(relevance.n_queries)
        if clusters is not None:
            self.labels = np.unique(label_array(clusters, "clusters"), return_inverse=True)[1]
            if self.labels.shape != (relevance.n_queries,):
                raise ValueError(
                    f"clusters must label each of the {relevance.n_queries} queries; got {list(self.labels.shape)}"
                )
        self._known: dict[frozenset[int], np.ndarray] = {}

    @property
    def n_layers(self) -> int:
        """L, the number of hidden states."""
        return len(self.scores)

    def ndcg(self, layers: frozenset[int]) -> np.ndarray:
        """Return nDCG@5 [Q] of the sum of these layers' scores."""
        if layers not in self._known:
            self._known[layers] = ndcg_at_k(self.scores[sorted(layers)].sum(axis=0), self.relevance, 5)
        return self._known[layers]


def select(fused: FusedScores, rule: SelectionRule, weights: np.ndarray | None = None) -> list[int]:
    """Return the layers to keep, rising.

    Parameters
    ----------
    fused : FusedScores
        nDCG@5 of layers and of sets of layers.
    rule : SelectionRule
        How to choose.
    weights : ndarray [Q], optional
        How often each query counts, as in a bootstrap resample; each counts once if this is not given.

    Raises
    ------
    ValueError
        If `rule.top_k` exceeds the number of layers, or the weights are not [Q], at least 0 and not all 0.
    """
    final = fused.n_layers - 1
    rule.check(fused.n_layers)
    n_queries = fused.relevance.n_queries
    weights = np.ones(n_queries) if weights is None else finite_array(weights, "weights")
    if weights.shape != (n_queries,) or (weights < 0).any() or not weights.any():
        raise ValueError(
            f"weights must say how often each of the {n_queries} queries counts, at least 0 and not all 0; got "
            f"{list(weights.shape)} from {weights.min(initial=0):g} to {weights.max(initial=0):g}"
        )

    def worth(layers: frozenset[int]) -> float:
        return float(fused.ndcg(layers) @ weights / weights.sum())

    if rule.rule == "greedy":
        return sorted(_greedy(fused, weights, rule))
    alone = [worth(frozenset([layer])) for layer in range(final + 1)]
    if rule.rule == "within_delta":
        return sorted({layer for layer in range(final) if alone[layer] >= alone[final] - rule.delta} | {final})
    inner = sorted(range(final), key=lambda layer: (-alone[layer], -layer))
    return sorted({*inner[: rule.top_k - 1], final})


@dataclass(frozen=True, eq=False)
class Stability:
    """How sure a selection is."""

    frequency: np.ndarray
    """[L] the share of resamples, over all seeds, that keep the layer."""
    exact: float
    """The share of resamples that keep the very set that all queries choose with the first seed."""
    n_resamples: int
    """The number of resamples for each seed."""
    n_seeds: int
    """The number of trainings."""
    by_seed: tuple[tuple[int, ...], ...]
    """The layers that all queries choose, for each seed."""


def stability(
    runs: list[FusedScores],
    rule: SelectionRule,
    rng: np.random.Generator,
    *,
    n_resamples: int = 200,
) -> Stability:
    """Select again on bootstrap resamples of the queries, for the probes of every seed.

    Parameters
    ----------
    runs : list of FusedScores
        The scores of each training; where they know documents, whole documents are drawn.
    rule : SelectionRule
        How to choose.
    rng : Generator
        Generator for the resamples.
    n_resamples : int
        Number of resamples for each seed.
    """
    labels = runs[0].labels
    n_units = int(labels.max()) + 1
    chosen = [tuple(select(run, rule)) for run in runs]
    counts, exact = np.zeros(runs[0].n_layers), 0
    for run in runs:
        for _ in range(n_resamples):
            drawn = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units).astype(np.float64)
            layers = select(run, rule, drawn[labels])
            counts[layers] += 1
            exact += tuple(layers) == chosen[0]
    total = len(runs) * n_resamples
    return Stability(counts / total, exact / total, n_resamples, len(runs), tuple(chosen))


def _greedy(fused: FusedScores, weights: np.ndarray, rule: SelectionRule) -> frozenset[int]:
    final = fused.n_layers - 1
    kept = frozenset([final])
    while len(kept) < fused.n_layers:
        gains = {layer: fused.ndcg(kept | {layer}) - fused.ndcg(kept) for layer in range(final) if layer not in kept}
        sure = {layer: gain for layer, gain in gains.items() if _low(gain, weights, fused.labels, rule) > rule.min_gain}
        if not sure:
            break
        kept |= {max(sure, key=lambda layer: (float(sure[layer] @ weights), layer))}
    return kept


def _low(gain: np.ndarray, weights: np.ndarray, labels: np.ndarray, rule: SelectionRule) -> float:
    """Return the lower end of the interval of a mean gain, from the spread of documents' sums (cluster-robust)."""
    mean = float(gain @ weights / weights.sum())
    if rule.gain_confidence == 0:
        return mean
    sizes = np.bincount(labels, weights)
    sums = np.bincount(labels, weights * (gain - mean))
    n_units = int((sizes > 0).sum())
    if n_units < 2:
        return -np.inf
    error = np.sqrt(n_units / (n_units - 1) * np.square(sums).sum()) / weights.sum()
    return mean - t_quantile(rule.gain_confidence, effective_number(sizes[sizes > 0])) * float(error)
