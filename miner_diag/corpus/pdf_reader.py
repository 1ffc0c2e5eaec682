"""Read and draw untrusted PDFs in a process of their own, started when it is first needed and closed at the end.

pdfium is fast C++ that a hostile file can drive out of memory or into hours of work, and such an end takes its whole
process with it. So the files are opened in one long-lived process with bounds (:class:`PdfLimits`); when it goes over
one, it ends, the page that did it is named, and the next request starts another.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.limits import DEFAULT_LIMITS, OUT_OF_MEMORY, PICTURE_BYTES, PdfLimits

logger = logging.getLogger(__name__)

WALL_FACTOR = 10
"""A request may take this many times its processor time on the clock, because other programs run too ..."""
WALL_SECONDS = 30
"""... and so many seconds more, in which the process starts."""
MAX_ANSWER = 1 << 28
"""Largest answer that is taken, in bytes."""

_PROGRAM = """
import json, sys, types
sys.path[:] = json.loads(sys.argv[1])
corpus = types.ModuleType("miner_diag.corpus")  # the package without its __init__: the process starts twice as fast
corpus.__path__ = [sys.argv[2]]
sys.modules["miner_diag.corpus"] = corpus
from miner_diag.corpus.pdf_worker import main
main(*map(int, sys.argv[3:]))
"""


class ReadError(CorpusError):
    """What was asked for can't be read; `seconds` of processor time were spent on it."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class OverLimitError(ReadError):
    """A document went over a bound, or ended the process that read it."""


class PdfReader:
    """One process that reads and draws, the pipe to it and the memory that it draws into; threads take turns.

    Parameters
    ----------
    memory_mb : int
        The memory that it may take, in MB.
    """

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self._answers: io.BufferedReader | None = None
        self._drawn: mmap.mmap | None = None

    def ask(self, what: str, seconds: float, **request: Any) -> dict[str, Any]:
        """Send a request and return its answer; what is drawn is its `picture`.

        Parameters
        ----------
        what : str
            What is read, as it stands in the error: "page 3".
        seconds : float
            The processor time that it may take.
        **request
            What :func:`miner_diag.corpus.pdf_worker.answer` takes.

        Raises
        ------
        ReadError
            If the document or page can't be used; an `OverLimitError` if it went over a bound.
        """
        line = json.dumps({**request, "seconds": seconds}).encode("ascii") + b"\n"
        with self.lock:
            try:
                found, status = self._exchange(line, seconds)
            except BaseException:  # an interrupted exchange leaves half an answer in the pipe
                self._end(patience=0.0)
                raise
            if status is not None:
                raise OverLimitError(f"{what} {self._why(status, seconds)}", seconds)
            if found["memory_mb"] > self.memory_mb / 2:  # what documents leave behind must not count against the next
                self._end()
        for message in found["said"]:
            logger.warning("%s: %s", what, message)
        if "error" in found:
            raise ReadError(found["error"], found["seconds"])
        return found

    def release(self) -> None:
        """Let the process, if there is one, close the document that it read last."""
        if self.process is not None:
            self.ask("closing a document", WALL_SECONDS, do="close")

    def close(self, *, now: bool = False) -> None:
        """End the process; the next request starts another.

        Parameters
        ----------
        now : bool
            Do not wait for another thread's request, which then fails.
        """
        if not self.lock.acquire(blocking=not now):
            if (process := self.process) is not None:
                process.kill()
            self.lock.acquire()
        try:
            self._end()
        finally:
            self.lock.release()

    def forget(self) -> None:
        """Let go of the process without ending it: after a fork it is the other process's."""
        if (process := self.process) is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()  # unbuffered, so that nothing is written
            self._drawn = None
            process.returncode = 0

    def _exchange(self, line: bytes, seconds: float) -> tuple[dict[str, Any], int | None]:
        """Return an answer; or nothing, and the status that the process ended with."""
        if self.process is None or self.process.poll() is not None:
            self._end()
            self._start()
        process, answers = self.process, self._answers
        assert process is not None and process.stdin is not None and answers is not None
        try:
            left = memoryview(line)
            while left:
                left = left[process.stdin.write(left) :]
            answered = select.poll()
            answered.register(answers, select.POLLIN)
            if not answered.poll(1_000 * (WALL_FACTOR * seconds + WALL_SECONDS)):
                process.kill()
            head = answers.readline(MAX_ANSWER)
            if head.endswith(b"\n"):
                found = json.loads(head)
                if "size" in found:  # the next request is drawn over it
                    found["picture"] = self._picture(*found["size"])
                return found, None
        except BrokenPipeError:
            pass  # it ended before it could take the request; why is told by its status
        self._end()
        return {}, process.returncode

    def _picture(self, width: int, height: int) -> Image.Image:
        assert self._drawn is not None
        with memoryview(self._drawn) as drawn, drawn[: 3 * width * height] as seen:
            return Image.frombytes("RGB", (width, height), seen, "raw", "BGR")

    def _start(self) -> None:
        package = Path(__file__).resolve().parent
        path = json.dumps([str(package.parents[1]), *sys.path])
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        try:
            with _nameless_file() as pictures:
                pictures.truncate(PICTURE_BYTES)
                self._drawn = mmap.mmap(pictures.fileno(), PICTURE_BYTES)
                numbers = os.getpid(), self.memory_mb, pictures.fileno()
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, path, str(package), *map(str, numbers)],
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **alone},
                    pass_fds=[pictures.fileno()],
                )
        except OSError as error:
            raise CorpusError(
                f"the process that reads PDFs can't be started with {sys.executable!r}: {error}"
            ) from None
        self._answers = io.BufferedReader(self.process.stdout, 1 << 16)  # type: ignore[arg-type]

    def _end(self, patience: float = 2.0) -> None:
        """Close the pipe and wait so many seconds for the process to end by itself: its own status tells why."""
        process, self.process, answers, self._answers = self.process, None, self._answers, None
        self._drawn = None
        if process is None or process.stdin is None or answers is None:
            return
        process.stdin.close()
        if process.poll() is None:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        answers.close()

    def _why(self, status: int, seconds: float) -> str:
        if status == -getattr(signal, "SIGPROF", 0):
            return f"takes more than the {seconds:.3g} seconds of processor time that it may take"
        if status == -getattr(signal, "SIGKILL", 9):
            return f"takes more than {WALL_FACTOR * seconds + WALL_SECONDS:.3g} seconds, or the system ended its reader"
        if status > 0 and status != OUT_OF_MEMORY:
            module = "miner_diag.corpus.pdf_worker"
            return f"has no reader: its process ended with {status}; python -c 'import {module}' may tell why"
        name = signal.Signals(-status).name if -status in signal.valid_signals() else "MemoryError"
        return f"is broken or needs more than the {self.memory_mb:,} MB of memory that it may take (its reader: {name})"


