"""A table in BEIR form: ``queries.jsonl``, ``corpus.jsonl``, qrels, and pages as images, PDFs or text."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from miner_diag.corpus.copies import A_COPY, check_own_pages, find_copies, merge_copies
from miner_diag.corpus.core import Corpus, CorpusError, Page, Query, Skipped
from miner_diag.corpus.harvest import clean_text
from miner_diag.corpus.images import open_image
from miner_diag.corpus.limits import DEFAULT_LIMITS, PdfLimits
from miner_diag.corpus.pdf_reader import draw_page, read_page
from miner_diag.corpus.splits import deal_splits
from miner_diag.corpus.table_qrels import QRELS_FILES, qrels_file, read_table_qrels, unread_qrels
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

TABLE_FILES = ("queries.jsonl", "corpus.jsonl")
"""What makes a folder a table, beside a file of qrels."""


def is_table(folder: Path | str) -> bool:
    """Return whether a folder holds at least one of the table's files."""
    return any((Path(folder) / name).is_file() for name in (*TABLE_FILES, *QRELS_FILES))


def load_table(
    folder: Path | str, *, fold: int = 0, ignore_self: bool = False, limits: PdfLimits = DEFAULT_LIMITS
) -> Corpus:
    """Read a table.

    ``queries.jsonl`` has ``_id`` and ``text``; ``corpus.jsonl`` has ``_id`` and any of ``image`` (a path below the
    folder), ``pdf`` with ``page`` (1 is the first) and ``text``, and optionally ``doc``, the document it belongs to
    (by default the PDF, else the page itself). Where a page has a ``title`` too, as in BEIR, its text is the title, a
    space and the text; a page that is a picture or of a PDF and has no ``text`` is left to its picture or PDF.

    Qrels (:func:`~miner_diag.qrels.read_qrels`) are in ``qrels.tsv``, else in ``qrels/test.tsv``, ``qrels/dev.tsv``,
    ``qrels/validation.tsv`` or ``qrels/train.tsv``: the first of these is read, the others are named as left out.
    Queries given with the data were not taken from their pages, so nothing is hidden: the form is "verbatim".

    A page whose picture can't be used is left out by name, and so is a query without a usable page. Of pages that are
    the same, the first stays (:func:`~miner_diag.corpus.copies.find_copies`). Documents that share a query go to one
    split together (:func:`~miner_diag.corpus.splits.deal_splits`), so that no query is lost between two.

    Parameters
    ----------
    folder : path
        The folder.
    fold : int
        Number of the split by document.
    ignore_self : bool
        Whether the page that has a query's own id is left out of that query's ranking.

    Raises
    ------
    CorpusError
        If a file is missing, a line is broken, an id stands twice or is unknown, a path leaves the folder, no query
        is left, or `ignore_self` has no effect or would take an answer away.
    """
    folder = Path(folder)
    judged = qrels_file(folder)
    missing = [name for name in TABLE_FILES if not (folder / name).is_file()]
    if missing or judged is None:
        missing += [] if judged else ["qrels.tsv"]
        raise CorpusError(
            f"{folder} lacks {', '.join(missing)}; a table needs {', '.join(TABLE_FILES)} and qrels.tsv (or one of "
            f"{', '.join(QRELS_FILES[1:])})"
        )
    skipped: list[Skipped] = unread_qrels(folder, judged)
    texts = {
        _text(row, "_id", where): _text(row, "text", where) for where, row in _rows(folder / "queries.jsonl", "query")
    }
    sources: dict[str, _Source] = {}
    pages: dict[str, Page] = {}
    for where, row in tqdm(list(_rows(folder / "corpus.jsonl", "page")), desc="pages", unit="page", delay=2.0):
        page_id = _text(row, "_id", where)
        source = _Source(folder, row, where, limits)
        sources[page_id] = source
        try:
            pages[page_id] = source.read(page_id)
        except CorpusError as error:
            logger.warning("page %s is left out: %s", inert(page_id), inert(error))
            skipped.append(Skipped(page_id, str(error)))
    qrels = read_table_qrels(judged, texts, sources)
    check_own_pages(texts, pages, qrels, ignore_self=ignore_self)
    copies = find_copies(pages)
    skipped += [Skipped(page_id, A_COPY) for page_id in copies]
    pages = {page_id: page for page_id, page in pages.items() if page_id not in copies}

    queries, kept = [], {}
    for query_id, text in texts.items():
        gold = merge_copies({page: grade for page, grade in qrels.get(query_id, {}).items() if grade > 0}, copies)
        gold = {page_id: grade for page_id, grade in gold.items() if page_id in pages}
        if not gold:
            name = judged.relative_to(folder).as_posix()
            reason = "no usable page answers it" if query_id in qrels else f"{name} does not judge it"
            skipped.append(Skipped(f"query {query_id}", reason))
            continue
        queries.append(Query(query_id, text, "given", pages[next(iter(gold))].doc_id))
        kept[query_id] = gold
    if not queries:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:10])
        raise CorpusError(f"{folder} has no query with a usable page ({reasons or 'queries.jsonl is empty'})")
    documents = list(dict.fromkeys(page.doc_id for page in pages.values()))
    together = [{pages[page_id].doc_id for page_id in gold} for gold in kept.values()]
    return Corpus(
        folder.resolve().name,
        "verbatim",
        fold,
        tuple(pages.values()),
        tuple(queries),
        kept,
        deal_splits(documents, together, fold),
        lambda page_id, side: _render(sources, page_id, side),
        tuple(skipped),
        ignore_self=ignore_self,
    )


