"""Padded batches: items of different lengths side by side, and which of their tokens are pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from miner_diag.backbones.base import Encoded


def pad_batch(
    batch: Sequence[Encoded], fill: Mapping[str, int], padding_side: str, device: torch.device
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Pad the token inputs of a batch.

    Parameters
    ----------
    batch : sequence of Encoded
        B items.
    fill : mapping
        What stands in the padded positions of each input; 0 for an input that is not named.
    padding_side : {"right", "left"}
        Where the padding goes.
    device : torch.device
        Where the tensors go.

    Returns
    -------
    inputs : dict of Tensor [B, T]
        The items' inputs and ``attention_mask``.
    pool_mask : Tensor [B, T]
        The attention mask without the tokens that are left out of the pooling.
    """
    length = max(item.n_tokens for item in batch)
    padded = {name: np.full((len(batch), length), fill.get(name, 0), dtype=np.int64) for name in batch[0].inputs}
    mask = np.zeros((len(batch), length), dtype=np.int64)
    pool_mask = np.zeros_like(mask)
    for row, item in enumerate(batch):
        start = 0 if padding_side == "right" else length - item.n_tokens
        for name, values in item.inputs.items():
            padded[name][row, start : start + item.n_tokens] = values
        mask[row, start : start + item.n_tokens] = 1
        pool_mask[row, start + item.prompt_tokens : start + item.n_tokens - item.closing_tokens] = 1
    padded["attention_mask"] = mask
    inputs = {name: torch.from_numpy(values).to(device) for name, values in padded.items()}
    return inputs, torch.from_numpy(pool_mask).to(device)


def join_pixels(batch: Sequence[Encoded], device: torch.device) -> dict[str, torch.Tensor]:
    """Draw the pictures of a batch now and join them along the first axis; {} where no item has one."""
    parts = [item.pixels() for item in batch if item.pixels is not None]
    if not parts:
        return {}
    return {name: torch.from_numpy(np.concatenate([part[name] for part in parts])).to(device) for name in parts[0]}
