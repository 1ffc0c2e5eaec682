"""Intervals and paired tests over queries: bootstrap, sign-flip permutation, Holm.

What is resampled is the unit that was drawn: the query, or, with `clusters`, the document with all its queries
(queries of one document are alike, so resampling them one by one promises too much). Where documents differ in size,
intervals are as wide as Kish's effective number of documents justifies (`effective_number`).
All sums are float64; randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special, stats

from miner_diag.arrays import finite_array, label_array, real_array, refuse_other_labels, whole_number

BootstrapMethod = Literal["percentile", "bca"]

IntervalsOver = Literal["auto", "items", "documents"]
"""What intervals are over; auto is documents where there are enough of them, else items."""

_BLOCK = 1 << 22  # resampling weights held at once: 32 MiB of float64


@dataclass(frozen=True)
class StatisticsOptions:
    """How intervals and tests are taken; the same in every command."""

    intervals_over: IntervalsOver = "auto"
    """What intervals and tests are over: whole documents (pages and queries of a document are alike, so such intervals
    hold for other documents too) or single items (these hold for these documents only). auto takes documents if there
    are at least 6 of them."""
    confidence: float = 0.95
    """The nominal coverage of every interval."""
    seed: int = 0
    """The seed of bootstrap and permutations."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, both excluded; got {self.confidence}")


@dataclass(frozen=True)
class Interval:
    """A mean and the range that its uncertainty leaves."""

    value: float
    """The estimate itself, from all values."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""
    confidence: float
    """Nominal coverage, as 0.95."""
    n: int
    """Number of values that the estimate rests on."""
    n_clusters: int | None = None
    """Number of clusters that were resampled; None where each value stands for itself."""
    effective_clusters: float | None = None
    """Kish's effective number of these clusters, (sum of n)^2 / sum of n^2; it is below `n_clusters` where clusters
    differ in size."""

    def __str__(self) -> str:
        """Return value and ends to four digits."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def ends(self) -> dict[str, float | None]:
        """Return "low" and "high", both None where the interval is unbounded."""
        bounded = math.isfinite(self.low) and math.isfinite(self.high)
        return {"low": self.low if bounded else None, "high": self.high if bounded else None}

    def record_fields(self, method: str) -> dict[str, Any]:
        """Return the fields of a :class:`~miner_diag.records.Record`; the method says where it is unbounded."""
        ends = self.ends()
        return {
            "value": self.value,
            **ends,
            "confidence": self.confidence,
            "method": method if ends["low"] is not None else f"{method}: unbounded",
            "n": self.n,
            "n_clusters": self.n_clusters,
            "effective_clusters": self.effective_clusters,
        }


def effective_number(sizes: Sequence[float] | np.ndarray) -> float:
    """Kish's effective number of clusters: how many clusters of equal size inform a mean as well as these do.

    It is ``(sum of n)^2 / sum of n^2``: the number of clusters where all have one size, and less where a few clusters
    hold most of the values.

    Parameters
    ----------
    sizes : sequence [G]
        Number of values in each cluster, at least one cluster, all above 0.

    Returns
    -------
    float
        Between 1 and G.

    Raises
    ------
    ValueError
        If there is no cluster, or a size is not a positive number.

    References
    ----------
    .. [1] Kish, "Survey Sampling", 1965.

    Examples
    --------
    Four documents of equal size count as four. With sizes 6, 1, 1, 1, 1 the sum is 10 and the sum of squares is
    36 + 4 = 40, so the five count as 100 / 40.

    >>> effective_number([7, 7, 7, 7])
    4.0
    >>> effective_number([6, 1, 1, 1, 1])
    2.5
    """
    n = real_array(sizes, "sizes").astype(np.float64)
    if n.ndim != 1 or not len(n) or not (np.isfinite(n) & (n > 0)).all():
        raise ValueError(f"sizes must be one positive number for each cluster; got {np.atleast_1d(n)[:5].tolist()}")
    return float(n.sum() ** 2 / (n @ n))


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 4000,
    method: BootstrapMethod = "bca",
) -> Interval:
    """Bootstrap interval for the mean of values; parameters as in `bootstrap_means`, for one column.

    Examples
    --------
    >>> print(bootstrap_mean([0.0, 1.0, 1.0, 0.5] * 25, np.random.default_rng(0)))
    0.6250 [0.5400, 0.7050]
    """
    refuse_other_labels({"values": values, "clusters": clusters})
    column = finite_array(values, "values")
    if column.ndim != 1:
        raise ValueError(
            f"values must be one-dimensional [N]; got {list(column.shape)}; see bootstrap_means for columns"
        )
    return bootstrap_means(
        column[:, None], rng, clusters=clusters, confidence=confidence, n_resamples=n_resamples, method=method
    )[0]


