"""Trained systems on disk: all of an ablation, saved and loaded bit for bit, and what they were fitted to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus import Corpus
from miner_diag.files import sha256_bytes, write_atomic
from miner_diag.fusion.baselines import (
    ConcatPca,
    FinalLayerHead,
    LayerMix,
    MeanOfLast,
    OneLayer,
    ResidualHead,
    ShuffledLayers,
    SingleProbe,
)
from miner_diag.fusion.errors import FusionError, LeakageError
from miner_diag.fusion.form import refuse_other_backbone
from miner_diag.fusion.miner import MinerFusion
from miner_diag.fusion.model import Fusion
from miner_diag.fusion.rows import Role
from miner_diag.fusion.system import System, encode
from miner_diag.fusion.tuning import TrainedSystem
from miner_diag.runs import read_run
from miner_diag.sealed import DamagedError, check_seal, sealed

__all__ = [
    "FittedTo",
    "SavedSystem",
    "encode",
    "fold_folders",
    "kind_of",
    "load_systems",
    "probes_folder",
    "read_backbone_key",
    "read_fitted_to",
    "read_head",
    "read_load_options",
    "restore_system",
    "save_systems",
    "tensors_of",
]

COMMAND = "miner_diag.fusion"
"""The command whose runs hold saved systems."""

FORMAT = 1
"""Raised when the layout of the files changes."""

SYSTEMS, FITTED_TO = "systems.json", "fitted_to.json"

KINDS: dict[str, type[System]] = {
    "fusion": Fusion,
    "final_layer_head": FinalLayerHead,
    "residual_head": ResidualHead,
    "layer_mix": LayerMix,
    "mean_of_last": MeanOfLast,
    "concat_pca": ConcatPca,
    "single_probe": SingleProbe,
    "shuffled_layers": ShuffledLayers,
    "miner": MinerFusion,
}
"""What a file of systems calls each class; a name, once used, keeps its meaning."""

SERVED: dict[str, type[System]] = {**KINDS, "one_layer": OneLayer}
"""What can be saved and read back: the systems of runs, and what is served but no row of an ablation."""


@dataclass(frozen=True, eq=False)
class SavedSystem:
    """A trained system, as it was saved."""

    name: str
    """The system's name: "backbone", "final_layer_head", "fusion"."""
    role: Role
    """What the system is in a comparison."""
    what: str
    """A description."""
    layers: tuple[int, ...]
    """The hidden states that it reads."""
    modules: tuple[System, ...]
    """[S] the fitted system of each seed, frozen, on the CPU; see `encode`."""
    seeds: tuple[int | None, ...]
    """[S] the seed of each training; None for what is not trained."""
    n_parameters: int
    """How many numbers are trained."""
    seconds: float
    """Mean time of one training."""
    best_epochs: tuple[int, ...]
    """[S] the epoch that was kept; 0 where training did not help."""
    validation_ndcg_at_5: tuple[float, ...]
    """[S] mean validation nDCG@5 of each training; epochs were chosen by it, so it is too good."""
    learning_rate: float | None
    """The learning rate of matrices that validation chose; None for what is not trained."""
    weight_learning_rate: float | None
    """The learning rate of the few other parameters; None for what is not trained."""


def save_systems(
    folder: Path | str, trained: Sequence[TrainedSystem], backbone_key: Mapping[str, str], head: str
) -> None:
    """Write ``systems/<name>-<seed>.safetensors`` (without a seed for what is not trained) and ``systems.json``.

    Parameters
    ----------
    folder : path
        The run's folder. Files of systems that an earlier run left there are deleted.
    trained : sequence of TrainedSystem
        What is saved.
    backbone_key : mapping
        Key of the backbone, as ``Backbone.key()`` gives it.
    head : str
        Name of the head that validation likes best.

    Raises
    ------
    FusionError
        If there is no such head among the systems.
    """
    folder = Path(folder)
    if head not in {system.name for system in trained if system.role == "head"}:
        raise FusionError(f"head must be the name of a head among the systems; got {head!r}")
    listed, written = [], set()
    for system in trained:
        files = []
        for seed, run in zip(system.seeds, system.runs, strict=True):
            tensors = tensors_of(run.system)
            content = save_safetensors(tensors)
            path = (
                folder
                / "systems"
                / (f"{system.name}.safetensors" if seed is None else f"{system.name}-{seed}.safetensors")
            )
            write_atomic(path, content)
            written.add(path)
            files.append(
                {
                    "seed": seed,
                    "file": path.relative_to(folder).as_posix(),
                    "sha256": sha256_bytes(content),
                    "kind": kind_of(run.system),
                    "facts": run.system.facts(),
                    "shapes": {name: list(array.shape) for name, array in tensors.items()},
                    "best_epoch": run.best_epoch,
                    "validation_ndcg_at_5": run.score,
                }
            )
        listed.append(
            {
                "name": system.name,
                "role": system.role,
                "what": system.what,
                "layers": list(system.runs[0].system.layers),
                "n_parameters": system.n_parameters,
                "seconds": system.seconds,
                "learning_rate": system.training.learning_rate if system.n_parameters else None,
                "weight_learning_rate": system.training.weight_learning_rate if system.n_parameters else None,
                "runs": files,
            }
        )
    facts: dict[str, Any] = {"format": FORMAT, "backbone": dict(backbone_key), "head": head, "systems": listed}
    write_atomic(folder / SYSTEMS, json.dumps(sealed(facts), indent=2) + "\n")
    for path in set((folder / "systems").glob("*.safetensors")) - written:
        path.unlink()


