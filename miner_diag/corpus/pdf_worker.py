"""The process that opens untrusted PDFs: it answers requests on its standard input until that is closed.

A request is one line of JSON: what to do, the file, and the processor time it may take. An answer is one line of JSON;
a page is drawn into memory that both processes see, and the line states its size. The process bounds its own memory and
time, so that a document that goes over them ends this process and nothing else; :mod:`miner_diag.corpus.pdf_reader` is
the other side.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pypdfium2 as pdfium

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.harvest import outline_query, page_captions
from miner_diag.corpus.hiding import hidden_characters, located
from miner_diag.corpus.ink import unread_ink
from miner_diag.corpus.limits import OUT_OF_MEMORY, PICTURE_BYTES
from miner_diag.corpus.pdf import (
    character_boxes,
    line_places,
    open_page,
    open_pdf,
    outline,
    page_bitmap,
    read_characters,
    render_page,
)

HASH_SIDE = 512
"""Longest side, in pixels, of the rendering that a page hash is taken of."""
BOX_MARGIN = 0.001
"""White margin around a hidden character, as a share of the picture's longer side: ink can stand out of its box."""
LEAST_SECONDS = 0.001
"""A clock of less would round to none at all."""
MAX_SAID = 5
"""Warnings of the library that an answer passes on."""


class Documents:
    """Holds the document that was asked for last open: pages of one document are mostly asked for in a row."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._key: tuple | None = None
        self._document: pdfium.PdfDocument | None = None

    def get(self, path: str) -> pdfium.PdfDocument:
        """Return the open document; it is opened again if the file was changed."""
        key = None
        if os.path.isfile(path):
            status = os.stat(path)
            key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
        if key is None or key != self._key:
            self.close()
            self._document = self._open.enter_context(open_pdf(Path(path)))
            self._key = key
        return self._document

    def close(self) -> None:
        """Close it."""
        self._key = self._document = None
        self._open.close()


def read_outline(document: pdfium.PdfDocument, n_bookmarks: int, n_characters: int) -> dict[str, Any]:
    """Return the number of pages and the queries of an outline, of at most so many bookmarks and characters each."""
    bookmarks, cut = outline(document, n_bookmarks)
    titles, long = [], 0
    for number, title in bookmarks:
        if len(title) > n_characters:
            long += 1
        elif (query := outline_query(title)) is not None:
            titles.append((number, query))
    return {"pages": len(document), "titles": titles, "long": long, "cut": cut}


def read_page(
    document: pdfium.PdfDocument, number: int, n_characters: int, titles: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a page's text, the hash of its picture, its captions of at most so many characters, and its unread ink.

    The ink is measured only where one of the outline's titles that lead here is not among the page's characters.
    """
    with open_page(document, number) as page:
        characters = read_characters(page)
        with line_places(page) as place:
            captions = page_captions(characters, place)
        picture = render_page(page, HASH_SIDE)
        digest = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
        ink = 0 if all(located(title, characters) for title in titles) else unread_ink(page)
    kept = [[c.kind, c.label, c.text, c.marked] for c in captions if len(c.text) <= n_characters]
    return {
        "number": number,
        "characters": characters,
        "page_hash": digest,
        "unread_ink": ink,
        "captions": kept,
        "long": len(captions) - len(kept),
    }


def draw_page(
    document: pdfium.PdfDocument, number: int, longest_side: int, queries: Sequence[str], memory: mmap.mmap
) -> tuple[int, int]:
    """Draw a page into `memory`, the queries' words as white boxes; return width and height."""
    with open_page(document, number) as page, page_bitmap(page, longest_side, memory) as bitmap:
        size = bitmap.width, bitmap.height
        if queries:
            indices = np.flatnonzero(hidden_characters(read_characters(page), tuple(queries)))
            _paint(bitmap.to_numpy(), character_boxes(page, indices, *size))
    return size


