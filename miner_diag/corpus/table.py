"""A table in BEIR form: ``queries.jsonl``, ``corpus.jsonl``, ``qrels.tsv``, and pages as images, PDFs or text."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from miner_diag.corpus.core import Corpus, CorpusError, Page, Query, Skipped
from miner_diag.corpus.harvest import clean_text
from miner_diag.corpus.pdf import MAX_IMAGE_PIXELS, open_page, open_pdf, read_characters, render_page
from miner_diag.corpus.splits import crossing_pages, split_of
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

TABLE_FILES = ("queries.jsonl", "corpus.jsonl", "qrels.tsv")
"""What makes a folder a table."""


def is_table(folder: Path | str) -> bool:
    """Return whether a folder holds at least one of the table's files."""
    return any((Path(folder) / name).is_file() for name in TABLE_FILES)


def load_table(folder: Path | str, *, fold: int = 0) -> Corpus:
    """Read a table.

    ``queries.jsonl`` has ``_id`` and ``text``; ``corpus.jsonl`` has ``_id`` and any of ``image`` (a path below the
    folder), ``pdf`` with ``page`` (1 is the first) and ``text``, and optionally ``doc``, the document it belongs to
    (by default the PDF, else the page itself); ``qrels.tsv`` has a header and the columns query-id, corpus-id, score.
    Queries given with the data were not taken from their pages, so nothing is hidden: the form is "verbatim".

    A page whose picture can't be used is left out by name; so are queries without a usable page and queries whose pages
    fall into two splits.

    Raises
    ------
    CorpusError
        If a file is missing, a line is broken, an id stands twice or is unknown, a path leaves the folder, or no query
        is left.
    """
    folder = Path(folder)
    if missing := [name for name in TABLE_FILES if not (folder / name).is_file()]:
        raise CorpusError(f"{folder} lacks {', '.join(missing)}; a table needs {', '.join(TABLE_FILES)}")
    skipped: list[Skipped] = []
    texts = {
        _text(row, "_id", where): _text(row, "text", where) for where, row in _rows(folder / "queries.jsonl", "query")
    }
    sources: dict[str, _Source] = {}
    pages: dict[str, Page] = {}
    for where, row in tqdm(list(_rows(folder / "corpus.jsonl", "page")), desc="pages", unit="page", delay=2.0):
        page_id = _text(row, "_id", where)
        source = _Source(folder, row, where)
        sources[page_id] = source
        try:
            pages[page_id] = source.read(page_id)
        except CorpusError as error:
            logger.warning("page %s is left out: %s", inert(page_id), inert(error))
            skipped.append(Skipped(page_id, str(error)))
    qrels = _read_qrels(folder / "qrels.tsv", texts, sources)

    splits = {page.doc_id: split_of(page.doc_id, fold) for page in pages.values()}
    crossing = crossing_pages(((p.doc_id, p.page_hash) for p in pages.values()), splits)
    for page in [page for page in pages.values() if page.page_hash in crossing]:
        skipped.append(Skipped(page.page_id, "the same page stands in a document of another split"))
        del pages[page.page_id]
    queries, kept = [], {}
    for query_id, text in texts.items():
        gold = {page_id: grade for page_id, grade in qrels.get(query_id, {}).items() if page_id in pages}
        parts = {splits[pages[page_id].doc_id] for page_id in gold}
        if len(parts) != 1:
            reason = "its pages fall into two splits" if parts else "no usable page answers it"
            skipped.append(Skipped(f"query {query_id}", reason))
            continue
        queries.append(Query(query_id, text, "given", pages[next(iter(gold))].doc_id))
        kept[query_id] = gold
    if not queries:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:10])
        raise CorpusError(f"{folder} has no query with a usable page ({reasons or 'queries.jsonl is empty'})")
    return Corpus(
        folder.resolve().name,
        "verbatim",
        fold,
        tuple(pages.values()),
        tuple(queries),
        kept,
        splits,
        lambda page_id, side: _render(sources, page_id, side),
        tuple(skipped),
    )


