"""The rows of the ablation: the fusion, its variants, and everything it must be better than."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from miner_diag.fusion.baselines import ConcatPca, LayerMix, MeanOfLast, ResidualHead
from miner_diag.fusion.masks import MaskOptions, neuron_masks
from miner_diag.fusion.model import Fusion, FusionError, check_layers, projection_map
from miner_diag.fusion.whitening import whitening_map
from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.probes.probe_stack import ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData


@dataclass(frozen=True, eq=False)
class FittedProbes:
    """What the probe stage hands over."""

    stack: ProbeStack
    """Both kinds of probe for every layer."""
    scores: np.ndarray
    """[2, L] validation nDCG@5 of base probes and of projections."""
    salience: np.ndarray
    """[2, L, D]."""
    kinds: tuple[Kind, ...]
    """[L] the kind chosen for each layer."""
    selected: tuple[int, ...]
    """Layers to keep, the final one among them."""
    ratios: tuple[float | None, ...]
    """[L] alignment ratio of pages to the final layer; None where it does not exist."""

    @property
    def n_layers(self) -> int:
        """L."""
        return len(self.kinds)

    @property
    def width(self) -> int:
        """D."""
        return int(self.salience.shape[2])


@dataclass(frozen=True)
class FusionConfig:
    """What a fusion is built of."""

    final: str = "projection"
    """Of the final layer's part: as_is, gate (a weight per neuron), or projection (a matrix)."""
    start: str = "whitened"
    """Where the final layer's matrix, and that of every head, starts: identity (the final layer itself, so that the
    fusion starts as the backbone) or whitened (by the covariance of training pages, no labels)."""
    shrinkage: float = 0.5
    """Of that covariance: above 0 (nearly full whitening) to 1 (the identity)."""
    train_probes: bool = True
    """Train the probes of the inner layers further."""
    bias: bool = True
    """Learn the global bias."""
    inner_weight: float = 0.3
    """Where the weights of the inner layers start, shared out evenly, the final layer's being 1; with 0 and
    --shape.start identity the fusion starts as the backbone itself."""

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.final not in ("as_is", "gate", "projection"):
            raise ValueError(f"final must be as_is, gate or projection; got {self.final!r}")
        if self.start not in ("identity", "whitened"):
            raise ValueError(f"start must be identity or whitened; got {self.start!r}")
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage must be above 0 and at most 1; got {self.shrinkage}")

    def final_map(self, train: RetrievalData) -> np.ndarray | None:
        """Return what the final layer's matrix starts from, [D, D]; None for the identity."""
        return whitening_map(train.pages, self.shrinkage) if self.start == "whitened" else None


def build_fusion(
    probed: FittedProbes,
    layers: tuple[int, ...],
    shape: FusionConfig,
    mask: MaskOptions,
    rng: np.random.Generator,
    kinds: tuple[Kind, ...] | None = None,
    *,
    final_map: np.ndarray | None = None,
) -> Fusion:
    """Return a fusion before training; with `shape.inner_weight` 0 and no `final_map` it is the backbone.

    Parameters
    ----------
    probed : FittedProbes
        Probes, their scores and salience.
    layers : tuple of int [K]
        Rising, the final layer last.
    shape, mask : FusionConfig, MaskOptions
        What is trained, and which neurons are kept.
    rng : Generator
        For random masks.
    kinds : tuple of str [L], optional
        Instead of the chosen ones.
    final_map : ndarray [D, D], optional
        Where the matrix of the final layer starts (`FusionConfig.final_map`); the identity if not given. Projections of
        inner layers, which were fitted to speak as the final layer does, pass through it.

    Raises
    ------
    FusionError
        If `layers` are not rising layers of the backbone that end with the final one.
    """
    check_layers(layers, probed.n_layers)
    kinds = kinds or probed.kinds
    final, width = probed.n_layers - 1, probed.width
    number = [KINDS.index(kind) for kind in kinds]
    every = np.arange(probed.n_layers)
    masks = neuron_masks(probed.salience[number, every], probed.scores[number, every], mask, rng)[list(layers)]
    maps = [_map(probed.stack, layer, kinds[layer], final_map) for layer in layers[:-1]]
    sides = len(probed.stack.gates[0])
    if shape.final == "projection":
        start = np.eye(width, dtype=np.float32) if final_map is None else final_map
        maps.append(np.repeat(start[None], sides, axis=0))
    else:
        maps.append(np.ones((sides, width), dtype=np.float32))
    own: list[Kind] = [kinds[layer] for layer in layers[:-1]]
    own.append("normalized_projection" if shape.final == "projection" else "base")
    weights = np.full(len(layers), shape.inner_weight / max(1, len(layers) - 1), dtype=np.float32)
    weights[-1] = 1.0
    fusion = Fusion(layers, own, maps, masks, weights, np.zeros(width, dtype=np.float32), n_layers=final + 1)
    for place, matrix in enumerate(fusion.maps):
        is_final = place == len(layers) - 1
        matrix.requires_grad_(shape.final != "as_is" if is_final else shape.train_probes)
    fusion.bias.requires_grad_(shape.bias)
    return fusion


