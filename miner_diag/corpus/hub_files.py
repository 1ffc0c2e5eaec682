"""The tables of a data set on a hub, or in a folder laid out like one: parquet files, and a card that says which.

Files of a hub are fetched by huggingface_hub, those that are asked for and no others, at one commit, and each is
checked against the SHA-256 that the hub keeps of it. From there on they are a folder like any other. The library
``datasets`` copies a table once into files that are mapped into memory; no code of a data set is run, and whatever is
not parquet is refused.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.fields_file import read_card, shown
from miner_diag.file_hashes import remembered_sha256
from miner_diag.files import cache_folder
from miner_diag.hub import COMMIT, why_not_fetched

CARD = "README.md"
"""The file that says which files hold which configuration."""
ALL_FILES = "*.parquet"
"""What is fetched where the card does not say it."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

Splits = Mapping[str, tuple[str, ...]]
"""Split -> patterns of files, relative to the data set."""


class HubFiles:
    """A data set's tables, each a configuration and a split of it.

    Parameters
    ----------
    name : str
        What messages call it.
    hub_id : str
        owner/name; "" for a folder.
    revision : str
        The commit; "" for a folder.
    folder : path, optional
        The folder, where it is one.

    Raises
    ------
    CorpusError
        If a hub's commit is none.
    """

    def __init__(self, name: str, hub_id: str = "", revision: str = "", folder: Path | None = None) -> None:
        if hub_id and not COMMIT.fullmatch(revision):
            raise CorpusError(f"data_revision must be a full commit hash, 40 hexadecimal digits; got {revision!r}")
        self.name, self.hub_id, self.revision = name, hub_id, revision
        self._folder = None if folder is None else folder.resolve()

    @cached_property
    def configs(self) -> Mapping[str, Any]:
        """Configuration -> what the card says of its files; empty where it names no configurations.

        Raises
        ------
        CorpusError
            If the data set cannot be fetched, or its card cannot be read.
        """
        card = self._fetch([CARD]) / CARD
        if not card.is_file():
            return {}
        try:
            listed = read_card(card).get("configs") or []
        except ValueError as error:
            raise CorpusError(f"{self.name} cannot be read: {error}") from None
        if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
            raise CorpusError(f"{self.name}: configs in {CARD} must be a list of fields; got {shown(listed)}")
        return {str(row.get("config_name", "default")): row.get("data_files") for row in listed}

    def table(self, config: str, split: str) -> Any:
        """Return the rows of a configuration, mapped into memory, its pictures as bytes.

        Parameters
        ----------
        config : str
            One of `configs`; "default" where there are none.
        split : str
            The split that is read; where the configuration has one alone, it is read whatever its name.

        Raises
        ------
        CorpusError
            If files cannot be fetched or read, are others than the hub's hashes say, or are no parquet; if there is no
            such configuration or split.
        """
        import datasets

        files = self._files(config, split)
        try:
            builder = datasets.load_dataset_builder(
                "parquet",
                data_files={"rows": [glob.escape(str(file)) for file in files]},
                cache_dir=str(cache_folder() / "datasets"),
            )
            builder.download_and_prepare()
            table = builder.as_dataset(split="rows")
            if "image" in table.features:
                table = table.cast_column("image", datasets.Image(decode=False))
            return table
        except Exception as error:  # the library raises what it likes: of files, of what is in them
            raise self._unreadable(error) from error

    def column(self, config: str, split: str, names: Sequence[str]) -> list[str]:
        """Return one column of a configuration as texts, and read nothing else of it: of a hub's file, that part alone.

        Parameters
        ----------
        config, split : str
            As for `table`.
        names : sequence of str
            What the column may be called; the first that is there is read.

        Raises
        ------
        CorpusError
            As for `table`, or if there is no such column.
        """
        import pyarrow.parquet as pq

        values: list[str] = []
        for open_file in self._openers(config, split):
            try:
                with open_file() as file:
                    parquet = pq.ParquetFile(file, pre_buffer=False)
                    name = found_column(parquet.schema_arrow.names, names, f"{self.name} ({config})")
                    values += map(str, parquet.read(columns=[name]).column(name).to_pylist())
            except CorpusError:
                raise
            except Exception as error:
                raise (self._not_fetched if self.hub_id else self._unreadable)(error) from error
        return values

    def _openers(self, config: str, split: str) -> list[Callable[[], Any]]:
        """Return what opens each file of a configuration's split; of a hub's files nothing is fetched yet."""
        if not self.hub_id:
            return [partial(file.open, "rb") for file in self._files(config, split)]
        from huggingface_hub import HfFileSystem

        patterns = self._patterns(config, split)
        where = f"datasets/{self.hub_id}@{self.revision}"
        try:
            files = [name for name in self._remote if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
            return [partial(HfFileSystem().open, f"{where}/{name}", "rb", cache_type="none") for name in files]
        except Exception as error:
            raise self._not_fetched(error) from error

    @cached_property
    def _remote(self) -> list[str]:
        """The names of the hub's files."""
        from huggingface_hub import list_repo_files

        return sorted(list_repo_files(self.hub_id, repo_type="dataset", revision=self.revision))

    def _files(self, config: str, split: str) -> list[Path]:
        """Return the files of a configuration's split; those of a hub are fetched and checked."""
        if not self.configs and config == "default":
            folder = self._fetch([ALL_FILES])
            files = self._found_by_name(folder, split)
        else:
            patterns = self._patterns(config, split)
            folder = self._fetch(patterns)
            names = sorted(
                {name for pattern in patterns for name in glob.glob(pattern, root_dir=folder, recursive=True)}
            )
            files = [folder / name for name in names if (folder / name).is_file()]
            if not files:
                raise CorpusError(f"{self.name} ({config}) has no files {', '.join(patterns)}")
        for file in files:
            if not os.path.abspath(file).startswith(f"{folder}{os.sep}"):
                raise CorpusError(
                    f"{self.name} names the file {file}, which is not its own; expected files that begin {folder}"
                )
            if file.suffix != ".parquet":
                raise CorpusError(
                    f"{self.name} is no data set of parquet files but of {file.suffix[1:] or file.name}, which is not "
                    "read"
                )
        if self.hub_id:
            self._check(folder, files)
        return files

    def _patterns(self, config: str, split: str) -> tuple[str, ...]:
        if config not in self.configs:
            raise CorpusError(f"{self.name} has no configuration {config}; it has {', '.join(self.configs)}")
        splits = _splits(self.configs[config], f"{self.name}: {config} in {CARD}")
        return splits[self._split(config, splits, split)]

    def _split(self, config: str, splits: Iterable[str], wanted: str) -> str:
        names = list(splits)
        if wanted in names:
            return wanted
        if len(names) != 1:
            raise CorpusError(f"{self.name} ({config}) has no split {wanted}; it has {', '.join(names)}")
        return names[0]

    def _found_by_name(self, folder: Path, split: str) -> list[Path]:
        """Return the files of a folder whose card names none: the library tells splits by the files' names."""
        import datasets

        try:
            builder = datasets.load_dataset_builder(str(folder), cache_dir=str(cache_folder() / "datasets"))
            if builder.name != "parquet":
                raise CorpusError(
                    f"{self.name} is no data set of parquet files but of {builder.name}, which is not read"
                )
            found = {str(name): files for name, files in builder.config.data_files.items()}
        except CorpusError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error
        return [Path(file) for file in found[self._split("default", found, split)]]

    def _fetch(self, patterns: Sequence[str]) -> Path:
        """Return the folder that holds the files; what is not here yet is fetched from the hub."""
        if self._folder is not None:
            return self._folder
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(
                self.hub_id,
                repo_type="dataset",
                revision=self.revision,
                allow_patterns=list(patterns),
                tqdm_class=_late_bar(),
            )
        except Exception as error:  # of the network, of the disk, of what the hub says
            raise self._not_fetched(error) from error
        return Path(folder).resolve()

    def _check(self, folder: Path, files: Sequence[Path]) -> None:
        """Check that files are what the hub says; one that is not is fetched again, since a cache may be damaged."""
        from huggingface_hub import hf_hub_download

        wrong = _altered(folder, files)
        for file in wrong:
            name = file.relative_to(folder).as_posix()
            try:
                hf_hub_download(self.hub_id, name, repo_type="dataset", revision=self.revision, force_download=True)
            except Exception as error:
                raise self._not_fetched(error) from error
        for file, (found, stated) in _altered(folder, wrong).items():
            raise CorpusError(
                f"{self.name}: {file.relative_to(folder).as_posix()} has the SHA-256 {found}, the hub says {stated}, "
                "and so it was when it was fetched again: something changes files on their way here. Try another "
                "network, or later"
            )

    def _not_fetched(self, error: Exception) -> CorpusError:
        return CorpusError(
            f"{self.name} ({self.hub_id}, commit {self.revision[:12]}) cannot be fetched: {why_not_fetched(error)}. "
            f"Where no hub answers, fetch it where one does (hf download {self.hub_id} --repo-type dataset --revision "
            f"{self.revision} --local-dir {self.name}), bring that folder here, and give its path with --data"
        )

    def _unreadable(self, error: Exception) -> CorpusError:
        said = " ".join(str(error).split())[:400]
        return CorpusError(f"{self.name} cannot be read: {type(error).__name__}: {said}")


def _late_bar() -> type:
    """Return the hub's progress bar, shown after two seconds."""
    from huggingface_hub.utils import tqdm

    class LateBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{"delay": 2.0, **kwargs})

    return LateBar


