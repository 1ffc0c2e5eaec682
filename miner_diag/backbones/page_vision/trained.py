"""The trained part that the package ships: numbers in half precision; the file's header says where they come from."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from torch import nn

from miner_diag.backbones.errors import CheckpointError
from miner_diag.backbones.page_vision.line_reader import LineReader
from miner_diag.files import sha256_file

FILE = Path(__file__).with_name("page-vision.safetensors")
"""The file that ``python -m tools.train_line_reader`` wrote."""

MANIFEST = FILE.with_suffix(".yaml")
"""The manifest beside it: its hash, and how it was trained."""


def load_part(module: nn.Module, name: str, path: Path | str = FILE) -> nn.Module:
    """Fill `module` with the numbers stored under `name`; it is returned for inference, in float32.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or does not fill the module.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; install the package again")
    if path == FILE and trained_sha256() != (stated := stated_sha256()):
        raise CheckpointError(
            f"{path} is damaged: its sha256 is {trained_sha256()}, {MANIFEST.name} says {stated}; install the package "
            "again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {
                key.removeprefix(f"{name}."): file.get_tensor(key) for key in file.keys() if key.startswith(f"{name}.")
            }
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; train it again") from error
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


def stated_sha256() -> str:
    """Return the SHA-256 of the shipped file that the manifest beside it states."""
    return str(yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["sha256"])


@lru_cache(maxsize=1)
def trained_sha256() -> str:
    """Return the SHA-256 of the shipped file."""
    return sha256_file(FILE)