def load_systems(
    folder: Path | str, backbone_key: Mapping[str, str] | None = None, names: Iterable[str] | None = None
) -> list[SavedSystem]:
    """Read what :func:`save_systems` wrote; a system gives the same vectors as the one that was saved, bit for bit.

    Parameters
    ----------
    folder : path
        The run's folder.
    backbone_key : mapping, optional
        Key of the backbone that the systems are wanted for; it is not checked if it is not given.
    names : iterable of str, optional
        Which systems to read; all if it is not given.

    Raises
    ------
    FusionError
        If a file is missing, damaged or changed, a name is unknown, or the systems are of another backbone; the fields
        that differ are named.
    """
    folder = Path(folder)
    content = _read_listed(folder)
    refuse_other_backbone(f"{folder} holds systems", content["backbone"], backbone_key)
    known = [entry["name"] for entry in content["systems"]]
    wanted = known if names is None else list(names)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise FusionError(f"{folder} holds no system {', '.join(unknown)}; it holds {', '.join(known)}")
    return [_load(folder, entry) for entry in content["systems"] if entry["name"] in wanted]


def read_head(folder: Path | str) -> str:
    """Return the name of the head that validation likes best; errors as in `load_systems`."""
    return str(_read_listed(Path(folder))["head"])


def read_backbone_key(folder: Path | str) -> dict[str, str]:
    """Return the key of the backbone that the systems in `folder` were fitted to; errors as in `load_systems`."""
    return dict(_read_listed(Path(folder))["backbone"])


def read_load_options(folder: Path | str) -> LoadOptions:
    """Return how the backbone was loaded for the systems in `folder`.

    Raises
    ------
    ValueError
        If the folder holds no finished run of this stage, or one whose loading options this version does not know.
    """
    options = read_run(folder, COMMAND)["options"].get("load")
    known = {field.name for field in fields(LoadOptions)}
    if not isinstance(options, dict) or not set(options) <= known:
        raise FusionError(f"{Path(folder) / 'run.json'} does not say how the backbone was loaded; fit again")
    return LoadOptions(**options)


def fold_folders(folder: Path | str) -> dict[int, Path]:
    """Return the folder of each split by document that a run was fitted to: its own, and those below it.

    Raises
    ------
    ValueError
        If the folder holds no finished run of this stage.
    """
    folders = read_run(folder, COMMAND)["folds"]
    return {int(fold): Path(folder) / name for fold, name in folders.items()}


def probes_folder(folder: Path | str) -> Path:
    """Return the folder of the probes that the systems in `folder` were built from.

    Raises
    ------
    ValueError
        If the folder holds no finished run of this stage.
    """
    return Path(folder) / read_run(folder, COMMAND)["probes"]  # an absolute path stays as it is


@dataclass(frozen=True)
class FittedTo:
    """The documents and pages that systems were fitted to or chosen by: they must not be measured on them."""

    corpus: str
    """Name of the data set."""
    form: str
    """Form of the queries."""
    fold: int
    """Number of the split by document."""
    documents: dict[str, tuple[str, ...]]
    """"train" and "validation" -> ids of the documents."""
    page_hashes: dict[str, tuple[str, ...]]
    """"train" and "validation" -> hashes of the pages."""

    @classmethod
    def of(cls, train: Corpus, validation: Corpus) -> FittedTo:
        """Return what fitting to these two splits of a corpus means."""
        splits = {"train": train, "validation": validation}
        return cls(
            train.name,
            train.form,
            train.fold,
            {name: tuple(sorted({page.doc_id for page in part.pages})) for name, part in splits.items()},
            {name: tuple(sorted({page.page_hash for page in part.pages})) for name, part in splits.items()},
        )

    def check(self, corpus: Corpus) -> None:
        """Raise LeakageError if a page of `corpus` was fitted to.

        A page was fitted to if its hash is that of a training or validation page, or, within the same data set, if it
        belongs to one of their documents. In another data set the same id may name another document.

        Raises
        ------
        LeakageError
            With the number of such pages and the first of them.
        """
        for split in ("train", "validation"):
            hashes = set(self.page_hashes[split])
            documents = set(self.documents[split]) if corpus.name == self.corpus else set()
            seen = [page for page in corpus.pages if page.page_hash in hashes or page.doc_id in documents]
            if seen:
                raise LeakageError(
                    f"{len(seen)} of {len(corpus.pages)} pages of {corpus.name} ({corpus.part}, fold {corpus.fold}) "
                    f"stand in the {split} split that these systems were fitted to ({self.corpus}, fold {self.fold}), "
                    f"the first is {seen[0].page_id}; measure on --split test with --fold {self.fold}, or on other data"
                )

    def write(self, folder: Path | str) -> None:
        """Write ``fitted_to.json``."""
        content = {"format": FORMAT, **asdict(self)}
        write_atomic(Path(folder) / FITTED_TO, json.dumps(sealed(content), indent=2) + "\n")


