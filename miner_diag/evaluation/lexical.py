"""BM25 as one more system: over the whole text layer, and over what each text retriever read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miner_diag.corpus import Corpus
from miner_diag.embeddings.bm25_reference import BM25, RankedTexts, rank_texts
from miner_diag.evaluation.scored_system import BACKBONE, ScoredSystem, system_key
from miner_diag.retrieval.bm25 import describe_bm25


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
        systems.append(lexical_system(text, None if model is None else system_key(model, BACKBONE)))
    return systems, missing


def lexical_system(text: RankedTexts, against: str | None = None) -> ScoredSystem:
    """Return BM25 over a text as a system; `against` is the key of the system that it is compared with."""
    engine, ndcg = describe_bm25(), text.ndcg.values
    return ScoredSystem(
        BM25,
        engine,
        text.name,
        "lexical",
        f"{engine}, over the {text.name}",
        ndcg[None],
        (None,),
        text.index.vocabulary,
        text.index.size_bytes / text.index.n_pages,
        against,
    )
