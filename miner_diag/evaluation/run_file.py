"""The run file of somebody else's system: checked against the data, cut to what is evaluated, scored like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miner_diag.corpus import Corpus
from miner_diag.evaluation.compare import EvaluationError
from miner_diag.evaluation.scored_system import Measures, ScoredSystem
from miner_diag.files import sha256_file
from miner_diag.retrieval.formats import Run, read_run
from miner_diag.retrieval.metrics import metrics_of_run
from miner_diag.retrieval.ranking import MeasuredRanking
from miner_diag.retrieval.search import Hits
from miner_diag.retrieval.trec import RUN_DEPTH, encoded_id

RUN = "run"
"""The name of the system that is a run file."""

SUFFIXES = (".trec", ".run", ".json", ".tsv", ".txt")
"""How names of run files end; a file is read as one whatever its name is."""


@dataclass(frozen=True, eq=False)
class RunFile:
    """The ranked lists of one file, cut to the queries and pages that are evaluated."""

    given: str
    """What the user wrote."""
    path: Path
    """The file."""
    sha256: str
    """The hash of its bytes."""
    run: Run
    """{query id: {page id: score}}."""
    part: Corpus
    """The queries and pages that are evaluated."""
    notes: tuple[str, ...]
    """Sentences on what of the file or of the queries is missing."""

    def system(self, model: str, against: str | None = None) -> ScoredSystem:
        """Score the file as a system.

        Parameters
        ----------
        model : str
            What tables call it.
        against : str, optional
            The key of the system that it is compared with.

        Raises
        ------
        EvaluationError
            If float32, in which scores are compared, cannot hold a score.
        """
        qrels = {query.query_id: self.part.qrels[query.query_id] for query in self.part.queries}
        try:
            metrics = metrics_of_run(qrels, self.run, ignore_self=self.part.ignore_self)
        except ValueError as error:
            raise EvaluationError(f"{self.given}: {error}") from None
        return ScoredSystem(
            model,
            f"sha256:{self.sha256}",
            RUN,
            "run",
            f"the run file {self.path.name}",
            Measures.of([MeasuredRanking(metrics, self._hits())]),
            (None,),
            None,
            None,
            against,
        )

    def _hits(self) -> Hits:
        """Return the first pages of each query; a list that is shorter ends with scores of -inf."""
        columns = {page.page_id: column for column, page in enumerate(self.part.pages)}
        hits = Hits(
            np.zeros((len(self.part.queries), RUN_DEPTH), dtype=np.int64),
            np.full((len(self.part.queries), RUN_DEPTH), -np.inf, dtype=np.float32),
        )
        for row, query in enumerate(self.part.queries):
            own = query.query_id if self.part.ignore_self else None
            found = {page_id: score for page_id, score in self.run.get(query.query_id, {}).items() if page_id != own}
            pages = np.array([columns[page_id] for page_id in found], dtype=np.int64)
            scores = np.array([*found.values()], dtype=np.float64).astype(np.float32)
            first = np.lexsort((pages, -scores))[:RUN_DEPTH]
            hits.pages[row, : len(first)], hits.scores[row, : len(first)] = pages[first], scores[first]
        return hits


def read_run_file(given: str, path: Path, corpus: Corpus, part: Corpus) -> RunFile:
    """Read a run file and check it against the data.

    Ids are those of the data, or all are percent-encoded as `encoded_id` does it. Queries and pages of the data that
    are not evaluated, as those of other splits, are left out: what is left is the ranking of the pages that the other
    systems rank, too.

    Parameters
    ----------
    given : str
        What the user wrote.
    path : path
        The file.
    corpus : Corpus
        All queries and pages of the data.
    part : Corpus
        Those that are evaluated.

    Raises
    ------
    EvaluationError
        If the file names a query or page that the data do not have, or holds none of the evaluated queries.
    ValueError
        As in `read_run`.
    """
    run = read_run(path)
    left_out = {item.name for item in corpus.skipped}
    pages = {page.page_id for page in corpus.pages}
    queries = {query.query_id for query in corpus.queries}
    unused = left_out | {name.removeprefix("query ") for name in left_out}
    query_ids = _ids(given, "query", run, queries, unused, corpus.name)
    named = list(dict.fromkeys(page_id for found in run.values() for page_id in found))
    page_ids = _ids(given, "page", named, pages, left_out, corpus.name)
    here = {query.query_id for query in part.queries}, {page.page_id for page in part.pages}
    cut = {
        query_ids[query_id]: {
            page_ids[page_id]: score for page_id, score in found.items() if page_ids[page_id] in here[1]
        }
        for query_id, found in run.items()
        if query_ids[query_id] in here[0]
    }
    if not cut:
        raise EvaluationError(
            f"{given} holds none of the {len(here[0])} queries of the {part.part} split of {part.name}; its "
            f"{len(run)} queries are of other splits. Use --split all, or rank these queries"
        )
    return RunFile(
        given, path, sha256_file(path), cut, part, tuple(_notes(given, part, cut, len(run), named, page_ids))
    )


def _notes(
    given: str, part: Corpus, cut: Run, n_queries: int, named: Sequence[str], page_ids: Mapping[str, str]
) -> Iterable[str]:
    missing = [query.query_id for query in part.queries if not cut.get(query.query_id)]
    if missing:
        yield (
            f"{given} has no results for {len(missing)} of {len(part.queries)} queries, as {missing[0]}; they count 0."
        )
    here = {page.page_id for page in part.pages}
    other_pages = sum(page_ids[name] not in here for name in named)
    if other_pages or n_queries > len(cut):
        yield (
            f"{given}: {n_queries - len(cut)} queries and {other_pages} pages of its lists are not evaluated here and "
            "left out."
        )


def _ids(given: str, what: str, names: Iterable[str], known: set[str], left_out: set[str], data: str) -> dict[str, str]:
    """Return the data's id of each name in the file: all names are ids as they are, or all are percent-encoded.

    Names of what was left out on loading stay as they are: nothing evaluated has them.
    """
    names = list(names)
    plain = {name: name for name in known | left_out}
    encoded = {encoded_id(name): name for name in plain if name}
    readings = [{name: ids[name] for name in names} for ids in (plain, encoded) if all(name in ids for name in names)]
    if not readings:
        unknown = min(([name for name in names if name not in ids] for ids in (plain, encoded)), key=len)
        raise EvaluationError(
            f"{given} names the {what} {unknown[0]!r}, which {data} does not have ({len(unknown)} of {len(names)} such "
            f"ids). Rank the {'queries' if what == 'query' else 'pages'} of this data set, by its own ids"
        )
    if readings[0] != readings[-1]:
        name = next(name for name in names if readings[0][name] != readings[-1][name])
        raise EvaluationError(
            f"{given} names the {what} {name!r}, which may be that id or stand, percent-encoded, for "
            f"{readings[-1][name]!r}: {data} has both. Rename one of them in the data"
        )
    return readings[0]