def _altered(folder: Path, files: Iterable[Path]) -> dict[Path, tuple[str, str]]:
    """Return file -> (its SHA-256, the hub's) where they differ.

    The hub's cache calls a large file by the SHA-256 that the hub keeps of it. Small ones, and those of a system
    without links, have another name there and are not checked.
    """
    stated = {file: file.resolve().name for file in files if _SHA256.fullmatch(file.resolve().name)}
    found = remembered_sha256(folder, stated)
    pairs = {file: (found[file.relative_to(folder).as_posix()], name) for file, name in stated.items()}
    return {file: pair for file, pair in pairs.items() if pair[0] != pair[1]}


def found_column(there: Iterable[str], names: Sequence[str], where: str) -> str:
    """Return the first of some names that a table's columns have; raises CorpusError."""
    present = list(there)
    for name in names:
        if name in present:
            return name
    raise CorpusError(f"{where} has no column {' or '.join(names)}; it has {', '.join(present)}")


def _splits(data_files: Any, where: str) -> Splits:
    """Return split -> patterns of what a card says of a configuration's files, in any of the forms that it may have."""
    if isinstance(data_files, str | list) and not _are_fields(data_files):
        data_files = {"train": data_files}
    elif isinstance(data_files, list):
        data_files = {str(row.get("split", "train")): row.get("path") for row in data_files}
    if not isinstance(data_files, dict) or not data_files:
        raise CorpusError(f"{where}: data_files of a configuration must name files; got {shown(data_files)}")
    splits = {}
    for split, patterns in data_files.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, list) or not patterns or not all(isinstance(one, str) for one in patterns):
            raise CorpusError(f"{where}: files of split {shown(split)} must be texts; got {shown(patterns)}")
        splits[str(split)] = tuple(patterns)
    return splits


def _are_fields(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) for row in rows)
