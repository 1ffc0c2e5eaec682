"""Known checkpoints: each has a manifest, shipped with the package, that says where it is and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from miner_diag.backbones.base import BackboneError
from miner_diag.backbones.hub import looks_like_hub_id
from miner_diag.backbones.options import Protocol
from miner_diag.corpus.fields_file import check_count, check_fields, read_fields, shown
from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.hub import COMMIT

BYTES = 2
"""The bytes of a weight in bfloat16."""
LATE = "none (late interaction)"
"""What a manifest states as the pooling of a model with a vector for every token."""
TASKS_WORDS = "Find a screenshot that is relevant to the user's question."
"""What ViDoRe V3's tasks of mteb say of themselves. A manifest names these words where mteb's run of a checkpoint puts
the words of the task at hand before a query."""
PROTOCOLS = tuple(name for name in get_args(Protocol) if name != "authors")
"""The protocols that a manifest says the differences of; its other fields are the authors'."""


@dataclass(frozen=True)
class ProtocolChanges:
    """What a protocol does otherwise than the authors of a checkpoint; a field at None is as theirs."""

    notes: str
    """What it does, and what of it no field here says."""
    query_prompt: str | None = None
    """Its instruction or prefix of a query."""
    page_prompt: str | None = None
    """Its instruction or words beside a page."""
    query_closing: str | None = None
    """What closes a query's message."""
    page_closing: str | None = None
    """What closes a page's message."""
    max_pixels: int | None = None
    """Its largest picture of a page, in pixels."""

    @property
    def changes(self) -> dict[str, str | int]:
        """The settings that differ, by name; empty where all is the same or only the notes name a difference."""
        named = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "notes"}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class KnownModel:
    """What is known of one checkpoint without having it."""

    hub_id: str
    """owner/name."""
    revision: str | None
    """The full commit hash that is fetched; null where none is known for sure."""
    family: str
    """The family that loads it, see :mod:`miner_diag.backbones.families`; a late model states its model type."""
    pooling: str
    """last, mean or cls; a dual encoder states that of queries / that of pages; `LATE` where there is none."""
    query_prompt: str
    """The authors' instruction or prefix of a query."""
    page_prompt: str
    """The authors' instruction or words beside a page."""
    max_pixels: int
    """The largest picture of a page, in pixels."""
    n_layers: tuple[int, ...]
    """The number of transformer blocks; a dual encoder has two: its query encoder's and its page encoder's."""
    width: tuple[int, ...]
    """The width of the hidden states; a dual encoder has two: its query encoder's and its page encoder's."""
    parameters: int
    """The number of weights, adapter and base together."""
    licence: str
    """The SPDX identifier, or the licence's name."""
    source: str
    """Where these facts are from."""
    protocol: Mapping[str, ProtocolChanges | None]
    """For each of `PROTOCOLS`, what it does otherwise than the fields here; None where it does not run the model."""
    base_model: str | None = None
    """The hub id of the model that an adapter belongs to."""
    base_revision: str | None = None
    """The commit hash of the base model."""
    notes: str = ""
    """What a user should know: why a revision is missing, what was not checked."""

    @property
    def late(self) -> bool:
        """Whether it has a vector for every token, so that ``python -m miner_diag.late`` runs it."""
        return self.pooling == LATE

    @property
    def bf16_gb(self) -> float:
        """Memory of the weights in bfloat16, in GB (10^9 bytes); a forward needs some more."""
        return self.parameters * BYTES / 1e9


def read_known(path: Path) -> KnownModel:
    """Read one manifest.

    Raises
    ------
    BackboneError
        If a field is missing, unknown or of the wrong kind; names the file and the field.
    """
    try:
        content = check_fields(KnownModel, read_fields(path), str(path))
        for name in ("n_layers", "width"):
            values = content[name] if isinstance(content[name], list) else [content[name]]
            content[name] = tuple(check_count(value, f"{path}: {name}") for value in values)
        content["protocol"] = _protocol(content["protocol"], f"{path}: protocol")
    except ValueError as error:
        raise BackboneError(str(error)) from None
    for name in ("revision", "base_revision"):
        value = content.get(name)
        if value is not None and not COMMIT.fullmatch(value):
            raise BackboneError(f"{path}: {name} must be a full commit hash or null; got {shown(value)}")
    for name in ("hub_id", "base_model"):
        value = content.get(name)
        if value is not None and not looks_like_hub_id(value):
            raise BackboneError(f"{path}: {name} must be owner/name of a hub; got {shown(value)}")
    return KnownModel(**content)


def _protocol(content: Any, where: str) -> dict[str, ProtocolChanges | None]:
    """Return the protocols of a manifest, checked; raises ValueError."""
    if not isinstance(content, dict) or set(content) != set(PROTOCOLS):
        raise ValueError(f"{where} must hold {', '.join(PROTOCOLS)} and nothing else; got {shown(content)}")
    return {
        name: None if row is None else ProtocolChanges(**check_fields(ProtocolChanges, row, f"{where}: {name}"))
        for name, row in content.items()
    }


@lru_cache(maxsize=1)
def known_models() -> tuple[KnownModel, ...]:
    """Return every known checkpoint, by family and size."""
    models = [read_known(path) for path in sorted((manifest_folder() / "models").glob("*.yaml"))]
    return tuple(sorted(models, key=lambda model: (model.family, model.parameters)))


def hub_id_of(name: str) -> str:
    """Return the hub id of a known checkpoint; any other name is returned as it is."""
    known = known_model(name)
    return name if known is None else known.hub_id


def known_model(name: str) -> KnownModel | None:
    """Return the known checkpoint of that hub id, or of that folder name; None if there is none."""
    short = name.rstrip("/").rsplit("/", 1)[-1].lower()
    for model in known_models():
        if model.hub_id.lower() == name.lower() or ("/" not in name and model.hub_id.lower().endswith(f"/{short}")):
            return model
    return None
