"""Pages of a table that are the same as an earlier one, and queries that are pages themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from miner_diag.corpus.core import CorpusError, Page

logger = logging.getLogger(__name__)

A_COPY = "a copy of a page that stands earlier in corpus.jsonl; that one stays and takes its judgements"
"""Why a page is left out."""


def find_copies(pages: Mapping[str, Page]) -> dict[str, str]:
    """Return page id -> id of the page that stays in its place, for every page that an earlier document holds too.

    Of pages with the same content (picture, or text where there is none) those of the first document stay, so that no
    content stands in two splits and no page is lost from all. Pages that stand twice inside one document stay.

    Examples
    --------
    >>> pages = {name: Page(name, name, 1, "", content) for name, content in zip("abc", "xyx", strict=True)}
    >>> find_copies(pages)
    {'c': 'a'}
    """
    first: dict[str, Page] = {}
    copies: dict[str, str] = {}
    for page in pages.values():
        kept = first.setdefault(page.page_hash, page)
        if kept.doc_id != page.doc_id:
            copies[page.page_id] = kept.page_id
    return copies


def merge_copies(gold: Mapping[str, int], copies: Mapping[str, str]) -> dict[str, int]:
    """Return page id -> grade with the judgements of copies given to the pages that stay; the higher grade counts."""
    merged: dict[str, int] = {}
    for page_id, grade in gold.items():
        kept = copies.get(page_id, page_id)
        merged[kept] = max(grade, merged.get(kept, 0))
    return merged


def check_own_pages(
    texts: Mapping[str, str],
    pages: Mapping[str, Page],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    ignore_self: bool,
) -> None:
    """Say how many queries have the id of a page, or check that leaving such pages out for them is sound.

    Parameters
    ----------
    texts : mapping
        query id -> text.
    pages : mapping
        page id -> page.
    qrels : mapping
        query id -> page id -> grade.
    ignore_self : bool
        Whether a page with a query's own id is left out of that query's ranking.

    Raises
    ------
    CorpusError
        If own pages are to be left out, but there are none, or one of them is an answer to its query.
    """
    own = [query_id for query_id in texts if query_id in pages and query_id in qrels]
    answers = [query_id for query_id in own if qrels[query_id].get(query_id, 0) > 0]
    if ignore_self and not own:
        raise CorpusError("no query has the id of a page, so --ignore-self has no effect; leave it out")
    if ignore_self and answers:
        raise CorpusError(
            f"{len(answers)} queries are answered by the page of their own id, the first is {answers[0]!r}, so query "
            "and page are not the same item and --ignore-self would take right answers away; leave it out"
        )
    if own and not ignore_self and not answers:
        alike = sum(texts[query_id].strip() == pages[query_id].text.strip() for query_id in own)
        logger.warning(
            "%d of %d queries have the id of a page, the first is %r, and %d of them also its text; if a query and the "
            "page of its id are the same item, give --ignore-self, so that no query finds itself",
            len(own),
            len(texts),
            own[0],
            alike,
        )
