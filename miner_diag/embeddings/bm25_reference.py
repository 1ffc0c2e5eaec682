"""BM25 beside a retriever: what ranking by shared words reaches on the queries and pages of a table of nDCG@5.

Two texts of the pages are ranked: their whole text layer, and what a retriever read of them. The second is less where
the retriever cuts pages, other words where it reads pictures, and nothing where it looks at pictures without reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from miner_diag.figures import BLACK, ORANGE
from miner_diag.records import Record
from miner_diag.retrieval.bm25 import Bm25Index, NoWordError, describe_bm25
from miner_diag.retrieval.ndcg import Ndcg
from miner_diag.retrieval.ranking import ndcg_by_blocks
from miner_diag.retrieval.relevance import Relevance
from miner_diag.stats import Interval, StatisticsOptions, bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from miner_diag.corpus.core import Corpus
    from miner_diag.embeddings.embedded import Embedded

BM25 = "bm25"
"""What tables call the retriever."""
TEXT_LAYER = "text layer"
"""What tables call the system that ranks by the words of the pages' whole text."""
K = 5
"""The ranks that count unless a caller says otherwise."""

MEASURES = {"bm25_ndcg_at_5": "BM25, text layer", "bm25_text_read_ndcg_at_5": "BM25, the text that was read"}
"""Column of a table -> what figures call its line: over the whole text layer, and over what the retriever read."""
COLUMNS = tuple(f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high"))
"""The columns of a table that hold both with their intervals. The columns of what was read hold the same numbers as the
others where the retriever read the whole text layer, and are empty where it reads no text."""


@dataclass(frozen=True, eq=False)
class RankedTexts:
    """BM25 over one text of the pages."""

    name: str
    """Which text it is: `TEXT_LAYER`, or "text read by page-text"."""
    reader: str | None
    """The retriever that read it; None for the text layer."""
    index: Bm25Index
    """The pages' words."""
    ndcg: Ndcg
    """NDCG of each query, with the bounds that ties leave."""


def rank_texts(
    part: Corpus, texts_read: Mapping[str, Sequence[str]] | None = None, *, k: int = K
) -> tuple[list[RankedTexts], list[str]]:
    """Score BM25 over the whole text of the pages, and over the text that each retriever read where that is another.

    Parameters
    ----------
    part : Corpus
        The queries and P pages.
    texts_read : mapping of str to sequence of str [P], optional
        Retriever -> what it read of each page; one that looks at pictures is not among them.
    k : int
        Ranks that count.

    Returns
    -------
    ranked : list of RankedTexts
        The text layer first.
    missing : list of str
        A sentence for each text that cannot be ranked, because it holds no word.
    """
    sources: list[tuple[str, str | None, Sequence[str]]] = [(TEXT_LAYER, None, [page.text for page in part.pages])]
    sources += [(f"text read by {model}", model, list(texts)) for model, texts in (texts_read or {}).items()]
    query_ids, page_ids = [query.query_id for query in part.queries], [page.page_id for page in part.pages]
    relevance = Relevance.from_qrels(part.qrels, query_ids, page_ids, ignore_self=part.ignore_self)
    queries = [query.text for query in part.queries]
    ranked: list[RankedTexts] = []
    missing: list[str] = []
    seen: list[Sequence[str]] = []
    for name, reader, texts in sources:
        if texts in seen:
            continue
        seen.append(texts)
        try:
            index = Bm25Index(texts)
        except NoWordError:
            missing.append(f"There is no BM25 over the {name}: it holds no word on any of the {len(texts)} pages.")
            continue
        ranked.append(RankedTexts(name, reader, index, _ndcg(index, queries, relevance, k)))
    return ranked, missing


def _ndcg(index: Bm25Index, queries: Sequence[str], relevance: Relevance, k: int) -> Ndcg:
    return ndcg_by_blocks(lambda rows: index.scores(queries[rows]), relevance, k)


@dataclass(frozen=True, eq=False)
class Bm25Reference:
    """What BM25 reaches on the queries and pages that a retriever's layers are measured on."""

    model: str
    """The retriever."""
    ranked: tuple[RankedTexts, ...]
    """BM25 over the text layer, and over what the retriever read where that is another text."""
    intervals: tuple[Interval, ...]
    """NDCG@5 of each of them."""
    text_read: Interval | None
    """NDCG@5 over what the retriever read, be it the text layer or another text; None where it reads no text."""
    missing: tuple[str, ...]
    """A sentence for each text that cannot be ranked."""

    def measures(self) -> list[tuple[str, Interval]]:
        """Return (column, interval) of what there is; columns are those of `MEASURES`."""
        whole = [interval for text, interval in zip(self.ranked, self.intervals, strict=True) if text.reader is None]
        read = [] if self.text_read is None else [self.text_read]
        return [(name, found[0]) for name, found in zip(MEASURES, (whole, read), strict=True) if found]

    def records(self, *, dataset: str, split: str, seed: int) -> list[Record]:
        """Return each mean with its interval, then nDCG@5 of every query; names are those of an evaluation."""
        records = []
        for text, interval in zip(self.ranked, self.intervals, strict=True):
            common: dict[str, Any] = {"model": BM25, "model_revision": describe_bm25(), "system": text.name}
            common |= {"dataset": dataset, "split": split, "d": text.index.vocabulary, "measure": "ndcg_at_5"}
            over = "queries" if interval.n_clusters is None else "documents"
            records.append(Record(**common, seed=seed, **interval.record_fields(f"bootstrap over {over}, BCa")))
            records += [
                Record(**common, value=float(value), query_id=query_id)
                for query_id, value in zip(text.ndcg.query_ids, text.ndcg.values, strict=True)
            ]
        return records

    def lines(self) -> list[str]:
        """Return the sentence that a terminal shows below a table, and what is missing and why."""
        parts = [
            f"{interval} over the {text.name}{' of the pages' if text.reader is None else ''}"
            for text, interval in zip(self.ranked, self.intervals, strict=True)
        ]
        if not parts:
            return list(self.missing)
        sentence = f"For orientation: BM25 reaches nDCG@5 {' and '.join(parts)}"
        if self.text_read is self.intervals[0] and self.ranked[0].reader is None:
            sentence += f", all of which {self.model} reads"
        elif self.text_read is None and not self.missing:
            sentence += f"; {self.model} looks at their pictures"
        return [f"{sentence}.", *self.missing]


def bm25_reference(embedded: Embedded, statistics: StatisticsOptions, *, by_document: bool) -> Bm25Reference:
    """Score BM25 on the queries and pages that a retriever was measured on.

    Parameters
    ----------
    embedded : Embedded
        The queries and pages, and the retriever.
    statistics : StatisticsOptions
        Confidence and seed of the intervals.
    by_document : bool
        Whether intervals are over documents instead of queries; tell what the layers' own intervals are over.
    """
    part, model = embedded.corpus, embedded.backbone.name
    read = embedded.backbone.texts_read(part.pages)
    ranked, missing = rank_texts(part, {} if read is None else {model: read})
    documents = [query.doc_id for query in part.queries] if by_document else None
    intervals = tuple(
        # each from the same resamples as the others, and as the layers of a diagnosis
        bootstrap_mean(
            text.ndcg.values,
            np.random.default_rng(statistics.seed),
            clusters=documents,
            confidence=statistics.confidence,
        )
        for text in ranked
    )
    of_text = {text.reader: interval for text, interval in zip(ranked, intervals, strict=True)}
    reads_all = read == [page.text for page in part.pages]
    return Bm25Reference(model, tuple(ranked), intervals, of_text.get(None if reads_all else model), tuple(missing))


def draw_bm25(ax: Axes, table: pd.DataFrame) -> None:
    """Draw a dashed line for each nDCG@5 of BM25 that a table holds, with its name on it.

    Parameters
    ----------
    ax : Axes
        A panel with nDCG@5 upwards; its upper end is raised where a line or its name would leave it.
    table : DataFrame
        A table with the columns `COLUMNS`, every row of which holds the same or nothing; without them nothing is drawn.
    """
    values = {
        label: float(table[measure].dropna().iloc[0])
        for measure, label in MEASURES.items()
        if measure in table and table[measure].notna().any()
    }
    if len(values) == 2 and len(set(values.values())) == 1:  # one line is enough where all was read
        values.popitem()
    if not values:
        return
    ax.set_ylim(top=max(ax.get_ylim()[1], 1.15 * max(values.values())))
    near = max(values.values()) - min(values.values()) < 0.15 * ax.get_ylim()[1]
    for label, value in values.items():
        below = len(values) == 2 and near and value == min(values.values())  # names of lines that are near stand apart
        ax.axhline(value, color=ORANGE, linewidth=1.6, linestyle="--" if label == MEASURES["bm25_ndcg_at_5"] else "-.")
        ax.annotate(
            f"{label} ({value:.3f})",
            (0.01, value),
            xycoords=ax.get_yaxis_transform(),
            xytext=(0, -2 if below else 2),
            textcoords="offset points",
            ha="left",
            va="top" if below else "bottom",
            fontsize=8,
            color=BLACK,
        )
