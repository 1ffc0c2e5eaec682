"""The rows of the ablation as data: the fusion, its variants, and everything that it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from miner_diag.fusion.baselines import (
    ConcatPca,
    FinalLayerHead,
    LayerMix,
    MeanOfLast,
    ResidualHead,
    ShuffledLayers,
    SingleProbe,
)
from miner_diag.fusion.building import FusionConfig, build_fusion, with_random_masks
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.miner_building import MinerParts, build_miner
from miner_diag.fusion.miner_rows import DIFFERENCES, Difference, final_layer_alone
from miner_diag.fusion.model import Fusion
from miner_diag.fusion.system import System
from miner_diag.fusion.whitening import whitening_map
from miner_diag.probes.fitted_probes import FittedProbes
from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.probes.retrieval_data import RetrievalData

Role = Literal["backbone", "head", "fusion", "baseline", "control", "variant"]
"""What a system is in a comparison: the backbone itself; a head on its final layer alone, trained with the same data (a
gain of the fusion counts only beyond the one that validation likes best); the fusion; something simpler that combines
layers (baseline); something that must not gain (control); the fusion with one thing changed (variant)."""

Form = Literal["miner", "trained_maps"]
"""The forms of the fusion, by the names of their rows: MINER as its authors describe it, and ours."""

FORMS: tuple[Form, ...] = get_args(Form)

ALL_NEURONS = MaskOptions(mask="none")
"""The mask that keeps everything."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What the systems of the ablation are built from."""

    probes: FittedProbes
    """The fitted probes, their scores, salience and selection."""
    train: RetrievalData
    """The training split."""
    config: FusionConfig
    """What the fusion is built of."""
    mask: MaskOptions
    """Which neurons the fusion keeps."""
    miner: MinerParts
    """What MINER's form is built of."""

    def __post_init__(self) -> None:
        """Refuse a selection of the final layer alone."""
        refuse_final_alone(self.layers, self.final)

    @property
    def layers(self) -> tuple[int, ...]:
        """[K] layers that are fused."""
        return self.probes.selected

    @property
    def final(self) -> int:
        """Number of the final layer."""
        return self.probes.n_layers - 1

    @cached_property
    def start(self) -> np.ndarray | None:
        """Where the final layer's matrix starts, [D, D]; None for the identity."""
        return self.config.final_map(self.train)

    @cached_property
    def whitening(self) -> np.ndarray:
        """The map [D, D] that evens out the final embeddings of the training pages."""
        return whitening_map(self.train.pages, self.config.shrinkage) if self.start is None else self.start

    @cached_property
    def best_probe(self) -> tuple[int, Kind]:
        """Layer and kind of the probe with the best validation score."""
        kind, layer = np.unravel_index(int(np.argmax(self.probes.scores)), self.probes.scores.shape)
        return int(layer), KINDS[kind]

    @property
    def n_maps(self) -> int:
        """How many matrices a fusion trains beyond the final layer's own."""
        n_sides = len(self.probes.stack.gates[0])
        inner = [layer for layer in self.layers if layer != self.final and self.probes.kinds[layer] != "base"]
        return n_sides * len(inner) + (n_sides - 1) * (self.config.final == "projection")

    def fusion(
        self,
        rng: np.random.Generator,
        *,
        mask: MaskOptions | None = None,
        layers: tuple[int, ...] | None = None,
        kind: Kind | None = None,
        start: np.ndarray | Literal["as configured"] | None = "as configured",
        **changed: Any,
    ) -> Fusion:
        """Return the fusion before training, or one with a few things `changed` (fields of the configuration)."""
        return build_fusion(
            self.probes,
            self.layers if layers is None else layers,
            replace(self.config, **changed),
            self.mask if mask is None else mask,
            rng,
            None if kind is None else (kind,) * self.probes.n_layers,
            final_map=self.start if isinstance(start, str) else start,
        )

    def words(self) -> dict[str, str]:
        """Return what the descriptions of rows fill in."""
        layer, kind = self.best_probe
        return {
            "layers": ", ".join(map(str, self.layers)),
            "miner_layers": ", ".join(map(str, self.miner.layers)),
            "mask": self.mask.mask,
            "share": f"{self.mask.share:g}",
            "best_layer": str(layer),
            "best_kind": kind,
        }


