"""Pages that show a query's words without being its answer: lists of contents, running headers, cross references."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from miner_diag.corpus.core import Corpus, CorpusError, Skipped
from miner_diag.corpus.hiding import stands_in

DROPPED = "shows the words of a query that another page of its document answers, and answers none itself"
"""Why a page is left out of the candidates."""


def words_elsewhere(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """Return query_id -> the pages of its document that show all its words in a row, but are not its answer.

    Queries without such a page are not in it. In the hidden form a query's words are taken out of every page of its
    document, so that nothing is found.
    """
    pages = defaultdict(list)
    for page in corpus.pages:
        pages[page.doc_id].append(page)
    found = {}
    for query in corpus.queries:
        answers = corpus.qrels[query.query_id]
        others = (page for page in pages[query.doc_id] if page.page_id not in answers)
        if shown := tuple(page.page_id for page in others if stands_in(query.text, page.text)):
            found[query.query_id] = shown
    return found


def elsewhere_summary(corpus: Corpus) -> pd.DataFrame:
    """Return one row per kind of query that the corpus has.

    Columns: kind; queries; elsewhere, those whose words stand on another page of their document too; pages, how many
    such pages there are; pages_without_query, how many of these answer no query: lists of contents and the like.
    """
    found = words_elsewhere(corpus)
    gold = {page_id for answers in corpus.qrels.values() for page_id in answers}
    rows = []
    for kind in dict.fromkeys(query.kind for query in corpus.queries):
        of_kind = [query.query_id for query in corpus.queries if query.kind == kind]
        pages = {page_id for query_id in of_kind for page_id in found.get(query_id, ())}
        rows.append(
            {
                "kind": kind,
                "queries": len(of_kind),
                "elsewhere": sum(query_id in found for query_id in of_kind),
                "pages": len(pages),
                "pages_without_query": len(pages - gold),
            }
        )
    return pd.DataFrame(rows)


def elsewhere_lines(summary: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each kind of query whose words stand on other pages too."""
    for row in summary.to_dict("records"):
        if row["elsewhere"]:
            yield (
                f"the words of {row['elsewhere']} of {row['queries']} {row['kind']} queries stand on another page of "
                f"their document too: on {row['pages']} pages, {row['pages_without_query']} of which answer no query"
            )


def without_elsewhere(corpus: Corpus) -> Corpus:
    """Return the corpus without the pages that show a query's words and answer no query, each named in ``skipped``.

    Pages that answer a query of their own stay, even where they show another query's words.

    Raises
    ------
    CorpusError
        If the corpus is in the hidden form, where no page shows them.
    """
    if corpus.form == "hidden":
        raise CorpusError(
            "elsewhere drop has no effect on hidden queries, whose words are taken out of every page of their "
            "document; use --queries verbatim, or leave out --elsewhere"
        )
    gold = {page_id for answers in corpus.qrels.values() for page_id in answers}
    gone = {page_id for shown in words_elsewhere(corpus).values() for page_id in shown} - gold
    return replace(
        corpus,
        pages=tuple(page for page in corpus.pages if page.page_id not in gone),
        skipped=(*corpus.skipped, *(Skipped(page.page_id, DROPPED) for page in corpus.pages if page.page_id in gone)),
    )