class _Source:
    """Where a page of a table comes from."""

    def __init__(self, folder: Path, row: dict[str, Any], where: str, limits: PdfLimits) -> None:
        self.limits = limits
        self.image = _inside(folder, row.get("image"), where)
        self.pdf = _inside(folder, row.get("pdf"), where)
        self.number = row.get("page", 1)
        if isinstance(self.number, bool) or not isinstance(self.number, int) or self.number < 1:
            raise CorpusError(f"{where}: page must be a whole number from 1; got {self.number!r}")
        text, title = (_text_or_none(row, name, where) for name in ("text", "title"))
        title = (title or "").strip()
        if self.image is None and self.pdf is None and text is None and not title:
            raise CorpusError(f"{where}: a page needs an image, a pdf or a text; got the fields {sorted(row)}")
        if title and (text is not None or (self.image is None and self.pdf is None)):
            text = f"{title} {text or ''}".strip()
        self.given = text or ""
        doc = row.get("doc")
        if isinstance(doc, bool) or not isinstance(doc, str | int | None):
            raise CorpusError(f"{where}: doc must be the name of a document; got {doc!r}")
        self.doc_id = str(doc) if doc is not None else (str(row["pdf"]) if self.pdf else None)

    def read(self, page_id: str) -> Page:
        text = self.given
        if self.image is not None:
            picture = open_image(self.image)
            digest = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
        elif self.pdf is not None:
            characters, digest = read_page(self.pdf, self.number, self.limits)
            text = text or clean_text(characters)
        else:
            digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
        return Page(page_id, self.doc_id or page_id, self.number, text, digest)

    def render(self, longest_side: int) -> Image.Image:
        if self.image is not None:
            picture = open_image(self.image)
            picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
            return picture
        if self.pdf is not None:
            return draw_page(self.pdf, self.number, longest_side, limits=self.limits)
        raise CorpusError("this page has neither image nor PDF, only text")


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
        except RecursionError:
            raise CorpusError(f"{where} is JSON nested too deeply; expected an object of texts") from None
        except ValueError as error:  # no JSON, or a number of thousands of digits
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
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 text ({error})") from None


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise CorpusError(f"{where}: {name} must be a text that is not empty; got {value!r}")
    return _sound(value, name, where)


def _text_or_none(row: dict[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise CorpusError(f"{where}: {name} must be a text; got {value!r}")
    return _sound(value, name, where)


def _sound(text: str, name: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(f"{where}: {name} holds half a character ({error}), which can't be written") from None
    return text


def _inside(folder: Path, name: Any, where: str) -> Path | None:
    if name is None:
        return None
    try:
        inside = isinstance(name, str) and (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a NUL in it
        raise CorpusError(f"{where}: path {name!r} leads nowhere ({error})") from None
    if not inside:
        raise CorpusError(f"{where}: path {name!r} leaves the folder {folder}; paths must stay below it")
    return folder / name
