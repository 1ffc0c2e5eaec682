"""Which layers MINER fuses, and which probe each gets: normalized CKA selects, the alignment ratio types.

So the authors' own page draws it; which pair of views, which normalization and which thresholds they take is not shown
(what is known stands in the README), so the readings here are options and their defaults are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from miner_diag.cka.distinct import DistinctItems, distinct_items
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import paired_cosines, unit_rows
from miner_diag.cka.gold_pairs import one_query_a_page
from miner_diag.cka.matrix import linear_cka
from miner_diag.probes.kinds import Kind
from miner_diag.probes.probe_stack import ProbeError
from miner_diag.probes.retrieval_data import RetrievalData, Vectors, blocks_of, layer_of

NormalizedCKA = Literal["plain", "unit_rows", "relative"]
Ratio = Literal["final", "query_page"]


@dataclass(frozen=True)
class LayerChoiceOptions:
    """How layers are selected by normalized CKA and typed by the alignment ratio, on the training split."""

    normalized_cka: NormalizedCKA = "plain"
    """The reading of "normalized CKA" with the final layer, over pages, that selects. plain: CKA itself, which is a
    normalized HSIC. unit_rows: CKA of vectors at length one. relative: CKA over the largest of the inner layers."""
    select: Literal["run", "threshold", "closest"] = "run"
    """The layers that are selected beside the final one. run: those from the final one downwards, without a gap, whose
    normalized CKA is at least --least-cka. threshold: all such layers. closest: the --n-closest with the largest."""
    least_cka: float = 0.5
    """The smallest normalized CKA of a selected layer (run, threshold)."""
    n_closest: int = 3
    """The number of inner layers (closest)."""
    ratio: Ratio = "final"
    """The alignment ratio that types. final: pages at this layer against the final layer. query_page: queries at this
    layer against their pages at this layer."""
    centred: bool = False
    """Take the mean of the training pages out of both sides before the cosine of the ratio. Where all vectors share one
    direction, a cosine that is not centred is near 1 whatever else they hold."""
    least_ratio: float = 0.5
    """The alignment ratio from which on a layer gets a base probe; below it, or where there is no ratio, it gets a
    normalized projection. The final layer always gets a base probe."""

    def __post_init__(self) -> None:
        """Check the ranges, and refuse what has no effect."""
        for name in ("least_cka", "least_ratio"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if self.n_closest < 1:
            raise ValueError(f"n_closest must be at least 1; got {self.n_closest}")
        default = LayerChoiceOptions
        if self.select == "closest" and self.least_cka != default.least_cka:
            raise ValueError("least_cka has no effect with select closest; leave it out")
        if self.select != "closest" and self.n_closest != default.n_closest:
            raise ValueError(f"n_closest has no effect with select {self.select}; leave it out")


@dataclass(frozen=True)
class LayerMeasures:
    """What selects and types one layer; None where a number does not exist."""

    layer: int
    """0 is the embedding output."""
    plain: float | None
    """CKA of the pages with the final layer."""
    unit_rows: float | None
    """The same of vectors at length one."""
    relative: float | None
    """`plain` over the largest of the inner layers; 1 for the final layer."""
    final: float | None
    """Alignment ratio of the pages with the final layer."""
    final_centred: float | None
    """The same, the mean of the training pages taken out before the cosine."""
    query_page: float | None
    """Alignment ratio of queries with their pages at this layer."""
    query_page_centred: float | None
    """The same, the mean of the training pages taken out before the cosine."""

    def ratio(self, options: LayerChoiceOptions) -> float | None:
        """Return the ratio that types."""
        value: float | None = getattr(self, f"{options.ratio}_centred" if options.centred else options.ratio)
        return value


@dataclass(frozen=True)
class LayerChoice:
    """The layers that MINER fuses, and why."""

    layers: tuple[int, ...]
    """[K] rising, the final one last."""
    kinds: tuple[Kind, ...]
    """[L] the kind of probe that the ratio names, for every layer of the backbone."""
    measures: tuple[LayerMeasures, ...]
    """[L] every reading, for every layer."""
    options: LayerChoiceOptions
    """The readings that decided."""

    def facts(self) -> dict[str, Any]:
        """Return what ``selection.json`` says: what was chosen, and by which number."""
        options = self.options
        layers = [
            {
                **asdict(measures),
                "selected": measures.layer in self.layers,
                "selected_by": getattr(measures, options.normalized_cka),
                "kind": self.kinds[measures.layer],
                "typed_by": measures.ratio(options),
            }
            for measures in self.measures
        ]
        return {"selected_layers": list(self.layers), "options": asdict(options), "layers": layers}


def choose_layers(
    train: RetrievalData, options: LayerChoiceOptions | None = None, layers: tuple[int, ...] = ()
) -> LayerChoice:
    """Select layers by their normalized CKA with the final one, and type them by their alignment ratio.

    Parameters
    ----------
    train : RetrievalData
        The training split; validation and test are not looked at. Items of equal vectors enter once.
    options : LayerChoiceOptions, optional
        The readings; the defaults if not given.
    layers : tuple of int
        The layers to fuse instead of those that are selected, rising, the final one last.

    Raises
    ------
    ProbeError
        If no inner layer is selected: there would be nothing to fuse.
    """
    options = options or LayerChoiceOptions()
    measures = measure_layers(train, train)
    chosen = layers or selected_layers([getattr(row, options.normalized_cka) for row in measures], options)
    return LayerChoice(chosen, kinds_by_ratio([row.ratio(options) for row in measures], options), measures, options)


def selected_layers(normalized_cka: Sequence[float | None], options: LayerChoiceOptions) -> tuple[int, ...]:
    """Return the selected layers, rising; the final one, last, is always among them.

    Parameters
    ----------
    normalized_cka : sequence [L]
        The reading that selects, for each layer; None where it does not exist, and then the layer is not selected.
    options : LayerChoiceOptions
        The rule.

    Examples
    --------
    >>> selected_layers([0.6, 0.3, 0.7, 1.0], LayerChoiceOptions())
    (2, 3)
    >>> selected_layers([0.6, 0.3, 0.7, 1.0], LayerChoiceOptions(select="threshold"))
    (0, 2, 3)
    """
    final = len(normalized_cka) - 1
    values = np.array([-np.inf if value is None else value for value in normalized_cka[:final]])
    if options.select == "closest":
        order = np.argsort(-values, kind="stable")[: options.n_closest]
        inner = [int(layer) for layer in order if np.isfinite(values[layer])]
    else:
        inner = np.flatnonzero(values >= options.least_cka).tolist()
        if options.select == "run":
            inner = [layer for layer in inner if (values[layer:] >= options.least_cka).all()]
    if not inner and options.select == "closest":
        raise ProbeError(
            f"no inner layer has a normalized CKA ({options.normalized_cka}) at all: each is constant, or there are "
            "too few pages. So there is nothing to fuse"
        )
    if not inner:
        best = f"the largest is {values.max():.3f}" if np.isfinite(values).any() else "none has one"
        raise ProbeError(
            f"no inner layer has a normalized CKA ({options.normalized_cka}) of at least {options.least_cka:g} "
            f"({options.select}; {best}), so there is nothing to fuse; lower least_cka, or take select closest"
        )
    return (*sorted(inner), final)


def kinds_by_ratio(ratios: Sequence[float | None], options: LayerChoiceOptions) -> tuple[Kind, ...]:
    """Return the kind of probe that the alignment ratio names for each layer [L]; the last is always a base probe."""
    kinds: list[Kind] = [
        "base" if ratio is not None and ratio >= options.least_ratio else "normalized_projection" for ratio in ratios
    ]
    return (*kinds[:-1], "base")


def measure_layers(data: RetrievalData, train: RetrievalData) -> tuple[LayerMeasures, ...]:
    """Return every reading of normalized CKA and of the alignment ratio for each layer.

    Parameters
    ----------
    data : RetrievalData
        What is measured. Items of equal vectors enter once.
    train : RetrievalData
        The training split, the mean of whose pages is taken out for the centred readings.
    """
    queries, pages = (_distinct(vectors) for vectors in (data.queries, data.pages))
    of_mean = pages if data is train else _distinct(train.pages)
    pair_query, pair_page = one_query_a_page(data.gold, queries, pages)
    last = data.n_layers - 1
    final = _rows(data.pages, last, pages)
    final_mean = _rows(train.pages, last, of_mean).mean(axis=0)
    final_unit = unit_rows(final, f"layer {last}")
    rows: list[dict[str, float | None]] = []
    for layer in range(data.n_layers):
        here = _rows(data.pages, layer, pages)
        mean = _rows(train.pages, layer, of_mean).mean(axis=0)
        cka = _cka(here, final)
        paired = layer_of(data.queries, layer)[pair_query], layer_of(data.pages, layer)[pair_page]
        pair_cka = _cka(*paired)
        rows.append(
            {
                "plain": cka,
                "unit_rows": _cka(unit_rows(here, f"layer {layer}"), final_unit),
                "final": _ratio(here, final, cka),
                "final_centred": _ratio(here - mean, final - final_mean, cka),
                "query_page": _ratio(paired[0], paired[1], pair_cka),
                "query_page_centred": _ratio(paired[0] - mean, paired[1] - mean, pair_cka),
            }
        )
    known = [row["plain"] for row in rows[:-1] if row["plain"] is not None]
    largest = max(known, default=0.0)
    measures = []
    for layer, row in enumerate(rows):
        cka, relative = row["plain"], None
        if layer == last:
            relative = 1.0
        elif cka is not None and largest > 0:
            relative = cka / largest
        measures.append(LayerMeasures(layer, relative=relative, **row))
    return tuple(measures)


def _distinct(vectors: Vectors) -> DistinctItems:
    return distinct_items(None, blocks_of(vectors), name="inputs", n=vectors.shape[0])


def _rows(vectors: Vectors, layer: int, items: DistinctItems) -> np.ndarray:
    return layer_of(vectors, layer)[items.rows].astype(np.float64)


def _cka(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(x) < 4:
        return None
    try:
        return float(linear_cka(x, y))
    except UndefinedCKAError:
        return None  # a constant layer, as the CLS state of layer 0 always is


def _ratio(x: np.ndarray, y: np.ndarray, cka: float | None) -> float | None:
    return None if cka is None or cka <= 0 else float(paired_cosines(x, y).mean() / cka)