def bootstrap_means(
    values: np.ndarray,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 4000,
    method: BootstrapMethod = "bca",
) -> list[Interval]:
    """Bootstrap interval for the mean of every column, all columns from the same resamples.

    Parameters
    ----------
    values : array [N, C]
        One row per query, one column per system or layer.
    rng : numpy.random.Generator
        Source of the resamples.
    clusters : sequence [N], optional
        Label of each row, as its document: whole clusters are drawn, so cluster sizes vary with the draw.
    confidence : float
        Nominal coverage.
    n_resamples : int
        Bootstrap samples.
    method : "bca" or "percentile"
        BCa corrects bias and skewness [1]_; "percentile" takes the quantiles as they are.

    Returns
    -------
    list of Interval
        One per column. Where a column is constant, low equals high: no resample can show what was never drawn, so read
        such an interval as unknown, not as certain.

    Raises
    ------
    ValueError
        If there are fewer than two rows or clusters, a value is NaN or infinite, or an option is out of range.

    Notes
    -----
    With n units, both methods take their tails at ``Phi(sqrt(n / (n - 1)) * t_{alpha/2, n-1})`` instead of ``alpha/2``
    [2]_: without it an interval for n = 10 is 14 % shorter than Student's. One matrix product
    [n_resamples, units] x [units, C] does all columns.

    For clusters, n is Kish's effective number K of them (`effective_number`), which is their number G where all have
    one size. In a simulation with the 53 test documents of debian-docs-large (five hold 47 % of the queries, K = 15.9),
    normal document effects and 2,000 replications, percentile intervals that are nominally 95 % cover 0.92 with G, and
    0.94 with K in both places of n. K belongs under the root as well: the resamples lack the share
    ``2 sum w^3 / sum w^2 - sum w^2`` of the variance (w: share of a cluster in all values), which is 1/G where sizes
    are equal and at least 1/K in general. BCa covers 0.88 with G and only 0.90 with K there, because a handful of large
    clusters decides the estimate of the skewness; its bias and acceleration are therefore multiplied by K / G, which
    covers 0.93 and changes nothing where sizes are equal.

    References
    ----------
    .. [1] Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, equations 14.9 to 14.15.
    .. [2] Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015,
       section 3.3 ("expanded percentile interval").
    """
    refuse_other_labels({"values": values, "clusters": clusters})
    values = finite_array(values, "values")
    if values.ndim != 2:
        raise ValueError(f"values must be [N, C], a column per system; got {list(values.shape)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, both excluded; got {confidence}")
    whole_number(n_resamples, "n_resamples", least=100)
    if method not in ("bca", "percentile"):
        raise ValueError(f"method must be 'bca' or 'percentile'; got {method!r}")
    # deviations from the mean are resampled: 0 for constant columns, and no digits lost to a large offset
    centred = values - values[:1]
    centred -= centred.sum(axis=0) / max(1, len(values))
    deviations, sizes = _unit_sums(centred, clusters)
    n_units, n_effective, means = len(sizes), effective_number(sizes), values[0] - centred[0]
    resampled = np.empty((n_resamples, values.shape[1]))
    step = max(1, _BLOCK // n_units)
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        drawn = rng.integers(0, n_units, size=(rows, n_units)) + np.arange(rows)[:, None] * n_units
        weights = np.bincount(drawn.ravel(), minlength=rows * n_units).reshape(rows, n_units).astype(np.float64)
        resampled[start : start + rows] = (weights @ deviations) / (weights @ sizes)[:, None]
    tail = _expanded_tail(confidence, n_effective)
    levels = np.broadcast_to(np.array([tail, -tail])[:, None], (2, values.shape[1]))  # normal quantiles
    if method == "bca":
        levels = _bca_levels(levels, resampled, deviations, sizes, trust=n_effective / n_units)
    ends = np.empty_like(levels)
    for column, wanted in enumerate(special.ndtr(levels).T):
        ends[:, column] = np.quantile(resampled[:, column], wanted)
    lows, highs = np.clip(means + ends, values.min(axis=0), values.max(axis=0))  # no mean leaves the range: rounding
    over = (None, None) if clusters is None else (n_units, n_effective)
    return [
        Interval(float(mean), float(low), float(high), confidence, len(values), *over)
        for mean, low, high in zip(means, lows, highs, strict=True)
    ]


def bootstrap_crossed(
    values: np.ndarray,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 4000,
) -> Interval:
    """Bootstrap interval for the mean of a table of seeds by queries; as `bootstrap_crossed_tables`, for one table."""
    refuse_other_labels({"values": getattr(values, "T", values), "clusters": clusters})
    return bootstrap_crossed_tables([values], rng, clusters=clusters, confidence=confidence, n_resamples=n_resamples)[0]


def bootstrap_crossed_tables(
    tables: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 4000,
) -> list[Interval]:
    """Bootstrap interval for the mean of each table of seeds by queries, both drawn anew in each resample.

    All tables, as those of several metrics of one system, get the same resamples.

    Parameters
    ----------
    tables : sequence [M] of arrays [S, N]
        One row per training seed, one column per query. With S = 1 only queries are drawn.
    rng : numpy.random.Generator
        Source of the resamples.
    clusters : sequence [N], optional
        Label of each column: whole clusters are drawn.
    confidence : float
        Nominal coverage.
    n_resamples : int
        Bootstrap samples.

    Returns
    -------
    list of Interval
        One per table; n is the number of queries; percentile ends, tails widened for few (effective) units as in
        `bootstrap_means`.

    Raises
    ------
    ValueError
        If a table is not [S, N] or of another shape than the first, there are fewer than two columns or clusters, or a
        value is NaN or infinite.

    Notes
    -----
    Rows and columns are drawn independently (Owen's pigeonhole bootstrap [1]_), which errs on the side of width. With
    few seeds the seeds' part is coarse: five rows have few distinct resamples.

    References
    ----------
    .. [1] Owen, "The pigeonhole bootstrap", The Annals of Applied Statistics 1(2), 2007.
    """
    arrays = [finite_array(table, "values") for table in tables]
    shapes = list(dict.fromkeys(array.shape for array in arrays))
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(
            "values must be [S, N], a row per seed and a column per query, and of one shape if there are several; got "
            f"{', '.join(str(list(shape)) for shape in shapes) or 'none'}"
        )
    values = np.stack(arrays)  # [M, S, N]
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, both excluded; got {confidence}")
    whole_number(n_resamples, "n_resamples", least=100)
    n_tables, n_seeds, n_queries = values.shape
    sums, sizes = _unit_sums(values.reshape(-1, n_queries).T, clusters)  # [U, M S]
    n_units = len(sizes)
    units = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples).astype(np.float64)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds
    means = (units @ sums).reshape(n_resamples, n_tables, n_seeds)
    resampled = np.einsum("rms,rs->mr", means, seeds) / (units @ sizes)
    n_effective = effective_number(sizes)
    tail = special.ndtr(_expanded_tail(confidence, n_effective))
    lows, highs = np.quantile(resampled, [tail, 1 - tail], axis=1)
    over = (None, None) if clusters is None else (n_units, n_effective)
    return [
        Interval(float(table.mean()), float(low), float(high), confidence, n_queries, *over)
        for table, low, high in zip(values, lows, highs, strict=True)
    ]


