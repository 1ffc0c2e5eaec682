"""Documents -> corpus: unique queries, hidden words, splits, and the pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from miner_diag.corpus.core import Corpus, CorpusError, Form, Page, Query, Skipped
from miner_diag.corpus.document import Document, together
from miner_diag.corpus.harvest import clean_text
from miner_diag.corpus.hiding import hidden_characters, located, longest_part, plain_letters, stands_in
from miner_diag.corpus.ink import holds_words
from miner_diag.corpus.limits import DEFAULT_LIMITS, PdfLimits
from miner_diag.corpus.pdf_reader import draw_page
from miner_diag.corpus.splits import crossing_pages, deal_splits
from miner_diag.corpus.summary import skipped_lines

NOT_LOCATED = (
    "its words are not in its page's text layer, but the page shows pictures or drawings that can hold them, so they "
    "cannot be hidden; --queries verbatim keeps the query"
)
"""Why a query is left out of the hidden form."""
ON_SEVERAL_PAGES = "it leads to more than one page of its document, so it has no page of its own"
"""Why a title or caption becomes no query."""
IN_SEVERAL_DOCUMENTS = (
    "it stands in more than one document, as in two editions of one manual, so it has no page of its own"
)
"""Why a title or caption becomes no query."""


def assemble(
    name: str,
    documents: Sequence[Document],
    *,
    form: Form,
    fold: int,
    skipped: Sequence[Skipped] = (),
    limits: PdfLimits = DEFAULT_LIMITS,
) -> Corpus:
    """Build a corpus out of documents that were read.

    A query's text that leads to two pages is dropped and named. A page whose pixels stand in two splits is left out of
    both. In the hidden form a query whose words are not in its page's text, though the page's pictures or drawings can
    show them, is left out by name; and a query's words are taken out of every page of its document, not only its own: a
    running header or a table of contents would otherwise show the words on the wrong pages alone.

    Raises
    ------
    CorpusError
        If no document gives a query.
    """
    left_out = list(skipped)
    usable = []
    for document in documents:
        left_out += document.left_out(limits.notes)
        if any(page.candidates for page in document.pages):
            usable.append(document)
        else:
            reason = "has neither outline titles nor figure or table captions, so it gives no query"
            left_out.append(Skipped(document.doc_id, reason))
    asked, _ = unique_queries(usable)
    splits = deal_splits([document.doc_id for document in usable], [[query.doc_id] for query in asked], fold)
    crossing = crossing_pages(((d.doc_id, page.page_hash) for d in usable for page in d.pages), splits)
    for document in usable:
        pages_out = [
            Skipped(_page_id(document.doc_id, page.number), "the same picture stands in a document of another split")
            for page in document.pages
            if page.page_hash in crossing
        ]
        left_out += together(document.doc_id, pages_out, limits.notes)

    queries, qrels = unique_queries(usable, crossing)
    left_out += shared_texts(usable)
    unlocated = _unlocated(usable, queries, qrels)
    hideable = [query for query in queries if query.query_id not in unlocated]
    if form == "hidden":
        left_out += [
            Skipped(f"query {query.text!r} of {query.doc_id}", NOT_LOCATED)
            for query in queries
            if query.query_id in unlocated
        ]
        queries, qrels = hideable, {query.query_id: qrels[query.query_id] for query in hideable}
    if not queries:
        raise CorpusError(_nothing_usable(name, left_out))
    hidden = _hidden_texts(usable, hideable, qrels)
    pages = []
    for document in usable:
        for page in document.pages:
            if page.page_hash in crossing:
                continue
            taken_out = hidden_characters(page.characters, hidden.get(document.doc_id, ()))
            text = _without(page.characters, taken_out) if form == "hidden" else clean_text(page.characters)
            page_id = _page_id(document.doc_id, page.number)
            pages.append(
                Page(page_id, document.doc_id, page.number, text, page.page_hash, words_hidden=bool(taken_out.any()))
            )
    renderer = PdfRenderer({d.doc_id: d.path for d in usable}, hidden if form == "hidden" else {}, limits)
    return Corpus(name, form, fold, tuple(pages), tuple(queries), qrels, splits, renderer, tuple(left_out))


class PdfRenderer:
    """Draws pages of PDFs, the hidden words as white boxes."""

    def __init__(
        self, paths: dict[str, Path], hidden: dict[str, tuple[str, ...]], limits: PdfLimits = DEFAULT_LIMITS
    ) -> None:
        self.paths = paths
        self.hidden = hidden
        self.limits = limits

    def __call__(self, page_id: str, longest_side: int) -> Image.Image:
        """Return page `page_id` in RGB, `longest_side` pixels on its longer side."""
        doc_id, _, number = page_id.rpartition("/")
        if doc_id not in self.paths or not number.isdecimal():
            raise CorpusError(f"there is no page {page_id!r}")
        return draw_page(self.paths[doc_id], int(number), longest_side, self.hidden.get(doc_id, ()), self.limits)


def _page_id(doc_id: str, number: int) -> str:
    return f"{doc_id}/{number}"


def unique_queries(
    documents: Sequence[Document], crossing: Collection[str] = ()
) -> tuple[list[Query], dict[str, dict[str, int]]]:
    """Return queries and qrels: the candidates whose text leads to one page only, but for those of pages left out.

    Parameters
    ----------
    documents : sequence of Document
        All of them: a text is unique among all.
    crossing : collection of str
        Hashes of the pages that are left out.
    """
    found = _pages_of_texts(documents)
    queries: list[Query] = []
    qrels: dict[str, dict[str, int]] = {}
    taken: set[str] = set()
    for document in documents:
        for page in document.pages:
            page_id, n_here = _page_id(document.doc_id, page.number), 0
            for kind, text in page.candidates:
                key = plain_letters(text)
                if page.page_hash in crossing or len(found[key]) > 1 or key in taken:
                    continue
                taken.add(key)
                n_here += 1
                query = Query(f"{page_id}/{kind}-{n_here}", text, kind, document.doc_id)
                queries.append(query)
                qrels[query.query_id] = {page_id: 1}
    return queries, qrels


def shared_texts(documents: Sequence[Document]) -> list[Skipped]:
    """Return the titles and captions that lead to more than one page, so that no page is their answer, by name."""
    found = _pages_of_texts(documents)
    first: dict[str, str] = {}
    for document in documents:
        for page in document.pages:
            for _, text in page.candidates:
                first.setdefault(plain_letters(text), text)
    left_out = []
    for key, page_ids in found.items():
        if len(page_ids) > 1:
            apart = len({page_id.rpartition("/")[0] for page_id in page_ids}) > 1
            left_out.append(Skipped(f"query {first[key]!r}", IN_SEVERAL_DOCUMENTS if apart else ON_SEVERAL_PAGES))
    return left_out


def _pages_of_texts(documents: Sequence[Document]) -> dict[str, set[str]]:
    """Plain letters of a title or caption -> ids of the pages that it leads to."""
    found: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        for page in document.pages:
            for _, text in page.candidates:
                found[plain_letters(text)].add(_page_id(document.doc_id, page.number))
    return found


def _unlocated(documents: Sequence[Document], queries: Sequence[Query], qrels: dict[str, dict[str, int]]) -> set[str]:
    """Ids of the queries that their page may show, but whose words are not among its characters."""
    pages = {_page_id(d.doc_id, page.number): page for d in documents for page in d.pages}
    found = set()
    for query in queries:
        for page in (pages[page_id] for page_id in qrels[query.query_id]):
            if holds_words(page.unread_ink, query.text) and not located(query.text, page.characters):
                found.add(query.query_id)
    return found


def _hidden_texts(
    documents: Sequence[Document], queries: Sequence[Query], qrels: dict[str, dict[str, int]]
) -> dict[str, tuple[str, ...]]:
    """doc_id -> what must not be left on its pages: each query, or the longest part of it that its page shows."""
    characters = {_page_id(d.doc_id, page.number): page.characters for d in documents for page in d.pages}
    hidden: dict[str, list[str]] = defaultdict(list)
    for query in queries:
        hidden[query.doc_id].append(query.text)
        for page_id in qrels[query.query_id]:
            if not stands_in(query.text, characters[page_id]):
                if (part := longest_part(characters[page_id], query.text)) is not None:
                    hidden[query.doc_id].append(part)
    return {doc_id: tuple(texts) for doc_id, texts in hidden.items()}


def _without(characters: str, taken_out: np.ndarray) -> str:
    return clean_text("".join(" " if gone else c for c, gone in zip(characters, taken_out, strict=True)))


def _nothing_usable(name: str, left_out: Sequence[Skipped]) -> str:
    lines = skipped_lines(left_out)
    more = f"; and {len(lines) - 10} reasons more" if len(lines) > 10 else ""
    return f"nothing in {name} gives a query: {'; '.join(lines[:10])}{more}. Use PDFs with bookmarks or captions"
