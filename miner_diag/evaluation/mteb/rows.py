"""What mteb hands over, read into pages and queries of ours: a page is known by what it holds, not by its id."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from typing import Any, NamedTuple

from PIL import Image

from miner_diag.backbones.errors import BackboneError
from miner_diag.corpus.core import Page, Query
from miner_diag.corpus.images import read_image
from miner_diag.evaluation.compare import EvaluationError

PAGE_HASH = "page_hash"
"""The column in which :func:`~miner_diag.evaluation.mteb.task.retrieval_task` names a page by the hash that it has in
our corpora, so that a fusion notices pages that it was fitted to."""
DIGITS = 16
"""Hexadecimal digits of a page's content that stand behind its id."""


class GivenCorpus(NamedTuple):
    """A corpus of mteb."""

    ids: list[str]
    """[P] the pages' ids, as mteb knows them."""
    contents: list[str]
    """[P] the SHA-256 of what each page holds: equal for pages that a retriever cannot tell apart."""
    pages: dict[str, Page]
    """Content -> the page; of pages that hold the same, the first."""


class GivenPages:
    """Reads the corpora that mteb hands over, and draws the pages of the last one; one picture is decoded at a time."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Any, int]] = {}

    def take(self, corpus: Any, modalities: Collection[str], task: str) -> GivenCorpus:
        """Read a corpus; pictures are hashed as they lie there and not decoded.

        Parameters
        ----------
        corpus : datasets.Dataset
            Its columns are ``id``, and ``image``, ``text`` with or without ``title``, or both.
        modalities : collection of str
            What the task shows of a page, "image" or "text"; the other column is not read.
        task : str
            The task's name, for messages.

        Raises
        ------
        EvaluationError
            If the task shows neither pictures nor texts of its pages, or pictures lie in a column of another kind.
        """
        shown = [name for name in ("image", "text") if name in modalities and name in corpus.column_names]
        if not shown:
            raise EvaluationError(
                f"the corpus of {task} must have a column image or text that the task shows ({', '.join(modalities)}); "
                f"it has {', '.join(corpus.column_names)}"
            )
        beside = [name for name in (*["title"] * ("text" in shown), PAGE_HASH) if name in corpus.column_names]
        table = _undecoded(corpus.select_columns(["id", *shown, *beside]), task)
        given = GivenCorpus(list(table["id"]), [], {})
        self._rows = {}
        for number, row in enumerate(table):
            picture, text = _bytes_of(row, task), _text_of(row)
            digest = hashlib.sha256(text.encode() if picture is None else picture).hexdigest()
            content = hashlib.sha256(f"{digest} {text}".encode()).hexdigest()
            given.contents.append(content)
            if content in given.pages:
                continue
            page_id = f"{row['id']} #{content[:DIGITS]}"  # tasks use the same ids for other pages
            given.pages[content] = Page(page_id, page_id, 1, text, row.get(PAGE_HASH) or digest)
            if picture is not None:
                self._rows[page_id] = table, number
        return given

    def render(self, page_id: str, longest_side: int) -> Image.Image:
        """Draw a page of the corpus that was taken last, at most `longest_side` pixels on the longer side.

        Raises
        ------
        BackboneError
            If the task shows no picture of it.
        CorpusError
            If its picture cannot be read.
        """
        if page_id not in self._rows:
            raise BackboneError(
                f"page {page_id} comes without a picture, and the retriever wants to look at it; take a task that "
                "shows pictures, or a retriever that reads given texts alone (as page-text with reader text-layer)"
            )
        table, number = self._rows[page_id]
        picture = read_image(io.BytesIO(table[number]["image"]["bytes"]), page_id)
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        return picture


def read_queries(queries: Any, modalities: Collection[str], task: str) -> list[Query]:
    """Return queries as mteb has every model see them: the text, and behind it the query's instruction if it has one.

    Parameters
    ----------
    queries : datasets.Dataset
        Its columns are ``id``, ``text`` and perhaps ``instruction``.
    modalities : collection of str
        What the task asks with.
    task : str
        The task's name, for messages.

    Raises
    ------
    EvaluationError
        If the task asks with anything but a text.
    """
    kind = getattr(queries.features.get("text"), "dtype", "nothing")
    if set(modalities) != {"text"} or kind not in ("string", "large_string"):
        raise EvaluationError(
            f"{task} must ask with one text a query; it asks with {', '.join(modalities)}, and its column text holds "
            f"{kind}. Take another task"
        )
    instructions = queries["instruction"] if "instruction" in queries.column_names else [None] * len(queries)
    return [
        Query(str(query_id), text if instruction is None else f"{text} {instruction}", "given", "")
        for query_id, text, instruction in zip(queries["id"], queries["text"], instructions, strict=True)
    ]


def _undecoded(table: Any, task: str) -> Any:
    """Return a table whose pictures are handed out as bytes."""
    if "image" not in table.column_names:
        return table
    from datasets import Image as ImageColumn

    if not isinstance(table.features["image"], ImageColumn):
        raise EvaluationError(f"the column image of {task} must hold pictures; it holds {table.features['image']}")
    return table.cast_column("image", ImageColumn(decode=False))


def _bytes_of(row: dict[str, Any], task: str) -> bytes | None:
    """Return a page's picture as it lies in the table; None where there is none."""
    picture = row.get("image")
    if picture is None:
        return None
    if not picture["bytes"]:  # a path alone is not followed: it could name any file of this machine
        raise EvaluationError(
            f"page {row['id']} of {task} must hold its picture, and names the file {picture['path']!r} instead; make "
            "the column of pictures (datasets.Dataset.from_dict with PIL images), not of paths"
        )
    return bytes(picture["bytes"])


def _text_of(row: dict[str, Any]) -> str:
    """Return a page's text as mteb has every model see it: the title before it, no space around it."""
    title, text = row.get("title") or "", row.get("text") or ""
    return f"{title} {text}".strip() if title else text.strip()
