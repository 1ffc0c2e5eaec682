"""Questions to an index: the best pages with document, section and score, as lines or as a page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from miner_diag.corpus.assemble import PdfRenderer
from miner_diag.corpus.core import Corpus, CorpusError, Page
from miner_diag.corpus.folder import find_documents
from miner_diag.evaluation.examples import draw_pages, page_template
from miner_diag.files import sha256_file
from miner_diag.locks import lock_folder
from miner_diag.serving.engine import BrokenEngineError, Found
from miner_diag.serving.errors import ServingError
from miner_diag.serving.index import WAIT, IndexFacts, read_facts, refuse_unfinished

TEMPLATE = "answers.html.jinja"
"""The file beside this module that says what the page looks like."""

SECTION_CHARACTERS = 80
"""The number of characters of a section's title that a terminal shows."""

GONE, CHANGED = "its file is gone", "its file has changed"
"""What may have become of a document since it was indexed."""


@dataclass(frozen=True)
class Answer:
    """A page that was found."""

    rank: int
    """1 is the best."""
    document: str
    """The document's path below the folder, without the ending."""
    page: int
    """The page's number, 1 is the first."""
    section: str
    """Titles of the outline that lead to it, or the last one before."""
    score: float
    """Its cosine."""
    since: str
    """What became of the document's file since it was indexed; "" if it is as it was."""

    @property
    def page_id(self) -> str:
        """Document and number."""
        return f"{self.document}/{self.page}"


@dataclass(frozen=True)
class Answers:
    """What was found for one question."""

    question: str
    """The question."""
    facts: IndexFacts
    """The index."""
    found: dict[str, tuple[Answer, ...]]
    """"fused" and "backbone", or "backbone" alone -> its best pages, the best first."""
    paths: dict[str, Path]
    """Document -> its file, of those that are as they were."""

    @property
    def main(self) -> tuple[Answer, ...]:
        """The answers of the fusion, or of the backbone where there is none."""
        return self.found[self.facts.main]

    def table(self) -> pd.DataFrame:
        """Return the main answers as a table."""
        rows = [(a.rank, round(a.score, 4), a.document, a.page, _cut(a.section), a.since) for a in self.main]
        table = pd.DataFrame(rows, columns=["rank", "score", "document", "page", "section", "since"])
        return table if table["since"].any() else table.drop(columns="since")

    def lines(self) -> list[str]:
        """Return what is to be said beside the table."""
        if not self.main:
            return ["The index holds no page."]
        stale = sorted({f"{a.document} ({a.since})" for answers in self.found.values() for a in answers if a.since})
        if not stale:
            return []
        return [f"Not as they were when they were indexed: {', '.join(stale)}; run miner-diag index again."]


def ask(index: Path, question: str, k: int = 5, *, exact: bool = False, run: Path | None = None) -> Answers:
    """Find the best pages of an index for a question.

    Parameters
    ----------
    index : path
        The index.
    question : str
        The question.
    k : int
        The number of pages.
    exact : bool
        Score every page by its whole vector, instead of walking through the engine's graph.
    run : path, optional
        Where the index's fusion run lies now, if it was moved.

    Raises
    ------
    ServingError
        If there is no finished index, or its model is not the one that is found now.
    FolderInUseError
        If another process has the index open.
    """
    if not question.strip():
        raise ServingError("the question must be a text that is not empty")
    if k < 1:
        raise ServingError(f"k must be at least 1; got {k}")
    facts = read_facts(index)
    refuse_unfinished(index, facts)
    lock = lock_folder(index, "miner-diag search", WAIT)
    try:
        retrievers = facts.retrievers(run)
        vectors = retrievers.encode_query(question)
        found = {}
        for name, vector in vectors.items():
            try:
                engine = facts.open_engine(index, name)
            except BrokenEngineError as error:
                raise ServingError(
                    f"{error}; run miner-diag index {facts.folder} --out {index}, which makes them again"
                ) from None
            try:
                found[name] = engine.search(vector, k, exact=exact)
            finally:
                engine.close()
    finally:
        lock.release()
    since, paths = _since(Path(facts.folder), [point for points in found.values() for point in points])
    answers = {name: tuple(_answers(points, since)) for name, points in found.items()}
    return Answers(question, facts, answers, paths)


def answers_page(answers: Answers) -> str:
    """Return a page that shows what was found, with pictures; it loads nothing and runs nothing.

    All that comes from documents and from the question is shown as text.
    """
    found = {a.page_id: a for listed in answers.found.values() for a in listed}
    pages = tuple(Page(page_id, a.document, a.page, "", "") for page_id, a in found.items())
    corpus = Corpus(answers.facts.folder, "verbatim", 0, pages, (), {}, {}, PdfRenderer(answers.paths, {}))
    return page_template(__package__, TEMPLATE).render(
        question=answers.question, folder=answers.facts.folder, found=answers.found, drawn=draw_pages(corpus, found)
    )


def _cut(section: str) -> str:
    """Return as much of a title as stands on a line."""
    return section if len(section) <= SECTION_CHARACTERS else f"{section[: SECTION_CHARACTERS - 1]}…"


def _answers(points: Sequence[Found], since: Mapping[str, str]) -> list[Answer]:
    return [
        Answer(
            rank,
            str(point.payload["document"]),
            int(point.payload["page"]),
            str(point.payload["section"]),
            point.score,
            since[str(point.payload["sha256"])],
        )
        for rank, point in enumerate(points, start=1)
    ]


def _since(folder: Path, points: Sequence[Found]) -> tuple[dict[str, str], dict[str, Path]]:
    """Return sha256 -> what became of that document's file, and document -> file of those that are as they were."""
    try:
        files, _ = find_documents(folder)
    except CorpusError:
        files = {}
    since, paths = {}, {}
    for document, sha256 in {(str(point.payload["document"]), str(point.payload["sha256"])) for point in points}:
        path = files.get(document)
        if path is None or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            since[sha256] = GONE
        elif sha256_file(path) != sha256:
            since[sha256] = CHANGED
        else:
            since[sha256], paths[document] = "", path
    return since, paths
