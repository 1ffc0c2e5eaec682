"""The trained part that the package ships: numbers in half precision, where they come from in the file's header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from miner_diag.backbones.base import CheckpointError
from miner_diag.backbones.page_vision.line_reader import LineReader
from miner_diag.files import atomic_path, sha256_file

FILE = Path(__file__).with_name("page-vision.safetensors")
"""Written by ``python -m miner_diag.backbones.page_vision``."""


def save_trained(path: Path | str, parts: Mapping[str, nn.Module], facts: Mapping[str, Any]) -> None:
    """Write modules as ``name.parameter`` in float16, and `facts` (provenance) as JSON in the header."""
    tensors = {
        f"{name}.{key}": (value.half() if value.is_floating_point() else value).contiguous()
        for name, module in parts.items()
        for key, value in module.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"facts": json.dumps(facts, sort_keys=True)})


def load_part(module: nn.Module, name: str, path: Path | str = FILE) -> nn.Module:
    """Fill `module` with the numbers stored under `name`; it is returned for inference, in float32.

    Raises
    ------
    CheckpointError
        If the file is missing, or does not fill the module.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; install the package again")
    with safe_open(path, framework="pt") as file:
        tensors = {
            key.removeprefix(f"{name}."): file.get_tensor(key) for key in file.keys() if key.startswith(f"{name}.")
        }
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} does not fill {type(module).__name__}: {error}") from error
    return module.eval().requires_grad_(False)


def load_line_reader(path: Path | str = FILE) -> LineReader:
    """Return the line reader the package ships, on the CPU."""
    reader = LineReader()
    load_part(reader, "reader", path)
    return reader


def trained_facts(path: Path | str = FILE) -> dict[str, Any]:
    """Return what the file says of its own making."""
    with safe_open(Path(path), framework="pt") as file:
        return dict(json.loads(file.metadata()["facts"]))


@lru_cache(maxsize=1)
def trained_sha256() -> str:
    """Return the SHA-256 of the shipped file."""
    return sha256_file(FILE)
