"""The whole stage on arrays: fit, compare, select, and ask whether the alignment ratio knew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from miner_diag.cka.alignment import Comparison, compare
from miner_diag.cka.diagnosis import one_query_a_page
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.probes.compare_kinds import Correlation, KindVerdict, compare_kinds, correlate, predicted_kinds
from miner_diag.probes.controls import Control, RandomSelection, chance, random_label_selection, shuffled_pairs
from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.probes.retrieval_data import RetrievalData, Side, layer_of
from miner_diag.probes.salience import salience
from miner_diag.probes.select import FusedScores, SelectionRule, Stability, select, stability
from miner_diag.probes.train import Fitted, ProbeTrainOptions, fit_probes, judge, probe_scores
from miner_diag.stats import Interval, bootstrap_means


@dataclass(frozen=True)
class StudyOptions(ProbeTrainOptions, SelectionRule):
    """How probes are fitted, compared and selected."""

    n_seeds: int = 3
    """Trainings, with seed, seed + 1, …; all numbers but the stability of the selection are those of the first."""
    resamples: int = 200
    """Bootstrap resamples of the validation queries for the stability of the selection, for each seed."""
    ratio_threshold: float = 0.5
    """Alignment ratio to the final layer (pages) from which on a base probe is predicted to be enough."""
    confidence: float = 0.95
    """Nominal coverage of the intervals."""
    controls: bool = True
    """Fit to shuffled pairs, and select by random labels, too."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        ProbeTrainOptions.__post_init__(self)
        SelectionRule.__post_init__(self)
        if self.n_seeds < 1 or self.resamples < 1:
            raise ValueError(f"n_seeds and resamples must be at least 1; got {self.n_seeds} and {self.resamples}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1; got {self.confidence}")
        if not self.ratio_threshold > 0:
            raise ValueError(f"ratio_threshold must be above 0; got {self.ratio_threshold}")

    def training(self) -> ProbeTrainOptions:
        """Return the part that says how probes are fitted."""
        return ProbeTrainOptions(**{field.name: getattr(self, field.name) for field in fields(ProbeTrainOptions)})


@dataclass(frozen=True, eq=False)
class Study:
    """Everything the stage found."""

    fits: tuple[Fitted, ...]
    """One for each seed; the first is the one that is saved."""
    raw: tuple[Interval, ...]
    """[L] nDCG@5 of the raw layers."""
    raw_per_query: np.ndarray
    """[L, Q] the same of each query."""
    ndcg: tuple[tuple[Interval, ...], tuple[Interval, ...]]
    """[2][L] of the probes."""
    verdicts: tuple[KindVerdict, ...]
    """[L] which kind is better."""
    page_final: tuple[Comparison | None, ...]
    """[L] pages (of two towers, items of the probed one) at this layer against the final one; None where CKA does not
    exist."""
    query_page: tuple[Comparison | None, ...]
    """[L] queries against their pages; None also for two towers."""
    predicted: tuple[Kind, ...]
    """[L] what the alignment ratio names."""
    selected: tuple[int, ...]
    """Layers to keep."""
    fused: Interval
    """NDCG@5 of the selected layers' summed scores; chosen on the same queries, so too good."""
    stability: Stability
    """Of the selection."""
    salience: tuple[np.ndarray, np.ndarray]
    """[L, D] for each kind."""
    correlations: tuple[Correlation, ...]
    """Of what could predict the benefit of projection."""
    controls: tuple[Control, ...]
    """Shuffled pairs; empty if not asked for."""
    random_selection: RandomSelection | None
    """Selection by random labels; None if not asked for."""
    chance: float
    """NDCG@5 of a random order."""
    probed: Side | None = None
    """Of two towers, the one whose layers these are."""

    @property
    def ratio_name(self) -> str:
        """What tables call the ratio to the final layer."""
        return f"alignment_ratio_{self.probed or 'page'}_final"

    @property
    def ratios(self) -> list[float | None]:
        """[L] alignment ratio of pages to the final layer; None where it does not exist."""
        return [ratio_of(view) for view in self.page_final]


