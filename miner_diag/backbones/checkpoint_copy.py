"""A text encoder's lower layers as a checkpoint of their own: its last hidden state is the layer it ends with."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch

from miner_diag.backbones.errors import CheckpointError
from miner_diag.backbones.hooks import find_blocks
from miner_diag.backbones.loading import quiet_transformers
from miner_diag.backbones.pooling import pool
from miner_diag.backbones.text_encoder import TextEncoder

PROBE = "The quick brown fox jumps over the lazy dog."
"""The text on which a cut model is held against the whole one."""


def save_lower_layers(backbone: TextEncoder, layer: int, folder: Path) -> None:
    """Write the transformer with the blocks up to one layer, its configuration and its tokenizer.

    Parameters
    ----------
    backbone : TextEncoder
        The encoder.
    layer : int
        The layer, 1 to n_layers, that the new checkpoint ends with.
    folder : path
        Where to; it is made.

    Raises
    ------
    CheckpointError
        If the last hidden state of the cut model would be another than the layer, as where a norm stands behind the
        last block.
    """
    model = backbone.model
    if layer != backbone.n_layers:
        model = cut_model(backbone, layer)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)


def cut_model(backbone: TextEncoder, layer: int) -> torch.nn.Module:
    """Return a copy of the transformer with `layer` blocks, held against the whole one; errors as above."""
    if not 1 <= layer <= backbone.n_layers:
        raise CheckpointError(f"layer must be 1 to {backbone.n_layers} to cut {backbone.name} behind it; got {layer}")
    model = copy.deepcopy(backbone.model)
    config = model.config.get_text_config()
    del find_blocks(model, backbone.n_layers)[layer:]
    if len(getattr(config, "layer_types", None) or ()) == backbone.n_layers:
        config.layer_types = config.layer_types[:layer]
    config.num_hidden_layers = layer
    batch = backbone.prepare_texts([PROBE], "page")
    inputs, mask = backbone.collate(batch)
    with torch.inference_mode():
        found = pool(model(**inputs).last_hidden_state, mask, backbone.pooling).cpu().numpy()
        whole = pool(
            backbone.model(**inputs, output_hidden_states=True).hidden_states[layer], mask, backbone.pooling
        ).numpy(force=True)
    if not np.allclose(found, whole, rtol=1e-4, atol=1e-5):
        raise CheckpointError(
            f"{backbone.name} has a norm or a head behind its last block, so its first {layer} blocks alone do not end "
            f"with layer {layer}; take the form that reads it out of the whole model"
        )
    return model
