"""BM25: ranking by the words that a query and a page share, the plain alternative to any embedding.

Scores and settings are those of bm25s (Lucene's formula). Words are runs of at least two letters or digits in lower
case; English stop words are left out and nothing is stemmed. Scripts that are written without blanks are not parted
into words, so BM25 says little there.

References
----------
Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
Lù, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", arXiv 2407.03618, 2024.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import metadata

import numpy as np

K1 = 1.5
"""How soon a word that comes again and again stops counting."""
B = 0.75
"""How much the length of a page counts."""


class NoWordError(ValueError):
    """No page holds a word, so there is nothing to rank by."""


def describe_bm25() -> str:
    """Return the engine, its version and its settings."""
    return f"bm25s {metadata.version('bm25s')}, lucene, k1 {K1:g}, b {B:g}, English stop words left out, no stemming"


class Bm25Index:
    """Pages that are ranked by the words that they share with a query.

    Parameters
    ----------
    page_texts : sequence of str [P]
        The pages. A page without words has the score 0 for every query.

    Raises
    ------
    NoWordError
        If no page holds a word.

    Examples
    --------
    >>> index = Bm25Index(["the index of the corpus", "a corpus of pages", "nothing of the kind"])
    >>> index.scores(["corpus index"]).argmax(axis=1)
    array([0])
    """

    def __init__(self, page_texts: Sequence[str]) -> None:
        import bm25s  # half a second, which commands that do not need it should not wait

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets its own to DEBUG
        words = _words(page_texts)
        if not any(words):
            raise NoWordError(
                f"page_texts must hold a word on at least one page; none of the {len(words)} pages has one"
            )
        self.n_pages = len(words)
        """The number of pages."""
        self.vocabulary = len({word for page in words for word in page})
        """The number of different words of the pages."""
        self._engine = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._engine.index(words, show_progress=False)

    @property
    def size_bytes(self) -> int:
        """The size of the sparse matrix of word scores."""
        return sum(self._engine.scores[name].nbytes for name in ("data", "indices", "indptr"))

    def scores(self, query_texts: Sequence[str]) -> np.ndarray:
        """Return the scores [Q, P] float32, at least 0; 0 where a query and a page share no word."""
        scores = np.zeros((len(query_texts), self.n_pages), dtype=np.float32)
        for row, query in enumerate(_words(query_texts)):
            known = [word for word in query if word in self._engine.vocab_dict]
            if known:
                scores[row] = self._engine.get_scores(known)
        return scores


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s

    return list(bm25s.tokenize(list(texts), stopwords="english", return_ids=False, show_progress=False))