def _map(stack: ProbeStack, layer: int, kind: Kind, final_map: np.ndarray | None) -> np.ndarray:
    probe = stack.probe(layer, kind)
    if kind == "base":
        return probe.weight
    matrix = projection_map(probe)
    if final_map is not None:
        matrix = final_map @ matrix
    # rows of length one on average, as those the final layer starts from: one learning rate for all
    return matrix / np.sqrt(np.square(matrix).sum(axis=(-1, -2), keepdims=True) / matrix.shape[-1])


def with_random_masks(fusion: Fusion, rng: np.random.Generator) -> Fusion:
    """Return the fusion with as many neurons kept in each inner layer, but any."""
    for place in range(len(fusion.layers) - 1):
        fusion.masks[place] = fusion.masks[place][torch.from_numpy(rng.permutation(fusion.width))]
    return fusion


class ShuffledLayers(nn.Module):
    """A fusion whose inner layers are those of other items: what it gains is not owed to what they say.

    Parameters
    ----------
    fusion : Fusion
        Before training.
    seed : int
        Of the order, which differs between sides and is the same in each run.
    """

    def __init__(self, fusion: Fusion, seed: int) -> None:
        super().__init__()
        self.fusion, self.layers, self.seed = fusion, fusion.layers, seed

    def forward(self, vectors: torch.Tensor, side: Any = "page") -> torch.Tensor:
        """Return [N, D] for states [N, K, D], the inner ones dealt out anew among the N items."""
        # queries and pages get orders of their own, or pairs that stand in one order would stay pairs
        generator = torch.Generator().manual_seed(2 * (self.seed + len(vectors)) + (side == "query"))
        order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
        return self.fusion(torch.cat([vectors[order, :-1], vectors[:, -1:]], dim=1), side)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return those of the fusion."""
        return self.fusion.groups()


@dataclass(frozen=True)
class Row:
    """One row of the ablation."""

    name: str
    """As ``ablation.csv`` has it."""
    what: str
    """In words."""
    build: Callable[[np.random.Generator], Any]
    """The system before training; the generator is of the seed."""
    trained: bool = True
    """Whether anything is trained."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training options that are its own."""


