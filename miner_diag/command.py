"""What every command does with its command line."""

from __future__ import annotations

import inspect
import io
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import tyro

from miner_diag.locks import release_folders
from miner_diag.stopping import stopped_with_a_sentence
from miner_diag.texts import inert

TRACEBACK_VARIABLE = "MINER_DIAG_TRACEBACK"
"""Environment variable that, set to 1, shows where in the code an error arose."""


class InertFormatter(logging.Formatter):
    """Shows a message on one line, so that no name in it can forge another; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message, made inert."""
        return inert(super().formatMessage(record))


def run_command(options_type: Any, run: Callable[[Any], None], stage: str, args: Sequence[str] | None) -> None:
    """Parse `args` into the options' dataclass and run; a bad input ends with its sentence and exit status 1.

    SIGINT and SIGTERM end it with a sentence and exit status 130 or 143.

    Parameters
    ----------
    options_type : type or union
        A dataclass whose fields' docstrings are the help texts, or several that are commands of their own (a union of
        what tyro calls subcommands).
    run : callable
        Takes the options.
    stage : str
        The stage that is run, as "cka"; of a program outside the package its module, as "tools.probe_sweep".
    args : sequence of str, optional
        The command line; None takes the process's own.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(InertFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if isinstance(sys.stdout, io.TextIOWrapper):  # a title or a path that the terminal cannot show ends no run
        sys.stdout.reconfigure(errors="backslashreplace")
    module = stage if "." in stage else f"miner_diag.{stage}"
    with stopped_with_a_sentence():
        given = inspect.getdoc(options_type) if isinstance(options_type, type) else None
        options = tyro.cli(options_type, args=args, prog=f"python -m {module}", description=given)
        try:
            run(options)
        except (ValueError, OSError) as error:
            if os.environ.get(TRACEBACK_VARIABLE) == "1":
                raise
            sys.exit(f"error: {inert(error)}")
        finally:
            release_folders()


def command_line(stage: str, *parts: Any, **more: Any) -> str:
    """Return the command line of a stage with what differs from the defaults, as a user would type it.

    Parameters
    ----------
    stage : str
        Name of the stage: "probes".
    *parts : dataclass or mapping
        Options that the stage shares with the one that has run: ``LoadOptions``, ``DataOptions``, …; or flags that are
        shown even at their defaults, with their values.
    **more
        Further flags and their values.

    Examples
    --------
    >>> from miner_diag.corpus.options import DataOptions
    >>> command_line("probes", DataOptions("my pages", fold=1), probes="runs/probes")
    "python -m miner_diag.probes --data 'my pages' --fold 1 --probes runs/probes"
    """
    given: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, Mapping):
            given |= part
            continue
        values = {item.name: getattr(part, item.name) for item in fields(part)}
        given |= {item.name: values[item.name] for item in fields(part) if values[item.name] != item.default}
    words = ["python", "-m", f"miner_diag.{stage}"]
    for name, value in (given | more).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)
