"""What every command does with its command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

Options = TypeVar("Options")

TRACEBACK_VARIABLE = "MINER_DIAG_TRACEBACK"
"""Environment variable that, set to 1, shows where in the code an error arose."""


def run_command(
    options_type: type[Options], run: Callable[[Options], None], stage: str, args: Sequence[str] | None
) -> None:
    """Parse `args` into the options' dataclass and run; a bad input ends with its sentence and exit status 1.

    Parameters
    ----------
    options_type : type
        A dataclass whose fields' docstrings are the help texts.
    run : callable
        Takes the options.
    stage : str
        The stage that is run, as "cka"; of a program outside the package its module, as "tools.probe_sweep".
    args : sequence of str, optional
        The command line; None takes the process's own.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    module = stage if "." in stage else f"miner_diag.{stage}"
    options = tyro.cli(options_type, args=args, prog=f"python -m {module}", description=options_type.__doc__)
    try:
        run(options)
    except (ValueError, OSError) as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        sys.exit(f"error: {error}")
