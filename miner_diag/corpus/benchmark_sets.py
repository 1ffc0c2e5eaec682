"""The data sets of a public benchmark by one name: all that are shipped, or a folder with a copy of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from miner_diag.corpus.benchmark_manifest import BenchmarkManifest, is_benchmark_manifest, read_benchmark_manifest
from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.manifest_file import manifest_folder, manifest_names


@dataclass(frozen=True)
class BenchmarkSet:
    """One data set of a benchmark."""

    manifest: BenchmarkManifest
    """What is known of it."""
    data: str
    """What ``--data`` takes for it alone: its name, or the folder of its copy."""


def benchmark_names() -> tuple[str, ...]:
    """Return the names that stand for all data sets of a benchmark, as "vidore-v2"."""
    return tuple(sorted({_name_of(manifest) for manifest in _manifests()}))


def benchmark_sets(data: str) -> tuple[BenchmarkSet, ...]:
    """Return the public data sets of a benchmark.

    Parameters
    ----------
    data : str
        What ``--data`` was given: the name of a benchmark, or a folder with that name that holds a copy of each of its
        data sets in a folder with the data set's name.

    Returns
    -------
    tuple of BenchmarkSet
        By name; empty where `data` is anything else.

    Raises
    ------
    CorpusError
        If such a folder lacks a data set, named in the message.
    """
    folder = Path(data)
    name = folder.name if folder.is_dir() else data
    manifests = [manifest for manifest in _manifests() if _name_of(manifest) == name]
    if not manifests:
        return ()
    if not folder.is_dir():
        return tuple(BenchmarkSet(manifest, manifest.name) for manifest in manifests)
    missing = [manifest.name for manifest in manifests if not (folder / manifest.name).is_dir()]
    if missing:
        raise CorpusError(
            f"folder {data} must hold a folder for each of the {len(manifests)} public data sets of {name}; it lacks "
            f"{', '.join(missing)}. To evaluate one alone, give its own folder"
        )
    return tuple(BenchmarkSet(manifest, str(folder / manifest.name)) for manifest in manifests)


def _manifests() -> list[BenchmarkManifest]:
    paths = [manifest_folder() / f"{name}.yaml" for name in manifest_names()]
    return [read_benchmark_manifest(path) for path in paths if is_benchmark_manifest(path)]


def _name_of(manifest: BenchmarkManifest) -> str:
    return manifest.benchmark.lower().replace(" ", "-")
