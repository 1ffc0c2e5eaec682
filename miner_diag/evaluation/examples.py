"""The queries that gained and lost most between two systems, as one page that opens offline: ``examples.html``."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from PIL import Image
from tqdm import tqdm

from miner_diag.corpus import Corpus, CorpusError, Query
from miner_diag.evaluation.compare import Comparison, Role
from miner_diag.evaluation.scored_system import ScoredSystem
from miner_diag.evaluation.table import difference_words, with_ends
from miner_diag.retrieval.metrics import metric_label
from miner_diag.texts import inert

N_EXAMPLES = 10
"""The largest number of queries that gained, and of those that lost."""
N_RANKED = 3
"""The number of pages that are shown of each ranking, and of those that answer where neither ranking shows one."""
LONGEST_SIDE = 400
"""The longer side of a page's picture, in pixels."""
PICTURE_BYTES = 30_000
"""The largest file of a picture; what would be larger is drawn smaller."""
MOST_BYTES = 8_000_000
"""The size that the whole page cannot exceed: it follows from these numbers."""
CHARACTERS = {"query": 600, "text": 300, "name": 160}
"""The number of characters that are shown of a query, of a page without a picture, and of an id or a name."""

ROLES: tuple[Role, ...] = ("fusion", "run", "backbone", "late", "lexical")
"""Which system the page is about: one of the first of these roles that there is."""

TEMPLATE = "examples.html.jinja"
"""The file beside this module that says what the page looks like."""

_QUALITY = 70  # of a JPEG file
_DIGITS = 9  # of a gain: means of other seeds may be rounded otherwise


@dataclass(frozen=True)
class RankedPage:
    """A page of one row."""

    page_id: str
    """The page."""
    rank: int | None
    """Its rank, the first is 1; None among the pages that answer."""
    grade: int
    """Its relevance to the query; 0 where it does not answer it."""


@dataclass(frozen=True)
class Row:
    """Pages side by side."""

    label: str
    """The system that ranked them; empty for the pages that answer."""
    what: str
    """What is to be said of them, in a sentence."""
    pages: tuple[RankedPage, ...]
    """The pages; none where a system has no results."""


@dataclass(frozen=True)
class Example:
    """A query, and what both systems ranked first."""

    query: Query
    """The query."""
    gain: float
    """The metric of the one system less that of the other."""
    rows: tuple[Row, ...]
    """One of the system that is compared with, one of the other, and what answers where neither shows a page of it."""


@dataclass(frozen=True)
class Examples:
    """What the page shows of two systems."""

    gained: tuple[Example, ...]
    """The queries that gained most, the largest gain first; of equal gains the query that stands first."""
    lost: tuple[Example, ...]
    """The queries that lost most, the largest loss first."""
    n_gained: int
    """The number of queries that gained."""
    n_lost: int
    """The number of queries that lost."""


@dataclass(frozen=True)
class DrawnPage:
    """A page as it is shown."""

    picture: str
    """A JPEG file as a data URI; empty where there is no picture."""
    text: str
    """The page's text where there is no picture."""
    reason: str
    """Why there is no picture."""


def compared_pair(
    systems: Sequence[ScoredSystem], handed_out: str | None = None
) -> tuple[ScoredSystem, ScoredSystem] | None:
    """Return the system that the page is about and the one it is compared with; None if no ranking has another.

    It is the first of the first role in `ROLES`: a fusion with its backbone, else a run file or a retriever with the
    first one, else late interaction or BM25 with a retriever.

    Parameters
    ----------
    systems : sequence of ScoredSystem
        The systems of one evaluation.
    handed_out : str, optional
        The key of the fusion that goes before others.
    """
    ranked = {system.key: system for system in systems if system.measures.hits is not None}
    pairs = [
        (system, ranked[system.backbone])
        for system in ranked.values()
        if system.role in ROLES and system.backbone in ranked
    ]
    return min(pairs, key=lambda pair: (ROLES.index(pair[0].role), pair[0].key != handed_out), default=None)


