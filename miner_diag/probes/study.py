"""The whole stage on arrays: fit, compare, select, and ask whether the alignment ratio could have told."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from tyro.conf import arg

from miner_diag.cka.alignment import Comparison, compare
from miner_diag.cka.distinct import DistinctItems, distinct_items
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.gold_pairs import one_query_a_page
from miner_diag.probes.compare_kinds import Correlation, KindVerdict, compare_kinds, correlate, predicted_kinds
from miner_diag.probes.controls import Control, RandomSelection, chance, random_label_selection, shuffled_pairs
from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.probes.layer_choice import measure_layers
from miner_diag.probes.retrieval_data import RetrievalData, Side, blocks_of, layer_of
from miner_diag.probes.salience import salience
from miner_diag.probes.select import FusedScores, SelectionRule, Stability, select, stability
from miner_diag.probes.train import Fitted, ProbeTrainOptions, evaluate_probes, fit_probes, probe_scores
from miner_diag.stats import Interval, StatisticsOptions, bootstrap_means


@dataclass(frozen=True)
class StudyOptions:
    """How probes are fitted and compared, and how layers are selected."""

    training: Annotated[ProbeTrainOptions, arg(name="")] = field(default_factory=ProbeTrainOptions)
    """How probes are fitted."""
    selection: Annotated[SelectionRule, arg(name="")] = field(default_factory=SelectionRule)
    """How layers are selected."""
    resamples: int = 200
    """The number of bootstrap resamples of the validation queries, for each training, that show how stable the
    selection is."""
    ratio_threshold: float = 0.5
    """The alignment ratio to the final layer (of pages) from which on a base probe is predicted to be enough."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.resamples < 1:
            raise ValueError(f"resamples must be at least 1; got {self.resamples}")
        if not self.ratio_threshold > 0:
            raise ValueError(f"ratio_threshold must be above 0; got {self.ratio_threshold}")


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that the stage found out."""

    fits: tuple[Fitted, ...]
    """One for each seed; the first is the one that is saved."""
    raw: tuple[Interval, ...]
    """[L] nDCG@5 of the raw layers."""
    raw_per_query: np.ndarray
    """[L, Q] nDCG@5 of the raw layers for each query."""
    ndcg: tuple[tuple[Interval, ...], tuple[Interval, ...]]
    """[2][L] nDCG@5 of the probes."""
    verdicts: tuple[KindVerdict, ...]
    """[L] which kind is better."""
    page_final: tuple[Comparison | None, ...]
    """[L] pages (for a dual encoder, items of the probed side) at this layer against the final layer; None where CKA
    does not exist."""
    query_page: tuple[Comparison | None, ...]
    """[L] queries against their pages; None for a dual encoder, too."""
    readings: dict[str, list[float | None]]
    """Every reading [L] of the alignment ratio, by its name in tables and records: to the final layer and between
    queries and pages, and, unless it is a dual encoder, both with the mean of the training pages taken out before the
    cosine. The first one predicts kinds."""
    predicted: tuple[Kind, ...]
    """[L] the kind that the alignment ratio names."""
    selected: tuple[int, ...]
    """Layers to keep."""
    fused: Interval
    """nDCG@5 of the selected layers' summed scores; they were chosen on the same queries, so it is too good."""
    stability: Stability
    """How sure the selection is."""
    salience: tuple[np.ndarray, np.ndarray]
    """[L, D] salience of every neuron, for each kind."""
    correlations: tuple[Correlation, ...]
    """How well each of several numbers predicts the benefit of projection."""
    controls: tuple[Control, ...]
    """Fits to shuffled pairs; empty if controls were not wanted."""
    random_selection: RandomSelection | None
    """The selection by random labels; None if controls were not wanted."""
    chance: float
    """nDCG@5 of a random order."""
    queries: DistinctItems
    """Which validation queries enter the alignment ratios and CKA."""
    pages: DistinctItems
    """Which validation pages do."""
    side: Side | None = None
    """For a dual encoder, the side whose layers these are."""

    @property
    def ratio_name(self) -> str:
        """The name of the ratio to the final layer in tables and records."""
        return next(iter(self.readings))

    @property
    def ratios(self) -> list[float | None]:
        """[L] alignment ratio of pages to the final layer; None where it does not exist."""
        return self.readings[self.ratio_name]


