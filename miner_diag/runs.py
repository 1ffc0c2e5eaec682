"""The folder that a command leaves: tables, figures, records and ``run.json``, and the lines that close a run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.figures import save_figure
from miner_diag.files import PlaceError, remove_leftovers, sha256_file, write_atomic
from miner_diag.locks import FolderLock, lock_folder
from miner_diag.provenance import RUN_FORMAT, RunClock, write_run
from miner_diag.records import Record, read_records, write_records
from miner_diag.sealed import SEAL, DamagedError, check_seal, sealed
from miner_diag.tables import write_csv
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

RECORDS = "records.jsonl"
"""Every number of a run, and a row for every query."""


class RunFolder:
    """What a command writes into its ``--out``; every file is written whole or not at all.

    While it is in use, no other process gets a run folder there. What killed runs have left half-written is removed.

    Parameters
    ----------
    folder : path
        The run's folder.
    command : str
        The module that runs, as "miner_diag.cka".
    options : dataclass
        What the command was asked; ``run.json`` holds it.

    Raises
    ------
    FolderInUseError
        If another process has a run folder there. It is a ValueError.
    PlaceError
        If the folder cannot be made or written to. It is an OSError.
    """

    def __init__(self, folder: Path | str, command: str, options: Any) -> None:
        self.folder = Path(folder)
        self._lock: FolderLock | None = None
        if int(os.environ.get("RANK") or 0) == 0:  # of the processes of a launcher, the first one writes
            try:
                self._lock = lock_folder(self.folder, f"python -m {command}")
            except OSError as error:
                raise PlaceError(self.folder, error) from error
            remove_leftovers(self.folder)
        self.command = command
        self.options = options
        self.clock = RunClock()
        self.records_sha256: str | None = None

    def release(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            self._lock.release()

    def stage(self, name: str) -> None:
        """Book the time since the last call (or the start) under `name`."""
        self.clock.stage(name)

    def table(self, name: str, frame: pd.DataFrame, *, index: bool = False) -> None:
        """Write ``name.csv``, which `tables.read_csv` reads; the index is a column of it only if asked."""
        write_csv(self.folder / f"{name}.csv", frame, index=index)

    def figure(self, name: str, figure: Figure) -> None:
        """Write ``name.png`` and ``name.svg``."""
        save_figure(figure, self.folder / f"{name}.png")

    def page(self, name: str, content: str) -> None:
        """Write ``name.html``."""
        write_atomic(self.folder / f"{name}.html", content)

    def json(self, name: str, content: Any) -> None:
        """Write an object as ``name.json``, indented, with the hash of its fields; `sealed.read_sealed` reads it."""
        write_atomic(self.folder / f"{name}.json", json.dumps(sealed(content), indent=2) + "\n")

    def records(self, records: Iterable[Record]) -> None:
        """Write ``records.jsonl``; ``run.json`` will hold its hash."""
        write_records(self.folder / RECORDS, records)
        self.records_sha256 = sha256_file(self.folder / RECORDS)

    def finish(self, *, facts: dict[str, Any], lines: Sequence[str] = (), next_command: str = "") -> None:
        """Write ``run.json``, which makes the run whole, and print the closing lines.

        Parameters
        ----------
        facts : dict
            What ``run.json`` holds beside options, versions, times and memory.
        lines : sequence of str
            What a person takes away; printed one below the other and kept in ``run.json`` as "sentences".
        next_command : str
            What the user would type next; printed last.
        """
        if self.records_sha256 is not None:
            facts = {"records_sha256": self.records_sha256, **facts}
        content = write_run(self.folder, self.command, self.options, self.clock, sentences=list(lines), **facts)
        self.release()
        for line in lines:
            print(inert(line))
        print(f"{content['seconds']:.0f} s, {content['peak_memory_mb']:.0f} MB; written to {inert(self.folder)}")
        if next_command:
            print(f"next: {inert(next_command)}")


def begin_run(out: Path, command: str, options: Any, optional_files: Sequence[str] = ()) -> RunFolder:
    """Return a run's folder without what an earlier run left there; it holds no finished run until this one is.

    Parameters
    ----------
    out : path
        The folder.
    command : str
        The command that runs, as "miner_diag.evaluation".
    options : dataclass
        What the command was asked.
    optional_files : sequence of str
        Files that only some runs of the command write.

    Raises
    ------
    ValueError
        If the folder is that of another command, or its ``run.json`` does not say whose it is.
    """
    run = RunFolder(out, command, options)
    if (out / "run.json").exists():
        try:
            _refuse_other_command(out, command)
        except ValueError:
            run.release()
            raise
        for name in ("run.json", *optional_files):
            (out / name).unlink(missing_ok=True)
    return run


def _refuse_other_command(out: Path, command: str) -> None:
    """Raise ValueError unless `command` wrote ``run.json``; it is about to be replaced, so its hash does not matter."""
    path = out / "run.json"
    try:
        found = _read_content(path)["command"]
    except ValueError:
        raise ValueError(
            f"{path} is damaged, so it does not say which command's run {out} holds; delete that file, or choose "
            "another --out"
        ) from None
    if found != command:
        raise ValueError(f"{out} is a run of {found}; expected one of {command}")


def read_run(folder: Path | str, command: str | None = None) -> dict[str, Any]:
    """Read the ``run.json`` of a finished run.

    Parameters
    ----------
    folder : path
        The run's folder.
    command : str, optional
        Which command must have written it, as "miner_diag.fusion".

    Raises
    ------
    ValueError
        If there is none, it is damaged or was changed, or another command wrote it.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        wanted = f"run python -m {command} --out {folder}" if command else "start its command again"
        raise ValueError(f"{folder} holds no finished run (run.json is missing); {wanted}")
    content = _read_content(path)
    found = content["command"]
    if command is not None and found != command:
        raise ValueError(f"{folder} is a run of {found}; expected one of {command}")
    if not {"format", SEAL} & set(content):
        logger.warning(
            "%s was written by an earlier version, without a hash, so a change in it would not be noticed; "
            "start its command again to be sure",
            path,
        )
        return content
    if content.get("format") != RUN_FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')}, this version reads {RUN_FORMAT}; start its command again"
        )
    try:
        return check_seal(content)
    except DamagedError as error:
        raise ValueError(f"{path} is damaged ({error}); start its command again") from None


def read_run_records(folder: Path | str, run: Mapping[str, Any]) -> list[Record]:
    """Read the ``records.jsonl`` of a finished run.

    Parameters
    ----------
    folder : path
        The run's folder.
    run : mapping
        What `read_run` returned.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or not the one that the run wrote.
    """
    path = Path(folder) / RECORDS
    if SEAL in run and path.is_file() and run.get("records_sha256") != sha256_file(path):
        raise ValueError(f"{path} is damaged (it was changed after it was written); start its command again")
    return read_records(path)


def _read_content(path: Path) -> dict[str, Any]:
    """Return what ``run.json`` holds, whatever its hash."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["command"]
        return dict(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start its command again") from None
