"""Where a training stands, on disk: one that was stopped goes on and ends with the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from miner_diag.sealed import DamagedError, read_tensors, write_tensors

logger = logging.getLogger(__name__)


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
        name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in content.items()
    }
    write_tensors(path, arrays, {"key": key, "noted": dict(noted)})


def take_state(path: Path | None, key: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Return what was noted, and the tensors; None if there is no state of this training, so that it starts anew.

    A file that is damaged or of another training is put aside under a name of its own, and a warning says so.

    Parameters
    ----------
    path : path, optional
        The file; None where no state is kept.
    key : str
        What another training would differ in.
    """
    if path is None or not path.is_file():
        return None
    try:
        facts, arrays = read_tensors(path)
        if facts["key"] == key:
            return facts["noted"], {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        problem = "is the state of another training"
    except DamagedError as error:
        problem = f"is damaged ({error})"
    except KeyError as error:
        problem = f"is no state of a training (it lacks {error})"
    number = 1
    while (aside := path.with_name(f"{path.stem}-aside-{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
    logger.warning("%s %s; it is put aside as %s, and the training starts anew", path, problem, aside.name)
    return None


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
