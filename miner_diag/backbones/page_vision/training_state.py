"""Where a training of the line reader stands, on disk: one that was stopped goes on and ends with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_safetensors
from torch import nn

from miner_diag.backbones.base import CheckpointError
from miner_diag.files import canonical_json, write_atomic


def keep_state(path: Path, key: str, step: int, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write net and optimizer as they stand after `step` steps; what is random depends on seed and step alone."""
    tensors: dict[str, torch.Tensor] = {f"net.{name}": value for name, value in net.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    arrays = {name: np.ascontiguousarray(value.detach().numpy()) for name, value in tensors.items()}
    noted = {"key": key, "step": step}
    write_atomic(path, save_safetensors(arrays, metadata={"miner_diag": canonical_json(noted)}))


def take_state(path: Path, key: str, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Fill net and optimizer with what :func:`keep_state` wrote, and return its step; 0 if there is no file.

    Raises
    ------
    CheckpointError
        If the file is no state, or that of a training with another `key`.
    """
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            noted: dict[str, Any] = json.loads((file.metadata() or {})["miner_diag"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no state of a training: {error}; delete it") from error
    if noted["key"] != key:
        raise CheckpointError(f"{path} is the state of another training; delete it, or choose another --out")
    net.load_state_dict({n.removeprefix("net."): value for n, value in tensors.items() if n.startswith("net.")})
    content = optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, field = name.split(".")
            content["state"].setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(content)
    return int(noted["step"])
