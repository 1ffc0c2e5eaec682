"""What a command does when it is stopped: one sentence that says how to go on, and the shell's exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""The signals that stop a command: Ctrl-C, and what kill, batch systems and containers send."""


class Stopped(KeyboardInterrupt):
    """A signal came; `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_status(number: int) -> int:
    """Return the status that a shell expects after a signal: 130 after SIGINT, 143 after SIGTERM."""
    return 128 + number


def how_to_go_on(number: int) -> str:
    """Return the sentence that a stopped command ends with."""
    return (
        f"stopped by {signal.Signals(number).name}; what was finished is kept, and the same command again takes up the "
        "run"
    )


@contextlib.contextmanager
def stopped_with_a_sentence() -> Iterator[None]:
    """Let both signals end the body in an orderly way, then say how to go on and exit with 130 or 143.

    A second signal ends the process at once.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, _stop) for number in STOPPING} if is_main else {}
    try:
        yield
    except KeyboardInterrupt as stopped:
        number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
        _say(how_to_go_on(number))
        sys.exit(exit_status(number))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_while_importing() -> None:
    """Let both signals end the process at once with the sentence, until `stopped_with_a_sentence` takes over.

    A command imports its libraries for some seconds, and nothing is written in that time.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            signal.signal(number, _exit_at_once)


def is_command_being_imported() -> bool:
    """Return whether this process was started as ``python -m miner_diag…``, and Python is still looking for it."""
    return sys.argv[:1] == ["-m"] and any(word.split(".")[0] == "miner_diag" for word in sys.orig_argv[1:])


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for stopping in STOPPING:
        signal.signal(stopping, signal.SIG_DFL)
    raise Stopped(number)


def _exit_at_once(number: int, frame: FrameType | None) -> NoReturn:
    _say(how_to_go_on(number))
    os._exit(exit_status(number))


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
