"""Systems of every shape over a small backbone, made by hand."""

from __future__ import annotations

import numpy as np

from miner_diag.fusion import Fusion, MinerFusion
from miner_diag.fusion.baselines import FinalLayerHead, OneLayer, ResidualHead, SingleProbe
from miner_diag.probes.probe_stack import Probe
from miner_diag.serving import FusedRetriever
from tests.handbooks import WORDS

L, D = 4, 32
QUERIES = ["wave reef", "tide", "anchor basin canal delta estuary fjord"]
TEXTS = ["anchor basin", " ".join(WORDS[:30]), "tide tide reef salt", "zephyr beacon current dredge ebb"]


def fusion(layers=(1, 3), *, sides=1, weights=None, bias=True, kinds=None, of=Fusion, seed=0):
    """Our form with random maps and masks."""
    rng = np.random.default_rng(seed)
    kinds = kinds or ["normalized_projection"] * len(layers)
    shapes = [(sides, D) if kind == "base" else (sides, D, D) for kind in kinds]
    return of(
        layers,
        kinds,
        [rng.normal(size=shape) for shape in shapes],
        rng.random((len(layers), D)) < 0.7,
        np.array(weights if weights is not None else rng.uniform(0.2, 1, len(layers))),
        0.3 * rng.normal(size=D) if bias else np.zeros(D),
        n_layers=L,
    ).requires_grad_(False)


def miner(layers=(1, 2, 3), *, sides=1, pages_only=False, seed=1):
    """MINER's form with random gates, maps and masks; the first layer has a map."""
    rng = np.random.default_rng(seed)
    n = len(layers)
    kinds = ["normalized_projection" if place == 0 else "base" for place in range(n)]
    return MinerFusion(
        layers,
        kinds,
        rng.normal(size=(n, sides, D)),
        [rng.normal(size=(sides, D, D)) if kind != "base" else None for kind in kinds],
        rng.random((n, D)) < 0.7,
        rng.normal(size=(n, D)),
        0.3 * rng.normal(size=D),
        n_layers=L,
        pages_only=pages_only,
    ).requires_grad_(False)


def probe(layer, kind, sides=1, seed=2):
    rng = np.random.default_rng(seed)
    return SingleProbe(Probe(layer, kind, rng.normal(size=(sides, D) if kind == "base" else (sides, D, D))), L)


SYSTEMS = {
    "ours": fusion,
    "ours with a side each": lambda: fusion(sides=2),
    "ours without the final layer": lambda: fusion(weights=[0.7, 0.0]),
    "miner": miner,
    "miner with a side each": lambda: miner(sides=2),
    "miner for pages only": lambda: miner(pages_only=True),
    "a head": lambda: fusion((3, 3), of=FinalLayerHead),
    "a head that bends": lambda: ResidualHead(L, D, 7, np.random.default_rng(3)).requires_grad_(False),
    "a probe of an inner layer": lambda: probe(2, "normalized_projection"),
    "an inner layer": lambda: OneLayer(1, L, D),
    "the backbone": lambda: OneLayer(3, L, D),
}


def served(load, system, name="made"):
    """A retriever of a system over the small backbone."""
    return FusedRetriever._load(load, lambda _: system, name)
