"""Which kind each layer needs, by a paired test; and whether a number taken before any training could have told."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from miner_diag.arrays import finite_array, label_array, refuse_other_labels
from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.stats import Interval, holm, paired_bootstrap, paired_permutation

ALPHA = 0.05
"""Significance level of the preference, after Holm's adjustment over the layers."""

THRESHOLDS = tuple(round(0.1 + 0.05 * step, 2) for step in range(29))
"""0.10, 0.15, … 1.50: the thresholds of the alignment ratio that are tried."""

_EXACT = 8  # up to so many layers, all orders are counted: 40,320


@dataclass(frozen=True)
class KindVerdict:
    """One layer's two probes, compared over validation queries."""

    layer: int
    """The layer."""
    benefit: Interval
    """nDCG@5 of the normalized projection less that of the base probe."""
    p_holm: float
    """The p value of the paired permutation test, adjusted over the layers."""
    preferred: Kind | None
    """The better kind; None where the test can't tell them apart."""

    @property
    def chosen(self) -> Kind:
        """The preferred kind, and where there is none the base probe, which has fewer parameters."""
        return self.preferred or "base"


def compare_kinds(
    ndcg: np.ndarray,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> list[KindVerdict]:
    """Compare the two kinds at every layer.

    Parameters
    ----------
    ndcg : ndarray [2, L, Q]
        nDCG@5 of each query, base probe first.
    rng : Generator
        Generator for bootstrap and permutations.
    clusters : sequence [Q], optional
        Documents of the queries; if given, intervals and tests are over documents.
    confidence : float
        Nominal coverage of the intervals.
    """
    base, projected = ndcg
    benefits = [
        paired_bootstrap(of_projection, of_base, rng, clusters=clusters, confidence=confidence)
        for of_projection, of_base in zip(projected, base, strict=True)
    ]
    p_values = holm(
        [
            paired_permutation(of_projection, of_base, rng, clusters=clusters)
            for of_projection, of_base in zip(projected, base, strict=True)
        ]
    )
    return [
        KindVerdict(layer, benefit, float(p), None if p >= ALPHA else KINDS[int(benefit.value > 0)])
        for layer, (benefit, p) in enumerate(zip(benefits, p_values, strict=True))
    ]


def predicted_kinds(ratios: Sequence[float | None], threshold: float) -> list[Kind]:
    """Name the kind that each layer's alignment ratio asks for.

    A layer without a ratio shares no coordinates with the final one that a gate could weigh, so it is taken to need a
    projection.
    """
    return ["base" if ratio is not None and ratio >= threshold else "normalized_projection" for ratio in ratios]


@dataclass(frozen=True)
class RuleScore:
    """How often a threshold of the alignment ratio names the kind that the paired test prefers."""

    threshold: float
    """The alignment ratio from which on a base probe is named."""
    hits: int
    """The number of layers where the named kind is the preferred one."""
    n: int
    """The number of layers where the test prefers a kind at all."""
    loss: float
    """Mean nDCG@5 given away over all layers by taking the named kind instead of the better one."""


def score_rule(ratios: Sequence[float | None], verdicts: Sequence[KindVerdict], threshold: float) -> RuleScore:
    """Say how well one threshold names the preferred kinds."""
    named = predicted_kinds(ratios, threshold)
    decided = [(kind, verdict.preferred) for kind, verdict in zip(named, verdicts, strict=True) if verdict.preferred]
    lost = [
        max(0.0, verdict.benefit.value if kind == "base" else -verdict.benefit.value)
        for kind, verdict in zip(named, verdicts, strict=True)
    ]
    return RuleScore(threshold, sum(kind == wanted for kind, wanted in decided), len(decided), float(np.mean(lost)))


def best_threshold(
    ratios: Sequence[float | None], verdicts: Sequence[KindVerdict], thresholds: Sequence[float] = THRESHOLDS
) -> RuleScore:
    """Return the threshold with the most hits; of equals the one that loses least, then the one nearest to 0.5.

    It is scored on the layers that it is chosen on, so its hits flatter it; see `left_out_hits`.
    """
    return max(
        (score_rule(ratios, verdicts, threshold) for threshold in thresholds),
        key=lambda score: (score.hits, -score.loss, -abs(score.threshold - 0.5)),
    )


def left_out_hits(ratios: Sequence[float | None], verdicts: Sequence[KindVerdict]) -> tuple[int, int]:
    """Return hits and number of decided layers where each layer's kind is named by the best threshold of the others."""
    decided = [layer for layer, verdict in enumerate(verdicts) if verdict.preferred]
    hits = 0
    for layer in decided:
        others = [other for other in range(len(verdicts)) if other != layer]
        if not others:
            continue
        score = best_threshold([ratios[other] for other in others], [verdicts[other] for other in others])
        hits += predicted_kinds([ratios[layer]], score.threshold)[0] == verdicts[layer].preferred
    return hits, len(decided)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, over layers, of a predictor with the benefit of projection."""

    predictor: str
    """The name of the predictor."""
    rho: Interval
    """The correlation, with an interval over bootstrap resamples of the queries; the predictor's own noise is not in
    it."""
    p_value: float
    """The p value of no association, against all orders of the layers (drawn at random beyond eight layers)."""


def correlate(
    name: str,
    predictor: Sequence[float | None],
    ndcg: np.ndarray,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> Correlation | None:
    """Correlate a predictor [L] with the benefit of projection over base; None where it does not exist.

    The interval says what other queries would have given for these layers of this backbone. It does not speak of other
    backbones: that uncertainty is in the p value, which treats the layers as what was drawn.

    Parameters
    ----------
    name : str
        Name of the predictor.
    predictor : sequence [L]
        Layers where it is None are left out; fewer than three, or a constant, give None.
    ndcg : ndarray [2, L, Q]
        nDCG@5 of each query, base probe first.
    rng : Generator
        Generator for the resamples.
    clusters : sequence [Q], optional
        Documents of the queries; if given, whole documents are drawn.
    confidence : float
        Nominal coverage of the interval.
    n_resamples : int
        Number of bootstrap samples.
    """
    layers = [layer for layer, value in enumerate(predictor) if value is not None]
    given = finite_array([predictor[layer] for layer in layers], f"predictor {name}")
    if len(layers) < 3 or np.ptp(given) == 0:
        return None
    benefit = (ndcg[1] - ndcg[0])[layers]  # [L', Q]
    value = spearman(given, benefit.mean(axis=1))
    if value is None:
        return None
    n_queries = benefit.shape[1]
    labels = np.arange(n_queries)
    if clusters is not None:
        labels = np.unique(label_array(clusters, "clusters"), return_inverse=True)[1]
        if labels.shape != (n_queries,):
            raise ValueError(f"clusters must label each of the {n_queries} queries; got {list(labels.shape)}")
    n_units = int(labels.max()) + 1
    drawn = []
    for _ in range(n_resamples):
        weights = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units)[labels]
        rho = spearman(given, benefit @ weights)
        drawn.append(0.0 if rho is None else rho)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    units = None if clusters is None else n_units
    interval = Interval(value, float(low), float(high), confidence, n_queries, units)
    return Correlation(name, interval, _order_test(given, benefit.mean(axis=1), rng))


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None where a side is constant.

    Examples
    --------
    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]))
    -1.0
    """
    refuse_other_labels({"x": x, "y": y})
    sides = [finite_array(side, side_name) for side_name, side in (("x", x), ("y", y))]
    if sides[0].ndim != 1 or sides[0].shape != sides[1].shape:
        raise ValueError(f"x and y must pair, both [N]; got {list(sides[0].shape)} and {list(sides[1].shape)}")
    ranks = [rankdata(side) for side in sides]
    centred = [rank - rank.mean() for rank in ranks]
    norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return None if norm == 0 else float(round(float(centred[0] @ centred[1]) / norm, 12))


def _order_test(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, n_random: int = 10_000) -> float:
    """Return the two-sided p value of Spearman's correlation."""
    a, b = (rankdata(side) - (len(side) + 1) / 2 for side in (x, y))
    seen = abs(a @ b) - 1e-9
    if len(a) <= _EXACT:
        orders = np.array(list(itertools.permutations(range(len(a)))))
        return float((np.abs(b[orders] @ a) >= seen).mean())
    orders = np.array([rng.permutation(len(a)) for _ in range(n_random)])
    return float((1 + (np.abs(b[orders] @ a) >= seen).sum()) / (1 + n_random))