def find_examples(system: ScoredSystem, other: ScoredSystem, corpus: Corpus, metric: str) -> Examples:
    """Return the queries that gained and lost most from `other` to `system`, with the first pages of both.

    Parameters
    ----------
    system, other : ScoredSystem
        Two systems with rankings, as `compared_pair` returns them. Values are means over seeds.
    corpus : Corpus
        The queries and pages that they were scored on.
    metric : str
        What counts, as "ndcg_at_5".
    """
    gains = system.measures.values[metric].mean(axis=0) - other.measures.values[metric].mean(axis=0)
    gains = np.round(gains, _DIGITS)

    def most(order: np.ndarray) -> tuple[Example, ...]:
        rows = order.argsort(kind="stable")[:N_EXAMPLES]
        return tuple(
            Example(corpus.queries[row], float(gains[row]), _rows(row, (other, system), corpus, metric))
            for row in rows.tolist()
            if order[row] < 0
        )

    return Examples(most(-gains), most(gains), int((gains > 0).sum()), int((gains < 0).sum()))


def _rows(query: int, systems: Sequence[ScoredSystem], corpus: Corpus, metric: str) -> tuple[Row, ...]:
    """Return the rows of one query."""
    gold = corpus.qrels[corpus.queries[query].query_id]
    rows = []
    for system in systems:
        assert system.measures.hits is not None  # as compared_pair promises
        pages, scores = system.measures.hits.pages[query], system.measures.hits.scores[query]
        ids = [corpus.pages[column].page_id for column in pages[scores > -np.inf].tolist()]
        first = next((rank for rank, page_id in enumerate(ids, start=1) if page_id in gold), None)
        told = f"{metric_label(metric)} {system.measures.values[metric][:, query].mean():.4f}; "
        if not ids:
            told += "it has no results for this query."
        elif first is None:
            told += f"no page that answers is among its first {len(ids)}."
        else:
            told += f"the first page that answers is at rank {first}."
        shown = (RankedPage(page_id, rank, gold.get(page_id, 0)) for rank, page_id in enumerate(ids[:N_RANKED], 1))
        rows.append(Row(system.key, told, tuple(shown)))
    if not any(page.grade for row in rows for page in row.pages):
        best = sorted(gold.items(), key=lambda item: -item[1])[:N_RANKED]
        told = "The page that answers." if len(gold) == 1 else f"{len(best)} of the {len(gold)} pages that answer."
        rows.append(Row("", told, tuple(RankedPage(page_id, None, grade) for page_id, grade in best)))
    return tuple(rows)


def examples_page(system: ScoredSystem, other: ScoredSystem, corpus: Corpus, comparison: Comparison) -> str:
    """Return ``examples.html``: two systems, the queries that gained and lost most, and pictures of their first pages.

    The page is alone: it loads nothing, runs nothing, and is smaller than `MOST_BYTES`. All that comes from data is
    shown as text.

    Parameters
    ----------
    system, other, corpus
        As in `find_examples`.
    comparison : Comparison
        The comparison that both are part of.
    """
    examples = find_examples(system, other, corpus, comparison.metric)
    listed = [*examples.gained, *examples.lost]
    page_ids = dict.fromkeys(page.page_id for example in listed for row in example.rows for page in row.pages)
    drawn = draw_pages(corpus, page_ids)
    return page_template(__package__, TEMPLATE).render(
        data=corpus.name,
        systems=(other.key, system.key),
        label=metric_label(comparison.metric),
        scores=_score_rows(system, other, comparison),
        sentences=_summary(system, other, corpus, comparison, examples),
        legend=[*_legend(system, other, corpus), *_undrawn(drawn)],
        sections=[("gained", examples.gained), ("lost", examples.lost)],
        drawn=drawn,
        graded=any(grade > 1 for gold in corpus.qrels.values() for grade in gold.values()),
    )


def draw_pages(corpus: Corpus, page_ids: Iterable[str]) -> dict[str, DrawnPage]:
    """Draw pages, one at a time; a page without a picture has its text."""
    texts = {page.page_id: page.text for page in corpus.pages}
    drawn = {}
    for page_id in tqdm(list(page_ids), desc="pictures", unit="page", delay=2.0):
        try:
            content = picture_file(corpus.render(page_id, LONGEST_SIDE))
        except CorpusError as error:
            drawn[page_id] = DrawnPage("", " ".join(texts[page_id].split()), str(error))
        else:
            encoded = base64.b64encode(content).decode("ascii")
            drawn[page_id] = DrawnPage(f"data:image/jpeg;base64,{encoded}", "", "")
    return drawn