def _paint(picture: np.ndarray, boxes: np.ndarray) -> None:
    """Paint boxes (left, top, right, bottom; all inside) of a picture [H, W, 3] white; what lies outside is cut off."""
    margin = max(1, round(BOX_MARGIN * max(picture.shape)))
    grown = boxes + np.array([-margin, -margin, margin + 1, margin + 1])
    for left, top, right, bottom in grown.clip(min=0):  # a slice would count from the end what is below 0
        picture[top:bottom, left:right] = 255


def answer(documents: Documents, request: dict[str, Any], memory: mmap.mmap) -> dict[str, Any]:
    """Do what a request asks for; a page is drawn into `memory`.

    Raises
    ------
    CorpusError
        If the document or the page can't be used.
    """
    if request["do"] == "close":
        documents.close()
        return {}
    try:
        document = documents.get(request["path"])
        if request["do"] == "outline":
            return {"titles": outline(document, request["bookmarks"])[0]}
        if request["do"] == "open":
            return read_outline(document, request["bookmarks"], request["characters"])
        number = request["number"]
        if not 1 <= number <= len(document):
            name = Path(request["path"]).name
            raise CorpusError(f"{name} has {len(document)} pages; page {number} was asked for")
        if request["do"] == "read":
            return read_page(document, number, request["characters"], request.get("titles", ()))
        return {"size": draw_page(document, number, request["side"], request["queries"], memory)}
    except pdfium.PdfiumError as error:
        what = f"page {request['number']}" if "number" in request else "it"
        raise CorpusError(f"{what} is not readable ({error})") from None


class Said(logging.Handler):
    """Keeps the warnings of the library, for the other side to log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: dict[str, None] = {}
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message once."""
        if len(self._messages) < MAX_SAID:
            self._messages[record.getMessage()[:2_000]] = None

    def take(self) -> list[str]:
        """Return the messages since the last call."""
        messages = list(self._messages)
        self._messages = {}
        return messages


@contextmanager
def time_bound(seconds: float) -> Iterator[None]:
    """End the process with SIGPROF when it has used so much processor time, wherever it is in the code."""
    signal.setitimer(signal.ITIMER_PROF, max(seconds, LEAST_SECONDS))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def serve(requests: BinaryIO, answers: BinaryIO, memory: mmap.mmap) -> None:
    """Answer until the requests end."""
    documents, said = Documents(), Said()
    for line in requests:
        request = json.loads(line)
        start = time.thread_time()  # while its bound is set, the clock of the process lags by a tick of the kernel's
        try:
            with time_bound(request["seconds"]):
                found = answer(documents, request, memory)
        except CorpusError as error:
            found = {"error": str(error)}
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # whatever a broken document does to the library: it is named, with what it was
            found = {"error": f"it can't be read ({type(error).__name__}: {error})"}
            logging.getLogger(__name__).warning(traceback.format_exc())
            documents.close()
        found |= {"seconds": time.thread_time() - start, "memory_mb": memory_mb(), "said": said.take()}
        answers.write(json.dumps(found).encode("ascii") + b"\n")
        answers.flush()


def memory_mb() -> float:
    """Return the memory of this process that its bound counts, in MB; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[5]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError, IndexError):
        return 0.0


def bound_process(mb: int) -> None:
    """Bound the memory of this process, where the system can, and leave no core file of a crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (mb << 20, mb << 20))


def end_with(parent: int, get_parent: Callable[[], int] = os.getppid) -> None:
    """End this process when its parent is gone; while a document is read, nobody looks at the closed pipe."""
    while get_parent() == parent:
        time.sleep(0.5)
    os._exit(0)


def main(parent: int, mb: int, pictures: int) -> None:
    """Serve the process that started this one; `pictures` is the file whose memory both see."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the pipe
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # what a library prints is no answer
    bound_process(mb)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    serve(sys.stdin.buffer, answers, mmap.mmap(pictures, PICTURE_BYTES))
    os._exit(0)  # nothing is left to write, and to take the libraries down takes a third of the time to load them
