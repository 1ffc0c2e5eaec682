"""A served retriever as a folder that travels: facts, tensors, and the backbone where that must come too.

Facts and tensors carry their hashes, so what was changed after it was written is refused. The backbone is named by its
hub id or as an embedded one, at the revision that is pinned, or lies in the folder itself.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from miner_diag.backbones import Backbone, LoadOptions
from miner_diag.backbones.hub import find_source
from miner_diag.backbones.registry import EMBEDDED
from miner_diag.backbones.revision import revision_files
from miner_diag.files import atomic_path, sha256_bytes, write_atomic
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.saved_systems import (
    FITTED_TO,
    FittedTo,
    kind_of,
    read_fitted_to,
    restore_system,
    tensors_of,
)
from miner_diag.fusion.system import System
from miner_diag.hub import COMMIT, HUB_ID
from miner_diag.sealed import DamagedError, read_sealed, sealed
from miner_diag.serving.errors import ServingError
from miner_diag.version import __version__

logger = logging.getLogger(__name__)

FACTS, TENSORS = "config.json", "model.safetensors"
FORMAT = 1
"""Raised when the layout of the files changes."""
LIBRARY = "miner_diag"
"""What the hub calls the library that loads the folder."""


@dataclass(frozen=True, eq=False)
class SavedRetriever:
    """What a folder holds."""

    load: LoadOptions
    """How the backbone is loaded; ``model`` is a path where it lies in the folder."""
    key: dict[str, str]
    """The key that the backbone must have."""
    system: System
    """The system over its layers."""
    system_name: str
    """What the system is called."""
    fitted_to: FittedTo | None
    """The pages that the system was fitted to; None where it was not fitted."""


def write_folder(
    folder: Path, backbone: Backbone, system: System, system_name: str, fingerprint: str, with_backbone: bool | None
) -> None:
    """Write ``config.json`` and ``model.safetensors``, and the backbone's files where they come along.

    Parameters
    ----------
    folder : path
        Where to; it is made.
    backbone : Backbone
        The backbone.
    system : System
        The system as it was fitted, not merged.
    system_name : str
        What it is called.
    fingerprint : str
        What the retriever calls itself, for whoever reads the facts alone.
    with_backbone : bool, optional
        Whether the backbone's files are copied. If it is not given, those of a local folder are: no other machine
        could find them.

    Raises
    ------
    ServingError
        If the backbone's files cannot come along, or others lie in their place.
    PlaceError
        If the folder cannot be written. It is an OSError.
    """
    load = replace(backbone.options, device="auto")
    if with_backbone or (with_backbone is None and is_local(load)):
        load, inside = _copy_backbone(folder, backbone, load), backbone.name
    else:
        load, inside = _pinned(load, backbone), None
    content = save_safetensors(tensors_of(system))
    facts = {
        "format": FORMAT,
        "library_name": LIBRARY,
        "version": __version__,
        "backbone": {"load": {"model": load.model, **load.given()}, "folder": inside, "key": backbone.key()},
        "system": {"name": system_name, "kind": kind_of(system), "facts": system.facts()},
        "sha256": sha256_bytes(content),
        "fingerprint": fingerprint,
    }
    write_atomic(folder / TENSORS, content)
    write_atomic(folder / FACTS, json.dumps(sealed(facts), indent=2) + "\n")


def read_folder(model: Path | str, revision: str | None = None, *, trust_remote_code: bool = False) -> SavedRetriever:
    """Read what :func:`write_folder` wrote, fetched from a hub where `model` is its id.

    Parameters
    ----------
    model : path or str
        The folder, or owner/name on a hub.
    revision : str, optional
        The commit hash of a hub id.
    trust_remote_code : bool
        Let the backbone run Python code that it brings along. The folder cannot allow that by itself.

    Raises
    ------
    ServingError
        If it is no such folder, a file is damaged or changed, or the backbone needs code of its own.
    UnknownBackboneError
        If a hub id cannot be fetched.
    """
    source = find_source(str(model), revision)
    if source is None:
        raise ServingError(f"{model} is neither a folder here nor a hub id (owner/name)")
    if revision is not None and not source.hub_id:
        raise ServingError(f"revision has no effect on the local folder {model}; leave it out")
    folder = source.fetch()
    facts = _read_facts(folder)
    try:
        content = (folder / TENSORS).read_bytes()
        if sha256_bytes(content) != facts["sha256"]:
            raise ServingError(f"{folder / TENSORS} is not the file that {FACTS} was written with; save it again")
        system = restore_system(facts["system"], load_safetensors(content), folder / FACTS)
        load, key = _load_options(facts["backbone"], folder), dict(facts["backbone"]["key"])
        name = str(facts["system"]["name"])
    except OSError as error:
        raise ServingError(f"{folder / TENSORS} cannot be read ({error}); fetch or save it again") from error
    except (SafetensorError, KeyError, TypeError, FusionError) as error:
        raise ServingError(f"{folder} holds no retriever that can be made again: {error}") from error
    if load.trust_remote_code and not trust_remote_code:
        raise ServingError(
            f"the backbone of {model} brings its own Python code; trust_remote_code=True runs that code with your "
            "rights, so read it first"
        )
    fitted_to = read_fitted_to(folder) if (folder / FITTED_TO).is_file() else None
    return SavedRetriever(load, key, system, name, fitted_to)


def is_local(load: LoadOptions) -> bool:
    """Tell whether a backbone is a folder of this machine."""
    return load.model not in EMBEDDED and Path(load.model).expanduser().is_dir()


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        facts = read_sealed(path)
    except OSError as error:
        raise ServingError(f"{path} cannot be read ({error.strerror}); make the folder with save_pretrained") from error
    except DamagedError as error:
        raise ServingError(f"{path} is not what save_pretrained wrote: {error}") from error
    if facts.get("format") != FORMAT:
        raise ServingError(f"{path} has format {facts.get('format')}, this version reads {FORMAT}")
    return facts


def _load_options(stated: Mapping[str, Any], folder: Path) -> LoadOptions:
    known = {field.name for field in fields(LoadOptions)}
    unknown = sorted(set(stated["load"]) - known)
    if unknown:
        raise ServingError(f"{folder / FACTS} has loading options that this version does not know: {unknown}")
    load = LoadOptions(**stated["load"])
    if stated["folder"] is None:
        return load
    return replace(load, model=str(folder / Path(stated["folder"]).name))  # never outside the folder


def _copy_backbone(folder: Path, backbone: Backbone, load: LoadOptions) -> LoadOptions:
    """Copy the files that decide the backbone's numbers, and its licence; return how the copy is loaded."""
    source = backbone.folder
    if source is None:
        raise ServingError(
            f"the files of {backbone.name} cannot come along: it is an adapter, or reads pictures with weights of this "
            "package; leave with_backbone out"
        )
    into = folder / backbone.name
    files = {path.relative_to(source): path for path in revision_files(source)}
    files |= {Path(path.name): path for path in source.glob("LICENSE*") if path.is_file()}
    others = {path.relative_to(into) for path in into.rglob("*") if path.is_file()} - set(files)
    if others:
        raise ServingError(f"{into} holds other files, as {min(others)}; take another folder, or remove them")
    for relative, path in files.items():
        with atomic_path(into / relative) as temporary:
            shutil.copyfile(path, temporary)
    if load.model in EMBEDDED:  # whose settings are not among its files
        load = replace(load, pooling=backbone.pooling, long_pages=backbone.long_pages)
    return replace(load, model=backbone.name, revision=None)


def _pinned(load: LoadOptions, backbone: Backbone) -> LoadOptions:
    """Return how another machine loads the same backbone: a hub id at the commit that was loaded."""
    if is_local(load):
        logger.warning(
            "the folder names the backbone %s, which no other machine has; with_backbone=True copies it", load.model
        )
        return replace(load, model=str(Path(load.model).expanduser().resolve()))
    folder = backbone.folder
    if HUB_ID.fullmatch(load.model) and load.revision is None and folder is not None and COMMIT.fullmatch(folder.name):
        return replace(load, revision=folder.name)
    return load
