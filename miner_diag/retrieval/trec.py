"""Runs and qrels as trec_eval reads them, so that other tools can score what was evaluated here.

A line of a run is ``query Q0 page rank score tag``, a line of qrels ``query 0 page grade``. Scores have nine digits,
from which a float32 is read back exactly. An id with what such a line cannot carry, as white space, is percent-encoded
(`encoded_id`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np

from miner_diag.retrieval.search import Hits
from miner_diag.texts import DANGEROUS

RUN_DEPTH = 100
"""The number of pages that a run file holds of each query."""

_ENCODED = re.compile(rf"%|\s|\ufeff|^\{{|{DANGEROUS.pattern}")
"""White space, what is not shown, the percent sign itself, and a first brace, which would look like JSON."""


def encoded_id(name: str) -> str:
    """Return an id as a run file holds it; ``urllib.parse.unquote`` gives it back.

    White space, control characters, marks of the direction of writing, a byte order mark, a first brace and the percent
    sign are percent-encoded, all else stays.

    Raises
    ------
    ValueError
        If it is empty.

    Examples
    --------
    >>> encoded_id("my report.pdf/7"), encoded_id("50%"), encoded_id("página-1")
    ('my%20report.pdf/7', '50%25', 'página-1')
    """
    if not name:
        raise ValueError("an id must not be empty, which a run file cannot hold")
    return _ENCODED.sub(lambda found: quote(found.group(), safe="", errors="surrogatepass"), name)


def run_text(hits: Hits, query_ids: Sequence[str], page_ids: Sequence[str], tag: str) -> str:
    """Return hits as a run file.

    Parameters
    ----------
    hits : Hits
        The best pages of Q queries; those with the score -inf, which were not retrieved, are left out.
    query_ids : sequence [Q] of str
        The queries.
    page_ids : sequence [P] of str
        The pages.
    tag : str
        The name of the system, without white space.

    Examples
    --------
    >>> print(run_text(Hits(np.array([[1, 0]]), np.array([[0.5, 0.25]])), ["q 1"], ["a", "b"], "mine"), end="")
    q%201 Q0 b 1 0.5 mine
    q%201 Q0 a 2 0.25 mine
    """
    pages = [encoded_id(page_id) for page_id in page_ids]
    lines = []
    for query_id, columns, scores in zip(map(encoded_id, query_ids), hits.pages, hits.scores, strict=True):
        n_found = int(np.count_nonzero(scores > -np.inf))
        found = zip(columns[:n_found].tolist(), scores[:n_found].tolist(), strict=True)
        lines += [
            f"{query_id} Q0 {pages[column]} {rank} {score:.9g} {tag}\n"
            for rank, (column, score) in enumerate(found, start=1)
        ]
    return "".join(lines)


def qrels_text(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """Return {query id: {page id: grade}} as a file of qrels."""
    return "".join(
        f"{encoded_id(query_id)} 0 {encoded_id(page_id)} {grade}\n"
        for query_id, grades in qrels.items()
        for page_id, grade in grades.items()
    )
