"""Where a training stands, on disk: one that was stopped goes on and ends with the same numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_safetensors

from miner_diag.files import canonical_json, write_atomic


def keep_state(
    path: Path,
    key: str,
    noted: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor | np.ndarray],
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write everything that the next step of a training depends on.

    Parameters
    ----------
    path : path
        File, written whole or not at all.
    key : str
        What another training would differ in.
    noted : mapping
        Step, scores so far, state of a generator: anything that JSON holds.
    tensors : mapping of str
        Parameters and arrays; their names may not start with ``optimizer.``.
    optimizer : Optimizer, optional
        Its moments are kept, too.
    """
    content = dict(tensors)
    if optimizer is not None:
        for number, moments in optimizer.state_dict()["state"].items():
            content |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    arrays = {
        name: np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value)
        for name, value in content.items()
    }
    metadata = {"miner_diag": canonical_json({"key": key, "noted": noted})}
    write_atomic(path, save_safetensors(arrays, metadata=metadata))


def take_state(
    path: Path | None, key: str, error: type[ValueError]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Return what was noted, and the tensors; None if there is no file.

    Raises
    ------
    ValueError
        Of the class `error`, if the file is no state, or that of a training with another `key`.
    """
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})["miner_diag"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        found, noted = content["key"], content["noted"]
    except (SafetensorError, KeyError, TypeError, ValueError) as problem:
        raise error(f"{path} is no state of a training: {problem}; delete it") from problem
    if found != key:
        raise error(f"{path} is the state of another training; delete it, or choose another --out")
    return noted, tensors


def part_of(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def fill_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an optimizer the moments that :func:`keep_state` wrote."""
    content = optimizer.state_dict()
    for name, value in part_of(tensors, "optimizer.").items():
        number, field = name.split(".")
        content["state"].setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(content)
