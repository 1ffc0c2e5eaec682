"""MINER's form with one thing switched at a time towards ours: what each difference is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from miner_diag.fusion.masks import MaskOptions, neuron_masks
from miner_diag.fusion.miner import MinerFusion
from miner_diag.fusion.miner_building import MinerParts, build_miner
from miner_diag.fusion.model import projection_map
from miner_diag.probes.kinds import unit
from miner_diag.probes.retrieval_data import RetrievalData, layer_of

if TYPE_CHECKING:
    from miner_diag.fusion.rows import Materials


@dataclass(frozen=True)
class Difference:
    """One difference between MINER's form and ours."""

    name: str
    """The row of the ablation that has it switched."""
    what: str
    """A description of the switched row."""
    build: Callable[[Materials], MinerFusion]
    """Makes the switched fusion before training."""


def layers_of_ours(materials: Materials) -> MinerFusion:
    """Fuse the layers that our selection keeps."""
    return build_miner(materials.miner, materials.layers)


def probes_of_ours(materials: Materials) -> MinerFusion:
    """Put our projections, LayerNorm and a free matrix, where the maps with rows of unit length are."""
    fusion = build_miner(materials.miner)
    stack = materials.probes.stack
    with torch.no_grad():
        for row, place in enumerate(fusion.norm_layers):
            matrix = projection_map(stack.probe(fusion.layers[place], "normalized_projection"))[:1]
            size = np.sqrt(np.square(matrix).sum() / matrix.shape[-1])
            fusion.maps[row] = torch.from_numpy(matrix / size)
    return fusion


def mask_of_ours(materials: Materials) -> MinerFusion:
    """Mask what a layer gives out, by our salience and a share that is linear in the score."""
    parts = materials.miner
    fusion = build_miner(parts)
    inner = fusion.layers[:-1]
    numbers = [parts.probes.number_of(layer, parts.choice.kinds[layer]) for layer in inner]
    salience = np.stack([output_salience(parts, number, materials.train) for number in numbers])
    # the rule leaves its last layer whole, so a final layer stands behind the inner ones
    padded = np.vstack([salience, np.ones(fusion.width)])
    scores = parts.probes.scores[numbers]
    kept = neuron_masks(padded, np.append(scores, scores.max()), MaskOptions(), np.random.default_rng(0))[:-1]
    with torch.no_grad():
        for place, mask in enumerate(kept):
            fusion.masks[place] = torch.from_numpy(mask.astype(np.float32))
        for row, place in enumerate(fusion.norm_layers):
            fusion.maps[row] *= fusion.masks[place][:, None]  # a dropped coordinate is one that comes out as 0
            fusion.masks[place] = 1.0
    return fusion


def scalar_weights(materials: Materials) -> MinerFusion:
    """Weigh a layer by one number instead of one for each coordinate."""
    fusion = build_miner(materials.miner)
    fusion.layer_vectors = torch.nn.Parameter(fusion.layer_vectors.detach()[:, :1].clone())
    return fusion


def trained_maps(materials: Materials) -> MinerFusion:
    """Train W~ further, with u and b."""
    fusion = build_miner(materials.miner)
    fusion.maps.requires_grad_(True)
    return fusion


def whitened_start(materials: Materials) -> MinerFusion:
    """Let the final layer pass the map that evens out the training pages, without labels."""
    fusion = build_miner(materials.miner)
    whitening = np.repeat(materials.whitening[None], fusion.gates.shape[1], axis=0)
    maps = iter(fusion.maps.detach().numpy())
    held = [None if kind == "base" else next(maps) for kind in fusion.kinds]
    return MinerFusion(
        fusion.layers,
        [*fusion.kinds[:-1], "normalized_projection"],
        fusion.gates.numpy(),
        [*held[:-1], whitening],
        fusion.masks.numpy(),
        fusion.layer_vectors.detach().numpy(),
        fusion.bias.detach().numpy(),
        n_layers=fusion.n_layers,
        unit_input=fusion.unit_input,
        pages_only=fusion.pages_only,
    )


def final_layer_alone(materials: Materials) -> MinerFusion:
    """Keep u and b for the final layer: all that MINER's form can do with that layer alone."""
    return build_miner(materials.miner, (materials.final,))


DIFFERENCES: tuple[Difference, ...] = (
    Difference("miner_our_layers", "miner with the layers that our selection keeps", layers_of_ours),
    Difference("miner_our_probes", "miner with our projections: LayerNorm and a free matrix", probes_of_ours),
    Difference("miner_our_mask", "miner with our mask: over outputs, a share linear in the score", mask_of_ours),
    Difference("miner_scalar_weights", "miner with one weight for a layer instead of a vector", scalar_weights),
    Difference("miner_trained_maps", "miner with maps that are trained further", trained_maps),
    Difference("miner_whitened", "miner with the final layer whitened by the training pages", whitened_start),
    Difference(
        "miner_random_negatives",
        "miner with u and b trained against random pages instead of hard negatives",
        lambda materials: build_miner(materials.miner),
    ),
)
"""Each difference, switched alone; the last one differs in how it is trained."""


def output_salience(parts: MinerParts, number: int, train: RetrievalData) -> np.ndarray:
    """Return our salience [D] of what a probe of MINER's gives out: p² (base), or what a coordinate adds to true pairs.

    The formula of a projection is that of :func:`~miner_diag.probes.salience.salience`.
    """
    probes = parts.probes
    matrix = probes.maps[number]
    if matrix is None:
        squares: np.ndarray = np.square(probes.gates[number]).mean(axis=0)
        return squares
    outputs = []
    for side, (vectors, rows) in enumerate(zip((train.queries, train.pages), train.pairs, strict=True)):
        place = min(side, len(matrix) - 1)
        x = torch.from_numpy(np.array(layer_of(vectors, probes.layers[number])[rows], dtype=np.float32))
        gated = (unit(x) if probes.options.unit_input else x) * torch.from_numpy(probes.gates[number][place])
        outputs.append(unit(gated @ torch.from_numpy(matrix[place]).T).double().numpy())
    z_query, z_page = outputs
    together = (z_query * z_page).mean(axis=0) - z_query.mean(axis=0) * z_page.mean(axis=0)
    return np.maximum(together, 0.0)
