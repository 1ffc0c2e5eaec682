"""Which pages answer which query, as arrays: checked once, scored against many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from miner_diag.arrays import real_array, refuse_masked, whole_number, whole_numbers


@dataclass(frozen=True, eq=False)
class Relevance:
    """The relevance grades of Q queries over P pages, one entry per graded pair, ordered by query.

    Build it with `from_qrels`, or with `of` from an array or dicts; the constructors check it.
    """

    query: np.ndarray
    """[J] int64, rising: row of the query."""
    page: np.ndarray
    """[J] int64: column of the page."""
    grade: np.ndarray
    """[J] float64, at least 0; every query has one above 0."""
    query_ids: tuple[str, ...]
    """[Q] ids of the rows."""
    n_pages: int
    """P."""
    own_page: np.ndarray | None = None
    """[Q] int64: column of the page that is the query itself and is not ranked for it, -1 where there is none; None if
    no query is a page."""

    @property
    def n_queries(self) -> int:
        """Q."""
        return len(self.query_ids)

    @property
    def names_queries(self) -> bool:
        """Whether the rows have ids of their own, not row numbers."""
        return self.query_ids != _rows(self.n_queries)

    @classmethod
    def from_qrels(
        cls,
        qrels: Mapping[str, Mapping[str, float]],
        query_ids: Sequence[str],
        page_ids: Sequence[str],
        *,
        ignore_self: bool = False,
    ) -> Relevance:
        """Take the grades of the given queries (rows) over the given pages (columns).

        Parameters
        ----------
        qrels : {query id: {page id: grade}}
            What is right.
        query_ids, page_ids : sequence of str
            The rows and columns.
        ignore_self : bool
            Whether the page that has a query's own id is not ranked for that query: it is the query itself.

        Raises
        ------
        ValueError
            If an id stands twice, a query has no qrels, a relevant page is not among `page_ids`: it could never be
            retrieved, or a query's own page is to be left out and is relevant.
        """
        columns = _index(page_ids, "page_ids")
        _index(query_ids, "query_ids")
        query: list[int] = []
        page: list[int] = []
        grade: list[float] = []
        for row, query_id in enumerate(query_ids):
            for page_id, value in qrels.get(query_id, {}).items():
                if page_id in columns:
                    query.append(row)
                    page.append(columns[page_id])
                    grade.append(value)
                elif value != 0:
                    raise ValueError(
                        f"qrels of query {query_id!r} name the page {page_id!r}, which is not among the "
                        f"{len(columns)} page_ids"
                    )
        relevance = cls.from_judgements(query, page, grade, query_ids=tuple(query_ids), n_pages=len(columns))
        return relevance.ignoring_self(page_ids) if ignore_self else relevance

    def ignoring_self(self, page_ids: Sequence[str]) -> Relevance:
        """Return the same grades, where the page that has a query's own id is not ranked for that query.

        Raises
        ------
        ValueError
            If such a page is relevant: then query and page are not the same item.
        """
        columns = _index(page_ids, "page_ids")
        own = np.array([columns.get(query_id, -1) for query_id in self.query_ids], dtype=np.int64)
        answers = (own[self.query] == self.page) & (self.grade > 0)
        refuse_own_answers([self.query_ids[row] for row in self.query[answers]])
        return replace(self, own_page=own)

    @property
    def n_ranked(self) -> np.ndarray:
        """[Q] int64: the number of pages that are ranked for each query."""
        own = 0 if self.own_page is None else (self.own_page >= 0).astype(np.int64)
        return np.full(self.n_queries, self.n_pages, dtype=np.int64) - own

    def without_own_pages(self, scores: np.ndarray) -> np.ndarray:
        """Return scores [Q, P] with -inf (not retrieved) for each query's own page, if such pages are left out."""
        if self.own_page is None:
            return scores
        rows = np.flatnonzero(self.own_page >= 0)
        scores = scores.copy()
        scores[rows, self.own_page[rows]] = -np.inf
        return scores

    @classmethod
    def of(cls, relevance: np.ndarray | Sequence[Mapping[int, float]], n_pages: int) -> Relevance:
        """Take grades [Q, P], gold pages [Q] (integers), or Q dicts {page index: grade}.

        Raises
        ------
        ValueError
            If it is none of these, or as in `from_judgements`.
        """
        refuse_masked(relevance, "relevance")
        if isinstance(relevance, np.ndarray):
            if relevance.ndim == 2:
                real_array(relevance, "relevance", kinds="fiub")
                rows, columns = np.nonzero(relevance)
                if relevance.shape[1] != n_pages:
                    raise ValueError(
                        f"relevance must have {n_pages} columns, one per page; got {list(relevance.shape)}"
                    )
                return cls.from_judgements(rows, columns, relevance[rows, columns], _rows(len(relevance)), n_pages)
            if relevance.ndim == 1 and relevance.dtype.kind in "iu":
                rows = np.arange(len(relevance))
                return cls.from_judgements(rows, relevance, np.ones(len(rows)), _rows(len(rows)), n_pages)
        elif isinstance(relevance, Sequence) and all(isinstance(grades, Mapping) for grades in relevance):
            query = [row for row, grades in enumerate(relevance) for _ in grades]
            page = [column for grades in relevance for column in grades]
            grade = [value for grades in relevance for value in grades.values()]
            return cls.from_judgements(query, page, grade, _rows(len(relevance)), n_pages)
        got = (
            f"{relevance.dtype} {list(relevance.shape)}" if isinstance(relevance, np.ndarray) else repr(type(relevance))
        )
        raise ValueError(
            "relevance must be an array [Q, P] of grades, an integer array [Q] of gold pages, or a list of Q dicts "
            f"{{page index: grade}}; got {got}. For ids use Relevance.from_qrels"
        )

    @classmethod
    def from_judgements(
        cls, query: ArrayLike, page: ArrayLike, grade: ArrayLike, query_ids: tuple[str, ...], n_pages: int
    ) -> Relevance:
        """Check and order one entry per graded pair: rows [J], columns [J] and grades [J].

        Raises
        ------
        ValueError
            If rows or columns are not whole numbers in range, a grade is negative or not finite, a pair stands twice,
            or a query has no page with a grade above 0.
        """
        whole_number(n_pages, "n_pages")
        rows, columns = whole_numbers(query, "query"), whole_numbers(page, "page")
        grades = real_array(grade, "grade", kinds="fiub").astype(np.float64)
        if not query_ids:
            raise ValueError("relevance holds no query")
        if not rows.ndim == 1 or not rows.shape == columns.shape == grades.shape:
            raise ValueError(
                "query, page and grade must be of one length [J], an entry for each graded pair; got "
                f"{list(rows.shape)}, {list(columns.shape)} and {list(grades.shape)}"
            )
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(query_ids):
            at = int(np.argmax((rows < 0) | (rows >= len(query_ids))))
            raise ValueError(f"query must be rows 0 to {len(query_ids) - 1} of query_ids; got {rows[at]} at [{at}]")
        bad = ~(np.isfinite(grades) & (grades >= 0))
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(
                f"query {query_ids[rows[at]]!r} has the grade {grades[at]:g}; grades must be finite and at least 0 "
                "(0 means not relevant)"
            )
        outside = (columns < 0) | (columns >= n_pages)
        if outside.any():
            at = int(np.argmax(outside))
            raise ValueError(
                f"query {query_ids[rows[at]]!r} names page {columns[at]}; there are pages 0 to {n_pages - 1}"
            )
        pairs, first, times = np.unique(rows * n_pages + columns, return_index=True, return_counts=True)
        if len(pairs) < len(rows):
            at = int(first[np.argmax(times > 1)])
            raise ValueError(
                f"query {query_ids[rows[at]]!r} and page {columns[at]} stand together {times.max()} times in the "
                "judgements, and a page can gain only once; keep one grade for each pair"
            )
        total = np.bincount(rows, weights=grades, minlength=len(query_ids))
        if not total.all():
            empty = np.flatnonzero(total == 0)
            raise ValueError(
                f"{len(empty)} of {len(query_ids)} queries have no relevant page, the first is "
                f"{query_ids[empty[0]]!r}; nDCG does not exist there, so leave them out"
            )
        order = np.argsort(rows, kind="stable")
        return cls(rows[order], columns[order], grades[order], tuple(query_ids), n_pages)


def refuse_own_answers(answers: Sequence[str]) -> None:
    """Refuse to leave own pages out where queries are answered by them.

    Parameters
    ----------
    answers : sequence of str
        The queries that are answered by the page of their own id.

    Raises
    ------
    ValueError
        If there is one: then query and page are not the same item.
    """
    if answers:
        raise ValueError(
            f"{len(answers)} queries are answered by the page of their own id, the first is {answers[0]!r}, so query "
            "and page are not the same item and --ignore-self would take right answers away; leave it out"
        )


def _rows(n: int) -> tuple[str, ...]:
    return tuple(str(row) for row in range(n))


def _index(ids: Sequence[str], name: str) -> dict[str, int]:
    index = {item: row for row, item in enumerate(ids)}
    if len(index) != len(ids):
        twice = next(item for row, item in enumerate(ids) if index[item] != row)
        raise ValueError(f"{name} holds {twice!r} more than once")
    return index