def paired_bootstrap(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    confidence: float = 0.95,
    n_resamples: int = 4000,
    method: BootstrapMethod = "bca",
) -> Interval:
    """Bootstrap interval for the mean of a - b, both [N] over the same queries; options as in `bootstrap_means`."""
    difference = _differences(a, b, clusters)
    return bootstrap_mean(
        difference, rng, clusters=clusters, confidence=confidence, n_resamples=n_resamples, method=method
    )


def paired_permutation(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    n_permutations: int = 10_000,
) -> float:
    """Two-sided p value of the paired permutation (sign-flip) test of mean(a - b) = 0.

    Under the null the two systems are exchangeable, so every difference may change its sign; with clusters, the
    differences of one cluster change together.

    Parameters
    ----------
    a, b : array [N]
        One value per query; row i of both is the same query.
    rng : numpy.random.Generator
        Source of the flips; not used where all flips are counted.
    clusters : sequence [N], optional
        Label of each row, as its document.
    n_permutations : int
        Random flips. Where there are no more than so many flips in all, every one is counted and p is exact.

    Returns
    -------
    float
        In (0, 1]; 1 where a equals b. From random flips it is (1 + as extreme) / (1 + flips), which is never 0 and
        keeps the level [1]_.

    Raises
    ------
    ValueError
        If a and b do not pair, hold NaN or Inf, or have fewer than two rows or clusters.

    References
    ----------
    .. [1] Phipson and Smyth, "Permutation P-values Should Never Be Zero", Statistical Applications in Genetics and
       Molecular Biology 9(1), 2010.

    Examples
    --------
    All five differences are positive: only 2 of 32 sign patterns are as extreme.

    >>> paired_permutation([2, 3, 4, 5, 6], [1, 1, 1, 1, 1], np.random.default_rng(0))
    0.0625
    """
    whole_number(n_permutations, "n_permutations")
    sums, _ = _unit_sums(_differences(a, b, clusters)[:, None], clusters)
    units = sums[np.abs(sums[:, 0]) > 0, 0]  # flipping a zero changes nothing
    slack = 1e-12 * np.abs(units).sum()  # equal sums may differ by rounding, and equals count as extreme
    threshold = np.abs(units.sum()) - slack
    exact = 2 ** min(len(units), 60) <= n_permutations
    n_flips = 2 ** len(units) if exact else n_permutations
    extreme = 0
    step = max(1, _BLOCK // max(1, len(units)))
    for start in range(0, n_flips, step):
        rows = min(step, n_flips - start)
        if exact:
            flip = (np.arange(start, start + rows)[:, None] >> np.arange(len(units))) & 1
        else:
            flip = rng.integers(0, 2, size=(rows, len(units)), dtype=np.int8)
        extreme += int(np.count_nonzero(np.abs(units.sum() - 2.0 * (flip.astype(np.float64) @ units)) >= threshold))
    return extreme / n_flips if exact else (1 + extreme) / (1 + n_flips)


def smallest_detectable(
    differences: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence[str] | np.ndarray | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float | None:
    """Return how large a true mean difference must be for a paired test of this size to find it this often.

    Parameters
    ----------
    differences : array [N]
        One system less the other, one value per query.
    clusters : sequence [N], optional
        Label of each row, as its document.
    alpha : float
        The level of the two-sided test, of one comparison: where p values are adjusted over a family, a difference has
        to be larger.
    power : float
        The share of samples in which the test is to find the difference.

    Returns
    -------
    float or None
        Above 0, in the unit of the differences. None where no size can be told: all differences are the same, or there
        are so few units that `paired_permutation` cannot fall below `alpha` (2 of the 2^G patterns of signs of G units
        are the least that it counts).

    Raises
    ------
    ValueError
        If there are fewer than two rows or clusters, a value is NaN or infinite, or an option is out of range.

    Notes
    -----
    ``(t_{1 - alpha/2, n-1} + t_{power, n-1}) * se`` [1]_, where se is the standard error of the mean and t a quantile
    of Student's distribution. Over N single queries n is N and se is the standard deviation over the root of N. Over
    documents n is Kish's effective number K of them (`effective_number`), as for intervals, and

        ``se^2 = K / (K - 1) * sum over documents of (sum of d - mean of d)^2 / N^2``,

    the variance of a mean over clusters [2]_ with K in place of their number, which it is where all have one size.

    References
    ----------
    .. [1] Bloom, "Minimum Detectable Effects: A Simple Way to Report the Statistical Power of Experimental Designs",
       Evaluation Review 19(5), 1995.
    .. [2] Liang and Zeger, "Longitudinal Data Analysis Using Generalized Linear Models", Biometrika 73(1), 1986.

    Examples
    --------
    Half of 100 queries gain 0.2, the others lose 0.2: the standard deviation is 0.2, a tenth of it the standard error,
    and t is 1.98 and 0.85 at 99 degrees of freedom.

    >>> round(smallest_detectable([0.2, -0.2] * 50), 3)
    0.057
    """
    refuse_other_labels({"differences": differences, "clusters": clusters})
    values = finite_array(differences, "differences")
    if values.ndim != 1:
        raise ValueError(f"differences must be one-dimensional [N]; got {list(values.shape)}")
    for name, share in (("alpha", alpha), ("power", power)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be between 0 and 1, both excluded; got {share}")
    centred = values - values.mean()
    sums, sizes = _unit_sums(centred[:, None], clusters)
    n_effective = effective_number(sizes)
    constant = np.abs(centred).max() <= 1e-12 * np.abs(values).max()  # no more than rounding
    if constant or 2.0 ** (1 - len(sizes)) >= alpha:
        return None
    error = math.sqrt(n_effective / (n_effective - 1) * float(sums[:, 0] @ sums[:, 0])) / len(values)
    size = float(stats.t.ppf([1 - alpha / 2, power], n_effective - 1).sum() * error)
    return size if math.isfinite(size) else None  # infinite where one cluster holds nearly all


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: reject where the result is at most alpha, and the family-wise error is alpha.

    Parameters
    ----------
    p_values : array [M]
        One per comparison of the family (all that one table claims).

    Returns
    -------
    ndarray [M]
        Adjusted p values in the order given, at most 1.

    References
    ----------
    .. [1] Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6(2),
       1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = real_array(p_values, "p_values").astype(np.float64, copy=False)
    if p.ndim != 1:
        raise ValueError(f"p_values must be one-dimensional; got {list(p.shape)}")
    inside = (p >= 0) & (p <= 1)
    if not inside.all():
        at = int(np.argmin(inside))
        raise ValueError(f"p_values must be between 0 and 1; number {at} is {p[at]}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def _differences(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, clusters: Sequence[str] | np.ndarray | None
) -> np.ndarray:
    refuse_other_labels({"a": a, "b": b, "clusters": clusters})
    a, b = finite_array(a, "a"), finite_array(b, "b")
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a and b must pair row by row, both [N]; got {list(a.shape)} and {list(b.shape)}")
    return a - b


def _unit_sums(values: np.ndarray, clusters: Sequence[str] | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return sums [U, C] and sizes [U] of what is resampled: rows, or clusters of rows."""
    if len(values) < 2:
        raise ValueError(f"at least 2 values are needed for a statement about uncertainty; got {len(values)}")
    if clusters is None:
        return values, np.ones(len(values))
    labels = label_array(clusters, "clusters")
    if labels.shape != (len(values),):
        raise ValueError(f"clusters must label each of the {len(values)} values; got {list(labels.shape)}")
    labels, unit = np.unique(labels, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"at least 2 clusters are needed; all {len(values)} values are in {labels[0]!r}")
    sums = np.zeros((len(labels), values.shape[1]))
    np.add.at(sums, unit, values)
    return sums, np.bincount(unit).astype(np.float64)


def _expanded_tail(confidence: float, n: float) -> float:
    """Return the normal quantile of the lower tail, widened as Student's t is for n units (Hesterberg 2015)."""
    quantile = np.sqrt(n / (n - 1)) * stats.t.ppf((1 - confidence) / 2, n - 1)
    return float(max(quantile, -100.0))  # infinite where one cluster holds nearly all; -100 is the lowest resample, too


def _bca_levels(
    levels: np.ndarray, resampled: np.ndarray, deviations: np.ndarray, sizes: np.ndarray, *, trust: float
) -> np.ndarray:
    """Shift normal quantiles [2, C] by bias and acceleration times `trust`; both are 0 where a column is constant."""
    below = (resampled < 0).mean(axis=0) + 0.5 * (resampled == 0).mean(axis=0)
    edge = 0.5 / len(resampled)
    bias = trust * special.ndtri(np.clip(below, edge, 1 - edge))
    # jackknife: the mean's deviation without unit u is -deviations[u] / (total - sizes[u])
    without = -deviations / (sizes.sum() - sizes)[:, None]
    pull = without.mean(axis=0) - without
    spread = (pull**2).sum(axis=0) ** 1.5
    acceleration = trust * np.divide((pull**3).sum(axis=0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
    shifted = bias + levels
    # with a handful of units and one outlier the transformation has a pole; before it, the level is 1 anyway
    return bias + shifted / np.maximum(1 - acceleration * shifted, 0.05)
