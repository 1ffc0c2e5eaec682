"""From cached layers to MINER's fusion before training: layers, types, probes, masks, and its start at the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from tyro.conf import arg

from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.miner import MinerFusion
from miner_diag.fusion.top_p import TopPOptions, adaptive_etas, top_p_mask
from miner_diag.probes.gate_probes import GateProbeOptions, GateProbes, fit_gate_probes
from miner_diag.probes.kinds import Kind
from miner_diag.probes.layer_choice import LayerChoice, LayerChoiceOptions, choose_layers
from miner_diag.probes.retrieval_data import RetrievalData


@dataclass(frozen=True)
class MinerOptions:
    """What MINER's form is built of."""

    choice: Annotated[LayerChoiceOptions, arg(name="")] = field(default_factory=LayerChoiceOptions)
    """How layers are selected and typed."""
    probes: GateProbeOptions = field(default_factory=GateProbeOptions)
    """How its probes are fitted."""
    mask: Annotated[TopPOptions, arg(name="")] = field(default_factory=TopPOptions)
    """Which neurons are kept."""
    gate_inside: bool = False
    """Let the probe's gate p stay inside what a layer gives to the fusion: m * p * x instead of m * x."""


@dataclass(frozen=True, eq=False)
class MinerParts:
    """Everything of MINER's form that is frozen before u and b are trained."""

    choice: LayerChoice
    """Layers and types."""
    probes: GateProbes
    """A probe for each inner layer that any form fuses, of the kind that the ratio names."""
    options: MinerOptions
    """What it is built of."""
    width: int
    """D."""

    @property
    def layers(self) -> tuple[int, ...]:
        """[K] the selected layers."""
        return self.choice.layers

    def masks(self, layers: Sequence[int]) -> pd.DataFrame:
        """Return ``masks.csv``: layer, kind, score, eta, kept, share, for these layers, the final one last."""
        numbers = [self.probes.number_of(layer, self.choice.kinds[layer]) for layer in layers[:-1]]
        scores = self.probes.scores[numbers]
        etas = adaptive_etas(scores, self.options.mask)
        rows = []
        for layer, number, score, eta in zip(layers[:-1], numbers, scores, etas, strict=True):
            kept = int(self.mask(number, float(eta)).sum())
            rows.append(
                {
                    "layer": layer,
                    "kind": self.choice.kinds[layer],
                    "score": float(score),
                    "eta": float(eta),
                    "kept": kept,
                    "share": kept / self.width,
                }
            )
        final = {"layer": layers[-1], "kind": "base", "score": None, "eta": None, "kept": self.width, "share": 1.0}
        return pd.DataFrame([*rows, final])

    def mask(self, number: int, eta: float) -> np.ndarray:
        """Return the mask [D] of a probe's layer.

        Raises
        ------
        FusionError
            If all of the probe's gate is 0; the layer is named.
        """
        try:
            return top_p_mask(self.probes.salience(number), eta, self.options.mask.floor)
        except FusionError as error:
            raise FusionError(f"layer {self.probes.layers[number]}: {error}") from None


def fit_miner_parts(
    train: RetrievalData,
    validation: RetrievalData,
    options: MinerOptions | None = None,
    *,
    layers: tuple[int, ...] = (),
    more_layers: Sequence[int] = (),
    device: Any = "cpu",
    state: Path | None = None,
    progress: bool = False,
) -> MinerParts:
    """Select and type layers, and fit a probe to each inner one.

    Parameters
    ----------
    train : RetrievalData
        What selects, types, and is fitted to.
    validation : RetrievalData
        What decides which epoch of a probe is kept; eta follows its scores.
    options : MinerOptions, optional
        The defaults if not given.
    layers : tuple of int
        The layers to fuse, rising, the final one last, instead of those that normalized CKA selects.
    more_layers : sequence of int
        Inner layers whose probes a variant needs as well.
    device : str
        Where to train.
    state : path, optional
        File from which stopped probes go on.
    progress : bool
        Show a bar after two seconds.
    """
    options = options or MinerOptions()
    choice = choose_layers(train, options.choice, layers)
    final = train.n_layers - 1
    inner = sorted({*choice.layers, *more_layers} - {final})
    kinds: list[Kind] = [choice.kinds[layer] for layer in inner]
    probes = fit_gate_probes(
        train, validation, inner, kinds, options.probes, device=device, state=state, progress=progress
    )
    return MinerParts(choice, probes, options, train.width)


def build_miner(parts: MinerParts, layers: tuple[int, ...] | None = None) -> MinerFusion:
    """Return MINER's fusion before training: it gives the backbone's vectors.

    u is 1 for the final layer and 0 for all others, b is 0; the final layer keeps all of its neurons and has no gate.
    How the authors start u and b is not known; a start at the backbone is our choice.

    Parameters
    ----------
    parts : MinerParts
        Layers, types, probes and options.
    layers : tuple of int, optional
        Other layers than those that normalized CKA selected; their probes must be among the parts.
    """
    layers = parts.layers if layers is None else layers
    options, probes = parts.options, parts.probes
    table = parts.masks(layers)
    n_sides, width = probes.gates.shape[1:]
    gates = np.ones((len(layers), n_sides, width), dtype=np.float32)
    masks = np.ones((len(layers), width), dtype=bool)
    maps: list[np.ndarray | None] = [None] * len(layers)
    for place, row in enumerate(table.iloc[:-1].itertuples()):
        number = probes.number_of(layers[place], parts.choice.kinds[layers[place]])
        masks[place] = parts.mask(number, float(row.eta))
        maps[place] = probes.maps[number]
        if options.gate_inside:
            gates[place] = probes.gates[number]
    layer_vectors = np.zeros((len(layers), width), dtype=np.float32)
    layer_vectors[-1] = 1.0
    return MinerFusion(
        layers,
        [parts.choice.kinds[layer] for layer in layers],
        gates,
        maps,
        masks,
        layer_vectors,
        np.zeros(width, dtype=np.float32),
        n_layers=len(parts.choice.kinds),
        unit_input=probes.options.unit_input,
        pages_only=probes.options.sides == "pages",
    )