def study(
    train: RetrievalData,
    validation: RetrievalData,
    options: StudyOptions | None = None,
    *,
    page_hashes: Sequence[str] | None = None,
    by_document: bool = False,
    backbone: dict[str, str] | None = None,
    shared_layers: bool = True,
    device: Any = "cpu",
    progress: bool = False,
) -> Study:
    """Fit both kinds of probe to every layer and judge everything about them on the validation queries.

    Parameters
    ----------
    train, validation : RetrievalData
        The two splits; they must not share documents.
    options : StudyOptions, optional
        The defaults if not given.
    page_hashes : sequence, optional
        Of the validation pages, for the ratio between queries and pages; page groups are taken if not given.
    by_document : bool
        Whether intervals and tests are over documents instead of queries.
    backbone : dict, optional
        The backbone's key, kept with the probes.
    shared_layers : bool
        Whether queries and pages pass the same layers; if not, both splits must be of one tower, the other fixed.
    device : str
        Where to train.
    progress : bool
        Show bars.
    """
    options = options or StudyOptions()
    options.check(validation.n_layers)
    rng = np.random.default_rng(options.seed)
    documents = validation.documents if by_document else None
    settings: dict[str, Any] = {"shared_layers": shared_layers, "device": device}
    settings_of_fit = {**settings, "backbone": backbone, "progress": progress}
    seeds = range(options.seed, options.seed + options.n_seeds)
    fits = tuple(
        fit_probes(train, validation, replace(options.training(), seed=seed), **settings_of_fit) for seed in seeds
    )
    first = fits[0]
    verdicts = compare_kinds(first.ndcg, rng, clusters=documents, confidence=options.confidence)
    raw_per_query = raw_ndcg(validation)
    columns = np.concatenate([raw_per_query, *first.ndcg]).T
    raw, base, projected = np.array_split(
        np.array(bootstrap_means(columns, rng, clusters=documents, confidence=options.confidence), dtype=object), 3
    )
    page_final, query_page = comparisons(validation, page_hashes, shared_layers, options.confidence)
    ratios = [ratio_of(view) for view in page_final]
    probed: Side | None = None if validation.fixed is None else "query" if validation.fixed == "page" else "page"
    predictors: dict[str, list[float | None]] = {
        f"alignment_ratio_{probed or 'page'}_final": ratios,
        "alignment_ratio_query_page": [ratio_of(view) for view in query_page],
        f"cka_{probed or 'page'}_final": [None if view is None else view.cka.value for view in page_final],
        "raw_ndcg_at_5": [float(value) for value in raw_per_query.mean(axis=1)],
    }
    final = validation.n_layers - 1
    correlations = []
    for name, values in predictors.items():
        of_all = correlate(name, values, first.ndcg, rng, clusters=documents, confidence=options.confidence)
        inner = correlate(
            f"{name}_without_final",
            values[:final],
            first.ndcg[:, :final],
            rng,
            clusters=documents,
            confidence=options.confidence,
        )
        correlations += [found for found in (of_all, inner) if found is not None]
    runs = [FusedScores(chosen_scores(fit, verdicts, validation), validation.relevance) for fit in fits]
    selected = select(runs[0], options)
    fused = bootstrap_means(
        runs[0].ndcg(frozenset(selected))[:, None], rng, clusters=documents, confidence=options.confidence
    )[0]
    how_sure = stability(runs, options, rng, clusters=documents, n_resamples=options.resamples)
    controls: list[Control] = []
    random_selection = None
    if options.controls:
        controls = shuffled_pairs(
            train, validation, options.training(), rng, clusters=documents, confidence=options.confidence, **settings
        )
        random_selection = random_label_selection(runs[0], options, rng)
    return Study(
        fits,
        tuple(raw),
        raw_per_query,
        (tuple(base), tuple(projected)),
        tuple(verdicts),
        page_final,
        query_page,
        tuple(predicted_kinds(ratios, options.ratio_threshold)),
        tuple(selected),
        fused,
        how_sure,
        salience(first.stack, train),
        tuple(correlations),
        tuple(controls),
        random_selection,
        chance(validation),
        probed,
    )


def raw_ndcg(judged: RetrievalData) -> np.ndarray:
    """Return nDCG@5 [L, Q] of the raw layers by cosine: a base probe whose gate is 1 everywhere."""
    ones = torch.ones(judged.n_layers, 1, judged.width)
    unused = torch.eye(judged.width).expand(judged.n_layers, 1, judged.width, judged.width)
    return judge(ones, unused, judged)[0]


def chosen_scores(fit: Fitted, verdicts: Sequence[KindVerdict], judged: RetrievalData) -> np.ndarray:
    """Return the scores [L, Q, P] of each layer's chosen kind."""
    gates, weights = torch.from_numpy(fit.stack.gates), torch.from_numpy(fit.stack.weights)
    return np.stack(
        [
            probe_scores(gates[layer], weights[layer], judged, layer)[KINDS.index(verdict.chosen)]
            for layer, verdict in enumerate(verdicts)
        ]
    )


def comparisons(
    judged: RetrievalData, page_hashes: Sequence[str] | None, shared_layers: bool, confidence: float
) -> tuple[tuple[Comparison | None, ...], tuple[Comparison | None, ...]]:
    """Return each layer's pages against the final layer, and its queries against their pages, one query a page.

    Of two towers, the first is of the probed tower's items, and the second does not exist.
    """
    queries, pages = judged.pairs
    gold: list[dict[int, int]] = [{} for _ in range(judged.relevance.n_queries)]
    for query, page in zip(queries, pages, strict=True):
        gold[query][int(page)] = 1
    hashes = [str(group) for group in judged.page_groups] if page_hashes is None else page_hashes
    pair_query, pair_page = one_query_a_page(gold, judged.relevance.query_ids, hashes)
    items = judged.probed[-1]
    final = layer_of(items, judged.n_layers - 1)
    page_final, query_page = [], []
    for layer in range(judged.n_layers):
        mine = layer_of(items, layer)
        page_final.append(_compare(mine, final, confidence))
        asked = layer_of(judged.queries, layer)[pair_query] if shared_layers else None
        query_page.append(None if asked is None else _compare(asked, mine[pair_page], confidence))
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