def _nameless_file() -> BinaryIO:
    """Return a file that is gone, whatever becomes of the processes, when none of them has it open; in memory on Linux.

    Memory shared by name (:mod:`multiprocessing.shared_memory`) would stay behind when both are killed.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("miner_diag pictures"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


_readers: dict[str, PdfReader] = {}
_others: list[PdfReader] = []
"""Readers of a process that this one was forked from: kept, because another thread may have been inside one."""
_starting = threading.Lock()


def reader(limits: PdfLimits) -> PdfReader:
    """Return this process's reader; other memory than before makes a new one."""
    with _starting:
        found = _readers.get("pdf")
        if found is None and not _others:
            atexit.register(close_reader)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_forget_reader)
        if found is None or found.memory_mb != limits.memory_mb:
            if found is not None:
                found.close()
            found = _readers["pdf"] = PdfReader(limits.memory_mb)
        return found


def close_reader() -> None:
    """End the reading process, if there is one, whatever it does; the next document starts another."""
    if (found := _readers.get("pdf")) is not None:
        found.close(now=True)


def _forget_reader() -> None:
    global _starting
    _starting = threading.Lock()
    if (found := _readers.pop("pdf", None)) is not None:
        found.forget()
        _others.append(found)


def draw_page(
    path: Path, number: int, longest_side: int, queries: tuple[str, ...] = (), limits: PdfLimits = DEFAULT_LIMITS
) -> Image.Image:
    """Draw page `number` (1 is the first) in RGB, the queries' words as white boxes.

    Raises
    ------
    CorpusError
        If the page can't be drawn, or not within the limits; names the document and the page.
    """
    return _ask_page(path, number, limits, do="draw", side=longest_side, queries=queries)["picture"]


def read_page(path: Path, number: int, limits: PdfLimits = DEFAULT_LIMITS) -> tuple[str, str]:
    """Return the characters of page `number` (1 is the first), as they are in the file, and the hash of its picture.

    Raises
    ------
    CorpusError
        If the page can't be read, or not within the limits; names the document and the page.
    """
    found = _ask_page(path, number, limits, do="read", characters=limits.query_characters)
    return found["characters"], found["page_hash"]


def read_sections(path: Path, limits: PdfLimits = DEFAULT_LIMITS) -> list[tuple[int, str]]:
    """Return (page number, title) of every bookmark that leads to a page, in the order of the outline.

    Titles are as they are in the file, also those that make no query.

    Raises
    ------
    CorpusError
        If the document can't be opened, or not within the limits.
    """
    given = {"path": str(path.absolute()), "bookmarks": limits.bookmarks}
    found = reader(limits).ask(path.name, limits.page_seconds, do="outline", **given)
    return [(number, title) for number, title in found["titles"]]


def _ask_page(path: Path, number: int, limits: PdfLimits, **request: Any) -> dict[str, Any]:
    what, file = f"{path.name}, page {number}", str(path.absolute())
    return reader(limits).ask(what, limits.page_seconds, path=file, number=number, **request)