def picture_file(picture: Image.Image) -> bytes:
    """Return a picture's pixels alone as a JPEG file of at most `PICTURE_BYTES`, `LONGEST_SIDE` on the longer side."""
    picture = picture.convert("RGB")
    picture.info = {}  # comments and profiles
    side = LONGEST_SIDE
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
        if file.tell() <= PICTURE_BYTES:
            return file.getvalue()
        side = side * 3 // 4


def examples_sentence(system: ScoredSystem, other: ScoredSystem) -> str:
    """Return what a person is told of the page."""
    return (
        f"examples.html shows the queries that gained and lost most from {other.key} to {system.key}, with their pages."
    )


def page_template(package: str, name: str) -> Template:
    """Return the template of a page, a file of a package; whatever it is given is made inert, then escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=inert, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cut"] = _cut
    return environment.from_string(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


def _cut(text: str, what: str) -> str:
    """Return as much of a text as is shown of its kind."""
    most = CHARACTERS[what]
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _score_rows(system: ScoredSystem, other: ScoredSystem, comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return name, `other`, `system` and difference of each metric; the one that is compared has its intervals."""
    rows = []
    for metric, values in system.measures.values.items():
        value, reference = float(values.mean()), float(other.measures.values[metric].mean())
        told = f"{reference:.4f}", f"{value:.4f}"
        if metric == comparison.metric:
            own, others = comparison[system.key], comparison[other.key]
            told = with_ends(reference, others.interval), with_ends(value, own.interval)
        rows.append((metric_label(metric), *told, f"{value - reference:+.4f}"))
    return rows


def _summary(
    system: ScoredSystem, other: ScoredSystem, corpus: Corpus, comparison: Comparison, examples: Examples
) -> list[str]:
    """Return what changed in all, and how sure that is."""
    label, n_queries = metric_label(comparison.metric), len(corpus.queries)
    difference = comparison[system.key].to_backbone
    assert difference is not None  # as compared_pair promises
    same = n_queries - examples.n_gained - examples.n_lost
    return [
        f"The {label} of {system.key} less that of {other.key} is {difference_words(difference)}.",
        f"Of {n_queries} queries of {corpus.name} ({corpus.part}, {corpus.form}), {examples.n_gained} gained, "
        f"{examples.n_lost} lost and {same} stayed the same.",
        f"Below are the {N_EXAMPLES} that gained most and the {N_EXAMPLES} that lost most, or as many as there are. "
        "They show what changed; whether the change is real, the interval and the p value above say.",
    ]


def _legend(system: ScoredSystem, other: ScoredSystem, corpus: Corpus) -> list[str]:
    """Return how the page is read."""
    sentences = [
        f"Of each query, the first {N_RANKED} pages of both rankings are shown, from the left.",
        "A thick double border and the words “✓ answers” mark a page that the judgements name as an answer. All other "
        "pages have a thin border.",
        f"Where neither ranking has an answer among its first {N_RANKED} pages, a row of its own shows what answers.",
        "Pages with equal scores are shown in the order of the data; values are means over all their orders.",
    ]
    if max(len(system.seeds), len(other.seeds)) > 1:
        sentences.append("Values are means over the seeds of a training; pages are those of the first seed.")
    if corpus.form == "hidden":
        sentences.append("Pages are shown without the words of their queries, as retrievers are given them.")
    return sentences


def _undrawn(drawn: Mapping[str, DrawnPage]) -> list[str]:
    """Return why pages have no picture, if there are such pages."""
    missing = {page_id: page.reason for page_id, page in drawn.items() if not page.picture}
    if not missing:
        return []
    first, reason = next(iter(missing.items()))
    return [
        f"{len(missing)} of {len(drawn)} pages have no picture, as {first} ({reason}); their text, or its start, is "
        "shown."
    ]
