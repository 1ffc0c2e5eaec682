"""The folder that a command leaves: tables, figures, records and ``run.json``, and the lines that close a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from miner_diag.figures import save_figure
from miner_diag.files import write_atomic
from miner_diag.provenance import RunClock, write_run
from miner_diag.records import Record, write_records

RECORDS = "records.jsonl"
"""Every number of a run, and a row for every query."""


class RunFolder:
    """What a command writes into its ``--out``; every file is written whole or not at all.

    Parameters
    ----------
    folder : path
        The run's folder.
    command : str
        The module that runs, as "miner_diag.cka".
    options : dataclass
        What the command was asked; ``run.json`` holds it.
    """

    def __init__(self, folder: Path | str, command: str, options: Any) -> None:
        self.folder = Path(folder)
        self.command = command
        self.options = options
        self.clock = RunClock()

    def stage(self, name: str) -> None:
        """Book the time since the last call (or the start) under `name`."""
        self.clock.stage(name)

    def table(self, name: str, frame: pd.DataFrame, *, index: bool = False) -> None:
        """Write ``name.csv``; the index is a column of it only if asked."""
        write_atomic(self.folder / f"{name}.csv", frame.to_csv(index=index, lineterminator="\n"))

    def figure(self, name: str, figure: Figure) -> None:
        """Write ``name.png``."""
        save_figure(figure, self.folder / f"{name}.png")

    def json(self, name: str, content: Any) -> None:
        """Write ``name.json``, indented."""
        write_atomic(self.folder / f"{name}.json", json.dumps(content, indent=2, allow_nan=False) + "\n")

    def records(self, records: Iterable[Record]) -> None:
        """Write ``records.jsonl``."""
        write_records(self.folder / RECORDS, records)

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
        content = write_run(self.folder, self.command, self.options, self.clock, sentences=list(lines), **facts)
        for line in lines:
            print(line)
        print(f"{content['seconds']:.0f} s, {content['peak_memory_mb']:.0f} MB; written to {self.folder}")
        if next_command:
            print(f"next: {next_command}")


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
        If the folder is that of another command.
    """
    if (out / "run.json").exists():
        read_run(out, command)
        for name in ("run.json", *optional_files):
            (out / name).unlink(missing_ok=True)
    return RunFolder(out, command, options)


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
        If there is none, it is damaged, or another command wrote it.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        wanted = f"run python -m {command} --out {folder}" if command else "start its command again"
        raise ValueError(f"{folder} holds no finished run (run.json is missing); {wanted}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["command"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start its command again") from None
    if command is not None and found != command:
        raise ValueError(f"{folder} is a run of {found}; expected one of {command}")
    return content
