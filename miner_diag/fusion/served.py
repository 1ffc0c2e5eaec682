"""A system of a fusion run, chosen to be served: which module, under which name, and what it is the same as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.fusion.loading import load_fusion, merge_for_serving
from miner_diag.fusion.miner import MinerFusion
from miner_diag.fusion.model import Fusion
from miner_diag.fusion.saved_systems import FittedTo, load_systems, read_fitted_to, tensors_of
from miner_diag.fusion.system import System


@dataclass(frozen=True, eq=False)
class ServedSystem:
    """A saved system of a fusion run."""

    given: str
    """The run, as the user named it."""
    name: str
    """The system's name, or the form of the fusion that the run hands out."""
    module: System
    """The map from layers to one vector."""
    fitted_to: FittedTo
    """The pages that it must not be measured on."""


def load_served(
    given: str, folder: Path, name: str | None = None, key: Mapping[str, str] | None = None
) -> ServedSystem:
    """Read one system of a fusion run.

    Parameters
    ----------
    given : str
        The run, as the user named it.
    folder : path
        The run's folder.
    name : str, optional
        The name of a saved system, of which the seed that validation likes best is taken; the fusion that the run hands
        out if it is not given.
    key : mapping, optional
        Key of the backbone that the system is wanted for; it is not checked if it is not given.

    Raises
    ------
    FusionError
        If a file is missing, damaged or changed, the name is unknown, or the system is of another backbone.
    """
    fitted_to = read_fitted_to(folder)
    if name is None:
        fusion = load_fusion(folder, key)
        return ServedSystem(given, fusion.form, fusion, fitted_to)
    (saved,) = load_systems(folder, key, [name])
    best = int(np.argmax(saved.validation_ndcg_at_5))
    return ServedSystem(given, name, saved.modules[best], fitted_to)


def served_form(system: System) -> System:
    """Return any system as it is served: a fusion merged where that can be, another system as it is."""
    can_be_merged = isinstance(system, MinerFusion) or (isinstance(system, Fusion) and system.query_map is None)
    return merge_for_serving(system) if can_be_merged else system  # type: ignore[arg-type]


def tells_sides_apart(system: System) -> bool:
    """Tell whether a query and a page with the same states get different vectors."""
    rng = np.random.default_rng(0)
    width = 8 if system.width is None else system.width
    states = torch.from_numpy(rng.normal(size=(4, len(system.layers), width)).astype(np.float32))
    with torch.no_grad():
        return not torch.equal(system(states, "query"), system(states, "page"))


def content_of(system: System) -> str:
    """Return the SHA-256 over everything of a system that changes a number."""
    tensors = {name: sha256_bytes(array.tobytes()) for name, array in tensors_of(system).items()}
    return sha256_bytes(canonical_json([type(system).__name__, system.facts(), tensors]).encode())