@dataclass(frozen=True)
class Row:
    """One row of the ablation."""

    name: str
    """The system's name in every table and file."""
    role: Role
    """What the system is in a comparison."""
    what: str
    """A description; words in braces are those of `Materials.words`."""
    build: Callable[[Materials, np.random.Generator], System] | None = None
    """Makes the system before training; the generator is that of the seed."""
    build_on: Callable[[Fusion], System] | None = None
    """Makes the system from the fitted fusion of the same seed, instead; it is trained with the fusion's rates."""
    trained: bool = True
    """Whether anything is trained."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training options that are the row's own."""


def refuse_final_alone(layers: tuple[int, ...], final: int) -> None:
    """Raise FusionError if the layers to fuse are the final one alone."""
    if layers == (final,):
        raise FusionError(
            f"the selected layers are the final one, {final}, only: there is nothing to fuse. Choose layers "
            "with --layers, or select otherwise (--probe.rule top_k)"
        )


def _whitened(materials: Materials, rng: np.random.Generator) -> Fusion:
    fusion = materials.fusion(
        rng, mask=ALL_NEURONS, layers=(materials.final,), start=materials.whitening, final="projection"
    )
    return fusion.requires_grad_(False)


def _mlp(materials: Materials, rng: np.random.Generator) -> ResidualHead:
    width = materials.probes.width
    n_hidden = max(1, materials.n_maps * width // 2)
    return ResidualHead(materials.probes.n_layers, width, n_hidden, rng, materials.start)


def _best_single_layer(materials: Materials, rng: np.random.Generator) -> SingleProbe:
    layer, kind = materials.best_probe
    return SingleProbe(materials.probes.stack.probe(layer, kind), materials.probes.n_layers)


def _concat_pca(materials: Materials, rng: np.random.Generator) -> ConcatPca:
    return ConcatPca.fit(range(materials.probes.n_layers), (materials.train.queries, materials.train.pages))


def _all_layers(materials: Materials, rng: np.random.Generator) -> Fusion:
    return materials.fusion(rng, layers=tuple(range(materials.probes.n_layers)))


def _built_by(difference: Difference) -> Callable[[Materials, np.random.Generator], System]:
    return lambda materials, rng: difference.build(materials)


def query_specific(fitted: Fusion) -> Fusion:
    """Return a fitted fusion whose layer weights a query may move by a linear map of its final embedding.

    Nothing else is trained any more, and pages do not use it, so an index of the fitted fusion's pages serves both.
    """
    variant = copy.deepcopy(fitted).requires_grad_(False)
    variant.query_map = nn.Parameter(torch.zeros(len(variant.layers), variant.width))
    return variant


MINER_TRAINING: Mapping[str, Any] = {"negatives": 0, "hard_negatives": 16}
"""The negatives of MINER's form: those of the batch and mined ones, as for its probes."""

ROWS: tuple[Row, ...] = (
    Row(
        "backbone",
        "backbone",
        "the final layer as it is",
        lambda m, rng: Fusion.identity(m.probes.n_layers, m.probes.width),
        trained=False,
    ),
    Row(
        "best_single_layer",
        "baseline",
        "the fitted probe with the best validation score: {best_kind}, layer {best_layer}",
        _best_single_layer,
        trained=False,
    ),
    Row(
        "whitened",
        "baseline",
        "the final layer, evened out by the covariance of the training pages",
        _whitened,
        trained=False,
    ),
    Row(
        "mean_last_2",
        "baseline",
        "mean of the last two layers",
        lambda m, rng: MeanOfLast(m.probes.n_layers, 2),
        trained=False,
    ),
    Row(
        "mean_last_3",
        "baseline",
        "mean of the last three layers",
        lambda m, rng: MeanOfLast(m.probes.n_layers, 3),
        trained=False,
    ),
    Row(
        "concat_pca",
        "baseline",
        "all layers side by side, principal axes of the training items",
        _concat_pca,
        trained=False,
    ),
    Row(
        "scalar_mix",
        "baseline",
        "softmax weights of all raw layers",
        lambda m, rng: LayerMix(m.probes.n_layers, "softmax"),
    ),
    Row(
        "weighted_layer_pooling",
        "baseline",
        "sentence-transformers' weighted mean of all raw layers",
        lambda m, rng: LayerMix(m.probes.n_layers, "ratio"),
    ),
    Row(
        "final_layer_vector",
        "head",
        "u and b of MINER's form on the final layer",
        lambda m, rng: final_layer_alone(m),
        training=MINER_TRAINING,
    ),
    Row(
        "final_layer_linear",
        "head",
        "a matrix and a bias on the final layer",
        lambda m, rng: m.fusion(rng, mask=ALL_NEURONS, layers=(m.final,), final="projection"),
    ),
    Row(
        "final_layer_head",
        "head",
        "the fusion's own form and size, every layer replaced by the final one",
        lambda m, rng: FinalLayerHead.of(m.fusion(rng), m.start),
    ),
    Row(
        "final_layer_mlp",
        "head",
        "a residual layer of neurons on the final layer, as many parameters as the fusion",
        _mlp,
    ),
    Row(
        "random_mask",
        "control",
        "as many neurons, drawn at random",
        lambda m, rng: with_random_masks(m.fusion(rng), rng),
    ),
    Row(
        "shuffled_layers",
        "control",
        "inner layers of other items",
        lambda m, rng: ShuffledLayers(m.fusion(rng), int(rng.integers(2**31))),
    ),
    Row(
        "base_only",
        "variant",
        "base probes for all layers",
        lambda m, rng: m.fusion(rng, kind="base", final="gate"),
    ),
    Row(
        "projection_only",
        "variant",
        "projections for all layers",
        lambda m, rng: m.fusion(rng, kind="normalized_projection"),
    ),
    Row("no_bias", "variant", "without the global bias", lambda m, rng: m.fusion(rng, bias=False)),
    Row(
        "fixed_mask",
        "variant",
        "the same share of neurons, {share}, of every inner layer",
        lambda m, rng: m.fusion(rng, mask=replace(m.mask, mask="fixed")),
    ),
    Row("no_mask", "variant", "all neurons", lambda m, rng: m.fusion(rng, mask=ALL_NEURONS)),
    Row(
        "frozen_probes",
        "variant",
        "probes as the first stage left them, final layer as it is: weights and bias alone",
        lambda m, rng: m.fusion(rng, train_probes=False, final="as_is"),
    ),
    Row(
        "identity_start",
        "variant",
        "started as the backbone itself",
        lambda m, rng: m.fusion(rng, start=None, inner_weight=0.0),
    ),
    Row("all_layers", "variant", "all layers instead of the selected ones", _all_layers),
    Row(
        "fusion_mrl",
        "variant",
        "trained with the first 1/2, 1/4 and 1/8 of the vector, too",
        lambda m, rng: m.fusion(rng),
        training={"mrl": True},
    ),
    Row(
        "miner",
        "fusion",
        "MINER's form, layers {miner_layers}",
        lambda m, rng: build_miner(m.miner),
        training=MINER_TRAINING,
    ),
    *(
        Row(
            difference.name,
            "variant",
            difference.what,
            _built_by(difference),
            training={} if difference.name == "miner_random_negatives" else MINER_TRAINING,
        )
        for difference in DIFFERENCES
    ),
    Row(
        "trained_maps",
        "fusion",
        "our form: maps trained further from a whitened start, layers {layers}, {mask} mask",
        lambda m, rng: m.fusion(rng),
    ),
    Row(
        "query_specific",
        "variant",
        "fusion whose layer weights follow the query; pages, and so the index, unchanged",
        build_on=query_specific,
    ),
)
"""All systems of the ablation, in the order in which they are trained and listed."""

HEADS = tuple(row.name for row in ROWS if row.role == "head")
"""Heads on the final layer alone."""

ALWAYS = ("backbone", *HEADS, *FORMS)
"""Systems that no choice leaves out."""

DEFAULT = (*ALWAYS, "whitened")
"""Systems that are made where nothing else is said."""


def chosen_rows(names: Sequence[str] = ("default",)) -> tuple[Row, ...]:
    """Return the rows of these names, and those of `ALWAYS`, in the order of `ROWS`.

    Parameters
    ----------
    names : sequence of str
        Names of rows, "default" (those of `DEFAULT`), "differences" (miner with each difference to our form switched)
        or "all".

    Raises
    ------
    ValueError
        If there is no such row.
    """
    known = [row.name for row in ROWS]
    groups = {"default": DEFAULT, "differences": [difference.name for difference in DIFFERENCES], "all": known}
    unknown = sorted(set(names) - set(known) - set(groups))
    if unknown:
        raise ValueError(
            f"systems must be {', '.join(groups)}, or some of {', '.join(known)}; got {', '.join(unknown)}"
        )
    wanted = {*names, *ALWAYS}.union(*(groups[name] for name in names if name in groups))
    return tuple(row for row in ROWS if row.name in wanted)
