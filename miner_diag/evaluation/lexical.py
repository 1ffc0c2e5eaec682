"""BM25 as one more system: over the whole text layer, and over what each text retriever read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miner_diag.corpus import Corpus
from miner_diag.embeddings.bm25_reference import BM25, RankedTexts, rank_texts
from miner_diag.evaluation.scored_system import BACKBONE, Measures, ScoredSystem, system_key
from miner_diag.retrieval.bm25 import Bm25Index, describe_bm25
from miner_diag.retrieval.ranking import measure_by_blocks
from miner_diag.retrieval.relevance import Relevance


def lexical_systems(
    part: Corpus, texts_read: Mapping[str, Sequence[str]], models: Sequence[str]
) -> tuple[list[ScoredSystem], list[str]]:
    """Score BM25 over the whole text of the pages, and over the text that each retriever read where that is another.

    Parameters
    ----------
    part : Corpus
        The queries and pages.
    texts_read : mapping
        Retriever with one vector a page -> what it read of each page; one that looks at pictures is not among them.
    models : sequence of str
        The retrievers with one vector a page. The row over the whole text is compared with the first of them, the row
        over what a retriever read with that retriever.

    Returns
    -------
    systems : list of ScoredSystem
        A row for each text that holds a word.
    missing : list of str
        A sentence for each other text.
    """
    ranked, missing = rank_texts(part, texts_read)
    systems = []
    for text in ranked:
        model = text.reader if text.reader is not None else next(iter(models), None)
        against = None if model is None else system_key(model, BACKBONE)
        systems.append(lexical_system(text, _measures(text.index, part), against))
    return systems, missing


def _measures(index: Bm25Index, part: Corpus) -> Measures:
    query_ids, page_ids = [query.query_id for query in part.queries], [page.page_id for page in part.pages]
    relevance = Relevance.from_qrels(part.qrels, query_ids, page_ids, ignore_self=part.ignore_self)
    queries = [query.text for query in part.queries]
    return Measures.of([measure_by_blocks(lambda rows: index.scores(queries[rows]), relevance)])


def lexical_system(text: RankedTexts, measures: Measures, against: str | None = None) -> ScoredSystem:
    """Return BM25 over a text as a system; `against` is the key of the system that it is compared with."""
    engine = describe_bm25()
    return ScoredSystem(
        BM25,
        engine,
        text.name,
        "lexical",
        f"{engine}, over the {text.name}",
        measures,
        (None,),
        text.index.vocabulary,
        text.index.size_bytes / text.index.n_pages,
        against,
    )
