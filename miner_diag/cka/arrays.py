"""What callers pass, NumPy or torch, as float tensors that share its memory."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from miner_diag.arrays import real_array, refuse_other_labels

if TYPE_CHECKING:
    import torch


def as_matrix(values: Any, argument: str) -> torch.Tensor:
    """One array or tensor as a float tensor that shares its memory where that is possible."""
    import torch

    if isinstance(values, torch.Tensor):
        tensor = values.detach()
        if tensor.is_complex():
            raise ValueError(f"{argument} must be real, got {tensor.dtype}; take .real on purpose first")
        if tensor.dtype == torch.bool:
            raise ValueError(f"{argument} must be numbers, got {tensor.dtype}; convert it on purpose with .float()")
        return tensor if tensor.is_floating_point() else tensor.to(torch.float64)
    array = real_array(values, argument)
    if array.dtype not in (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)):
        array = array.astype(np.float64)  # integers, long doubles, foreign byte order
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # A read-only array (a memory map) is only read here, so the warning about writing to it does not apply.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def as_rows(values: Any, argument: str) -> torch.Tensor:
    """One layer `[N, D]` as a float tensor; errors name the argument."""
    tensor = as_matrix(values, argument)
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise ValueError(f"{argument} must be [N, D] with D >= 1, got {tuple(tensor.shape)}")
    return tensor


def split_layers(layer_embeddings: Any, argument: str) -> list[torch.Tensor]:
    """Layers `[N, D_l]` of an array [N, L, D], an array [N, D] or a sequence, shapes checked, nothing copied."""
    if isinstance(layer_embeddings, (list, tuple)):
        refuse_other_labels({argument: layer_embeddings})
        if not layer_embeddings:
            raise ValueError(f"{argument} must hold at least one layer, got an empty {type(layer_embeddings).__name__}")
        sides = [as_matrix(side, f"{argument}[{i}]") for i, side in enumerate(layer_embeddings)]
    else:
        array = as_matrix(layer_embeddings, argument)
        if array.ndim == 2:
            sides = [array]
        elif array.ndim == 3:
            sides = [array[:, layer] for layer in range(array.shape[1])]
        else:
            raise ValueError(f"{argument} must be [N, L, D], [N, D] or a list of [N, D_l], got {tuple(array.shape)}")
    for i, side in enumerate(sides):
        if side.ndim != 2 or side.shape[1] == 0:
            raise ValueError(f"{argument}[{i}] must be [N, D] with D >= 1, got {tuple(side.shape)}")
    if not sides:
        raise ValueError(f"{argument} must hold at least one layer, got {tuple(layer_embeddings.shape)}")
    return sides