def run_study(
    train: RetrievalData,
    validation: RetrievalData,
    options: StudyOptions | None = None,
    statistics: StatisticsOptions | None = None,
    *,
    n_seeds: int = 3,
    controls: bool = True,
    query_inputs: Sequence[Hashable | None] | None = None,
    page_inputs: Sequence[Hashable | None] | None = None,
    by_document: bool = False,
    backbone: dict[str, str] | None = None,
    shared_layers: bool = True,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Study:
    """Fit both kinds of probe to every layer and evaluate everything about them on the validation queries.

    Parameters
    ----------
    train, validation : RetrievalData
        The two splits; they must not share documents.
    options : StudyOptions, optional
        The defaults if not given.
    statistics : StatisticsOptions, optional
        Confidence of the intervals, and the seed of bootstrap, permutations and trainings; what intervals are over is
        said by `by_document`.
    n_seeds : int
        The number of trainings, with seed, seed + 1, …; all numbers but the stability of the selection are those of the
        first.
    controls : bool
        Whether to fit to shuffled pairs, and to select by random labels, too.
    query_inputs, page_inputs : sequence, optional
        What the retriever read of each validation query and page, for the alignment ratios; see
        :func:`~miner_diag.cka.diagnosis.diagnose`.
    by_document : bool
        Whether intervals and tests are over documents instead of queries.
    backbone : dict, optional
        The backbone's key, kept with the probes.
    shared_layers : bool
        Whether queries and pages pass the same layers; if not, both splits must hold the layers of one side and the
        final embedding of the other.
    device : str
        Where to train.
    progress : bool
        Show bars.

    Raises
    ------
    ValueError
        If `n_seeds` is below 1, or more layers are to be kept than there are.
    ProbeError
        If probes cannot be fitted; see `fit_probes`.
    """
    options, statistics = options or StudyOptions(), statistics or StatisticsOptions()
    if n_seeds < 1:
        raise ValueError(f"n_seeds must be at least 1; got {n_seeds}")
    training, rule, confidence = options.training, options.selection, statistics.confidence
    rule.check(validation.n_layers)
    rng = np.random.default_rng(statistics.seed)
    documents = validation.documents if by_document else None
    fits = tuple(
        fit_probes(
            train,
            validation,
            training,
            seed=seed,
            backbone=backbone,
            shared_layers=shared_layers,
            device=device,
            progress=progress,
        )
        for seed in range(statistics.seed, statistics.seed + n_seeds)
    )
    first = fits[0]
    verdicts = compare_kinds(first.ndcg, rng, clusters=documents, confidence=confidence)
    raw_per_query = raw_ndcg(validation)
    columns = np.concatenate([raw_per_query, *first.ndcg]).T
    raw, base, projected = np.array_split(
        np.array(bootstrap_means(columns, rng, clusters=documents, confidence=confidence), dtype=object), 3
    )
    own_queries, own_pages = (
        distinct_items(inputs, blocks_of(vectors), name=f"{name}_inputs", n=vectors.shape[0])
        for inputs, vectors, name in (
            (query_inputs, validation.queries, "query"),
            (page_inputs, validation.pages, "page"),
        )
    )
    page_final, query_page = comparisons(validation, own_queries, own_pages, shared_layers, confidence)
    ratios = [ratio_of(view) for view in page_final]
    side: Side | None = None if validation.fixed is None else "query" if validation.fixed == "page" else "page"
    readings: dict[str, list[float | None]] = {
        f"alignment_ratio_{side or 'page'}_final": ratios,
        "alignment_ratio_query_page": [ratio_of(view) for view in query_page],
    }
    if side is None and shared_layers:
        measures = measure_layers(validation, train)
        readings["alignment_ratio_page_final_centred"] = [row.final_centred for row in measures]
        readings["alignment_ratio_query_page_centred"] = [row.query_page_centred for row in measures]
    predictors = readings | {
        f"cka_{side or 'page'}_final": [None if view is None else view.cka.value for view in page_final],
        "raw_ndcg_at_5": [float(value) for value in raw_per_query.mean(axis=1)],
    }
    final = validation.n_layers - 1
    correlations = []
    for name, values in predictors.items():
        all_layers = correlate(name, values, first.ndcg, rng, clusters=documents, confidence=confidence)
        inner_layers = correlate(
            f"{name}_without_final",
            values[:final],
            first.ndcg[:, :final],
            rng,
            clusters=documents,
            confidence=confidence,
        )
        correlations += [correlation for correlation in (all_layers, inner_layers) if correlation is not None]
    runs = [FusedScores(chosen_scores(fit, verdicts, validation), validation.relevance, documents) for fit in fits]
    selected = select(runs[0], rule)
    fused = bootstrap_means(runs[0].ndcg(frozenset(selected))[:, None], rng, clusters=documents, confidence=confidence)[
        0
    ]
    stable = stability(runs, rule, rng, n_resamples=options.resamples)
    shuffled: list[Control] = []
    random_selection = None
    if controls:
        shuffled = shuffled_pairs(
            train,
            validation,
            training,
            rng,
            seed=statistics.seed,
            clusters=documents,
            confidence=confidence,
            shared_layers=shared_layers,
            device=device,
        )
        random_selection = random_label_selection(runs[0], rule, rng)
    return Study(
        fits,
        tuple(raw),
        raw_per_query,
        (tuple(base), tuple(projected)),
        tuple(verdicts),
        page_final,
        query_page,
        readings,
        tuple(predicted_kinds(ratios, options.ratio_threshold)),
        tuple(selected),
        fused,
        stable,
        salience(first.stack, train),
        tuple(correlations),
        tuple(shuffled),
        random_selection,
        chance(validation),
        own_queries,
        own_pages,
        side,
    )


def raw_ndcg(data: RetrievalData) -> np.ndarray:
    """Return nDCG@5 [L, Q] of the raw layers by cosine: a base probe whose gate is 1 everywhere."""
    ones = torch.ones(data.n_layers, 1, data.width)
    unused = torch.eye(data.width).expand(data.n_layers, 1, data.width, data.width)
    return evaluate_probes(ones, unused, data)[0]


def chosen_scores(fit: Fitted, verdicts: Sequence[KindVerdict], data: RetrievalData) -> np.ndarray:
    """Return the scores [L, Q, P] of each layer's chosen kind."""
    gates, weights = torch.from_numpy(fit.stack.gates), torch.from_numpy(fit.stack.weights)
    return np.stack(
        [
            probe_scores(gates[layer], weights[layer], data, layer)[KINDS.index(verdict.chosen)]
            for layer, verdict in enumerate(verdicts)
        ]
    )


def comparisons(
    data: RetrievalData, queries: DistinctItems, pages: DistinctItems, shared_layers: bool, confidence: float
) -> tuple[tuple[Comparison | None, ...], tuple[Comparison | None, ...]]:
    """Compare each layer's pages with the final layer, and its queries with their pages, one query for each page.

    Items of equal input enter once. For a dual encoder, the first comparison is over the items of the probed side, and
    the second does not exist.
    """
    pair_query, pair_page = one_query_a_page(data.gold, queries, pages)
    items, entering = (data.queries, queries.rows) if data.fixed == "page" else (data.pages, pages.rows)
    final = layer_of(items, data.n_layers - 1)[entering]
    page_final, query_page = [], []
    for layer in range(data.n_layers):
        vectors = layer_of(items, layer)
        page_final.append(_compare(vectors[entering], final, confidence))
        paired = layer_of(data.queries, layer)[pair_query] if shared_layers else None
        query_page.append(None if paired is None else _compare(paired, vectors[pair_page], confidence))
    return tuple(page_final), tuple(query_page)


def ratio_of(view: Comparison | None) -> float | None:
    """Return the alignment ratio; None where it does not exist."""
    return None if view is None or view.alignment_ratio is None else view.alignment_ratio.value


def _compare(x: np.ndarray, y: np.ndarray, confidence: float) -> Comparison | None:
    if len(x) < 4:
        return None
    try:
        return compare(x, y, confidence=confidence)
    except UndefinedCKAError:
        return None  # a constant layer, as the CLS state of layer 0 always is: the table's cell stays empty
