"""Files of a checkpoint that are not what their names say: Git-LFS pointers, empty ones, and weights cut short."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from miner_diag.backbones.errors import CheckpointError

POINTER = b"version https://git-lfs"
"""The first bytes of what Git leaves in place of a file that it has not fetched."""

TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""The files that a tokenizer is read from, where they are there."""

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""The files that say how pictures enter a model."""


def check_weight_files(folder: Path) -> None:
    """Check the weights in a folder that a model is loaded from; those of other formats may be what they are.

    Raises
    ------
    CheckpointError
        If the configuration or a file of weights is a Git-LFS pointer or empty, or a safetensors file is cut short or
        damaged.
    """
    weights = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    check_files([folder / "config.json", *weights])
    for path in weights:
        if path.suffix == ".safetensors":
            check_safetensors(path)


def check_files(paths: Iterable[Path]) -> None:
    """Check that no file is empty or a Git-LFS pointer; files that are not there are passed over.

    Raises
    ------
    CheckpointError
        If one is; all such files are named.
    """
    empty, pointers = [], []
    for path in paths:
        if not path.is_file():
            continue
        with path.open("rb") as file:
            start = file.read(len(POINTER))
        if not start:
            empty.append(path)
        elif start == POINTER:
            pointers.append(path)
    if pointers:
        raise CheckpointError(
            f"{', '.join(map(str, pointers))} is a Git-LFS pointer, not the file itself; fetch it with git lfs pull in "
            "its repository, or download it again"
        )
    if empty:
        raise CheckpointError(f"{', '.join(map(str, empty))} is empty (0 bytes); download it again")


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file is as long as its header says.

    Raises
    ------
    CheckpointError
        If it has no readable header, or another length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= n_header <= size - 8:
            raise CheckpointError(
                f"{path} has no whole safetensors header: it has {size} bytes, of which the first eight announce "
                f"{n_header} for the header; the file is cut short or damaged, so download it again"
            )
        try:
            tensors = json.loads(file.read(n_header))
            ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
            expected = 8 + n_header + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} has no readable safetensors header ({error}); download it again") from None
    if size != expected:
        raise CheckpointError(
            f"{path} has {size:,} bytes, and its header announces {expected:,}; the file is cut short or damaged, so "
            "download it again"
        )