def read_fitted_to(folder: Path | str) -> FittedTo:
    """Read ``fitted_to.json`` of a run's folder.

    Raises
    ------
    FusionError
        If it is missing, damaged or changed.
    """
    content = _read_facts(Path(folder) / FITTED_TO)
    try:
        by_split = {
            name: {split: tuple(content[name][split]) for split in ("train", "validation")}
            for name in ("documents", "page_hashes")
        }
        return FittedTo(content["corpus"], content["form"], int(content["fold"]), **by_split)
    except (KeyError, TypeError, ValueError) as error:
        raise FusionError(f"{Path(folder) / FITTED_TO} is damaged: {error}; fit again") from error


def _load(folder: Path, entry: Mapping[str, Any]) -> SavedSystem:
    try:
        runs = entry["runs"]
        modules = tuple(_load_module(folder, run) for run in runs)
        if entry["role"] not in get_args(Role):
            raise FusionError(f"{folder / SYSTEMS} gives {entry['name']} the unknown role {entry['role']!r}; fit again")
        return SavedSystem(
            name=entry["name"],
            role=entry["role"],
            what=entry["what"],
            layers=tuple(entry["layers"]),
            modules=modules,
            seeds=tuple(run["seed"] for run in runs),
            n_parameters=entry["n_parameters"],
            seconds=entry["seconds"],
            best_epochs=tuple(run["best_epoch"] for run in runs),
            validation_ndcg_at_5=tuple(run["validation_ndcg_at_5"] for run in runs),
            learning_rate=entry["learning_rate"],
            weight_learning_rate=entry["weight_learning_rate"],
        )
    except (KeyError, TypeError) as error:
        raise FusionError(f"{folder / SYSTEMS} is damaged: {error}; fit again") from error


def _load_module(folder: Path, run: Mapping[str, Any]) -> System:
    path = folder / "systems" / Path(run["file"]).name  # never outside the run's folder
    if not path.is_file():
        raise FusionError(f"{path} is not there, though {SYSTEMS} lists it; fit again")
    content = path.read_bytes()
    if sha256_bytes(content) != run["sha256"]:
        raise FusionError(f"{path} is not the file that {SYSTEMS} was written with; fit again")
    try:
        tensors = load_safetensors(content)
    except SafetensorError as error:
        raise FusionError(f"{path} holds no tensors: {error}; fit again") from error
    return restore_system(run, tensors, folder / SYSTEMS)


def restore_system(entry: Mapping[str, Any], tensors: Mapping[str, np.ndarray], where: Path) -> System:
    """Return the frozen system of an entry with "kind" and "facts" in the file `where`, and of its tensors.

    Raises
    ------
    FusionError
        If the kind is unknown.
    """
    if entry["kind"] not in SERVED:
        raise FusionError(f"{where} lists the unknown kind {entry['kind']!r}; it was written by a later version")
    return SERVED[entry["kind"]].restore(entry["facts"], tensors).requires_grad_(False)


def tensors_of(system: System) -> dict[str, np.ndarray]:
    """Return a system's tensors as arrays, by name: with kind and facts, all that :func:`restore_system` needs."""
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in system.state_dict().items()}


def kind_of(system: System) -> str:
    """Return what a file of systems calls a system's class.

    Raises
    ------
    FusionError
        If it cannot be saved.
    """
    for name, kind in SERVED.items():
        if type(system) is kind:
            return name
    raise FusionError(f"a {type(system).__name__} cannot be saved; what can is {', '.join(SERVED)}")


def _read_listed(folder: Path) -> dict[str, Any]:
    content = _read_facts(folder / SYSTEMS)
    missing = [name for name in ("backbone", "head", "systems") if name not in content]
    if missing:
        raise FusionError(f"{folder / SYSTEMS} is damaged: {', '.join(missing)} missing; fit again")
    return content


def _read_facts(path: Path) -> dict[str, Any]:
    """Return the content of a file of facts that holds its own hash."""
    if not path.is_file():
        raise FusionError(f"{path} is not there; fit and save systems with python -m {COMMAND} --out {path.parent}")
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FusionError(f"{path} is damaged: {error}; fit again") from error
    if not isinstance(content, dict) or "format" not in content:
        raise FusionError(f"{path} is damaged: it states no format; fit again")
    if content["format"] != FORMAT:
        raise FusionError(f"{path} has format {content['format']}, this version reads {FORMAT}; fit again")
    try:
        return check_seal(content)
    except DamagedError:
        raise FusionError(f"{path} was changed after it was written; fit again") from None