class _Source:
    """Where a page of a table comes from."""

    def __init__(self, folder: Path, row: dict[str, Any], where: str) -> None:
        self.image = _inside(folder, row.get("image"), where)
        self.pdf = _inside(folder, row.get("pdf"), where)
        self.number = row.get("page", 1)
        if not isinstance(self.number, int) or self.number < 1:
            raise CorpusError(f"{where}: page must be a whole number from 1; got {self.number!r}")
        self.given = row.get("text")
        if self.image is None and self.pdf is None and not isinstance(self.given, str):
            raise CorpusError(f"{where}: a page needs an image, a pdf or a text; got the fields {sorted(row)}")
        self.doc_id = str(row["doc"]) if "doc" in row else (str(row["pdf"]) if self.pdf else None)

    def read(self, page_id: str) -> Page:
        text = self.given if isinstance(self.given, str) else ""
        if self.image is not None:
            picture = open_image(self.image)
        elif self.pdf is not None:
            with open_pdf(self.pdf) as document:
                self._check_number(document)
                with open_page(document, self.number) as page:
                    picture = render_page(page, 512)
                    text = text or clean_text(read_characters(page))
        else:
            picture = None
        content = f"{picture.size}".encode() + picture.tobytes() if picture is not None else text.encode("utf-8")
        digest = hashlib.sha256(content).hexdigest()
        return Page(page_id, self.doc_id or page_id, self.number, text, digest)

    def render(self, longest_side: int) -> Image.Image:
        if self.image is not None:
            picture = open_image(self.image)
            picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
            return picture
        if self.pdf is not None:
            with open_pdf(self.pdf) as document:
                self._check_number(document)
                with open_page(document, self.number) as page:
                    return render_page(page, longest_side)
        raise CorpusError("this page has neither image nor PDF, only text")

    def _check_number(self, document: Any) -> None:
        if self.number > len(document):
            raise CorpusError(f"{self.pdf} has {len(document)} pages; page {self.number} was asked for")


def open_image(path: Path | str) -> Image.Image:
    """Open an untrusted picture in RGB.

    Raises
    ------
    CorpusError
        If it is missing, no picture, broken, or larger than `MAX_IMAGE_PIXELS`.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > MAX_IMAGE_PIXELS:
                    raise CorpusError(
                        f"{path.name} is {picture.width} x {picture.height} pixels; "
                        f"expected at most {MAX_IMAGE_PIXELS:,} in all"
                    )
                return picture.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise CorpusError(f"{path.name} has too many pixels: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(f"{path.name} is not a readable picture ({error})") from None


def _render(sources: dict[str, _Source], page_id: str, longest_side: int) -> Image.Image:
    if page_id not in sources:
        raise CorpusError(f"there is no page {page_id!r}")
    return sources[page_id].render(longest_side)


def _rows(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) of a JSON Lines file whose ``_id`` are unique strings."""
    seen: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{where} must hold an object; got {type(row).__name__}")
        name = _text(row, "_id", where)
        if name in seen:
            raise CorpusError(f"{where}: {what} id {name!r} stands twice; ids must be unique")
        seen.add(name)
        yield where, row


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 text ({error})") from None


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise CorpusError(f"{where}: {name} must be a text that is not empty; got {value!r}")
    return value


def _inside(folder: Path, name: Any, where: str) -> Path | None:
    if name is None:
        return None
    if not isinstance(name, str) or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise CorpusError(f"{where}: path {name!r} leaves the folder {folder}; paths must stay below it")
    return folder / name


def _read_qrels(path: Path, queries: dict[str, str], pages: dict[str, _Source]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_lines(path), start=1):
        where, columns = f"{path.name}, line {number}", line.split("\t")
        if not line.strip() or (number == 1 and columns[-1].strip() == "score"):
            continue
        if len(columns) != 3:
            raise CorpusError(f"{where} must have query-id, corpus-id and score between tabs; got {line!r}")
        query_id, page_id, score = (column.strip() for column in columns)
        if query_id not in queries:
            raise CorpusError(f"{where} names query {query_id!r}, which queries.jsonl does not have")
        if page_id not in pages:
            raise CorpusError(f"{where} names page {page_id!r}, which corpus.jsonl does not have")
        try:
            grade = int(score)
        except ValueError:
            raise CorpusError(f"{where}: score must be a whole number; got {score!r}") from None
        if page_id in qrels.get(query_id, {}):
            raise CorpusError(f"{where}: the pair {query_id!r}, {page_id!r} stands twice")
        if grade > 0:
            qrels.setdefault(query_id, {})[page_id] = grade
    return qrels