def rows(
    probed: FittedProbes, train: RetrievalData, validation: RetrievalData, shape: FusionConfig, mask: MaskOptions
) -> list[Row]:
    """Return all systems of the ablation but those that start from a fitted fusion.

    Raises
    ------
    FusionError
        If the probes keep the final layer only: there is nothing to fuse.
    """
    layers, final, width = probed.selected, probed.n_layers - 1, probed.width
    if layers == (final,):
        raise FusionError(
            f"the selected layers are the final one, {final}, only: there is nothing to fuse. Choose layers with "
            "--layers, or select otherwise (--rule top_k)"
        )
    whole = MaskOptions(mask="none")
    sides = len(probed.stack.gates[0])
    n_maps = sides * sum(1 for layer in layers if layer != final and probed.kinds[layer] != "base")
    n_maps += (sides - 1) * (shape.final == "projection")

    start = shape.final_map(train)
    even = whitening_map(train.pages, shape.shrinkage) if start is None else start

    def of(
        mask: MaskOptions = mask,
        layers: tuple[int, ...] = layers,
        kinds: Any = None,
        start: Any = start,
        **changed: Any,
    ) -> Any:
        return lambda rng: build_fusion(probed, layers, replace(shape, **changed), mask, rng, kinds, final_map=start)

    def same_size_head(rng: np.random.Generator) -> Fusion:
        head = build_fusion(probed, layers, shape, mask, rng, final_map=start)
        head.layers = (final,) * len(layers)
        if start is not None:  # the probes' maps are those of other layers; every part starts as the final one does
            for place, matrix in enumerate(head.maps):
                if head.kinds[place] == "normalized_projection":
                    matrix.data.copy_(torch.from_numpy(start).expand_as(matrix))
        return head

    def whitened(rng: np.random.Generator) -> Fusion:
        return of(whole, (final,), start=even, final="projection")(rng).requires_grad_(False)

    every: dict[Kind, tuple[Kind, ...]] = {kind: (kind,) * probed.n_layers for kind in KINDS}
    best_kind, best_layer = np.unravel_index(int(np.argmax(probed.scores)), probed.scores.shape)
    listed = [
        Row("backbone", "the final layer as it is", lambda rng: Fusion.identity(final + 1, width), False),
        Row(
            "best_single_layer",
            f"the fitted probe with the best validation score: {KINDS[best_kind]}, layer {best_layer}",
            lambda rng: SingleProbe(probed, int(best_layer), KINDS[best_kind]),
            False,
        ),
        Row("whitened", "the final layer, evened out by the covariance of the training pages", whitened, False),
        Row("mean_last_2", "mean of the last two layers", lambda rng: MeanOfLast(final + 1, 2), False),
        Row("mean_last_3", "mean of the last three layers", lambda rng: MeanOfLast(final + 1, 3), False),
        Row(
            "concat_pca",
            "all layers side by side, principal axes of the training items",
            lambda rng: ConcatPca(range(final + 1), (train.queries, train.pages)),
            False,
        ),
        Row("scalar_mix", "softmax weights of all raw layers", lambda rng: LayerMix(final + 1, "softmax")),
        Row(
            "weighted_layer_pooling",
            "sentence-transformers' weighted mean of all raw layers",
            lambda rng: LayerMix(final + 1, "ratio"),
        ),
        Row("final_layer_linear", "a matrix and a bias on the final layer", of(whole, (final,), final="projection")),
        Row(
            "final_layer_head", "the fusion's own form and size, every layer replaced by the final one", same_size_head
        ),
        Row(
            "final_layer_mlp",
            "a residual layer of neurons on the final layer, as many parameters as the fusion",
            lambda rng: ResidualHead(final + 1, width, max(1, n_maps * width // 2), rng, start),
        ),
        Row("random_mask", "as many neurons, drawn at random", lambda rng: with_random_masks(of()(rng), rng)),
        Row(
            "shuffled_layers",
            "inner layers of other items",
            lambda rng: ShuffledLayers(of()(rng), int(rng.integers(2**31))),
        ),
        Row("base_only", "base probes for all layers", of(kinds=every["base"], final="gate")),
        Row("projection_only", "projections for all layers", of(kinds=every["normalized_projection"])),
        Row("no_bias", "without the global bias", of(bias=False)),
        Row(
            "fixed_mask",
            f"the same share of neurons, {mask.share:g}, of every inner layer",
            of(replace(mask, mask="fixed")),
        ),
        Row("no_mask", "all neurons", of(whole)),
        Row(
            "frozen_probes",
            "probes as the first stage left them, final layer as it is: weights and bias alone",
            of(train_probes=False, final="as_is"),
        ),
        Row("identity_start", "started as the backbone itself", of(start=None, inner_weight=0.0)),
        Row("all_layers", "all layers instead of the selected ones", of(layers=tuple(range(final + 1)))),
        Row("fusion_mrl", "trained with the first 1/2, 1/4 and 1/8 of the vector, too", of(), training={"mrl": True}),
        Row("fusion", f"layers {', '.join(map(str, layers))}, {mask.mask} mask", of()),
    ]
    return listed


class SingleProbe(nn.Module):
    """One fitted probe, frozen."""

    def __init__(self, probed: FittedProbes, layer: int, kind: Kind) -> None:
        super().__init__()
        self.layers: tuple[int, ...] = (layer,)
        self.kind, self.probe = kind, probed.stack.probe(layer, kind)

    def forward(self, vectors: torch.Tensor, side: Any = "page") -> torch.Tensor:
        """Return [N, D] for the layer's states [N, 1, D]."""
        return torch.from_numpy(self.probe.apply(vectors[:, 0].cpu().numpy(), side)).to(vectors.device)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return no parameters."""
        return {"maps": [], "weights": []}


def query_specific(fitted: Fusion) -> Fusion:
    """Return a fitted fusion whose layer weights a query may move by a linear map of its final embedding.

    Nothing else is trained any more, and pages do not use it, so an index of the fitted fusion's pages serves both.
    """
    variant = copy.deepcopy(fitted).requires_grad_(False)
    variant.query_map = nn.Parameter(torch.zeros(len(variant.layers), variant.width))
    return variant


def n_parameters(system: Any) -> int:
    """Return how many numbers are trained."""
    groups = system.groups()
    return sum(parameter.numel() for some in groups.values() for parameter in some)
