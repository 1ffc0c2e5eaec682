"""BM25 as one more system: over the whole text layer, and over what each text retriever read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miner_diag.corpus import Corpus
from miner_diag.evaluation.scored_system import BACKBONE, K, ScoredSystem, system_key
from miner_diag.retrieval.bm25 import bm25, describe_bm25
from miner_diag.retrieval.ndcg import Ndcg, ndcg_with_ties
from miner_diag.retrieval.relevance import Relevance

BM25 = "bm25"
"""What tables call the retriever."""
TEXT_LAYER = "text layer"
"""The name of the system that ranks by the words of the pages' whole text."""


def lexical_systems(part: Corpus, texts_read: Mapping[str, Sequence[str]], models: Sequence[str]) -> list[ScoredSystem]:
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
    list of ScoredSystem
        Texts without a single word give no row.
    """
    whole = [page.text for page in part.pages]
    sources = [(TEXT_LAYER, whole, models[0] if models else None)]
    sources += [(f"text read by {model}", list(texts), model) for model, texts in texts_read.items()]
    systems, seen = [], []
    for name, texts, model in sources:
        if texts in seen or not any(text.strip() for text in texts):
            continue
        seen.append(texts)
        against = None if model is None else system_key(model, BACKBONE)
        systems.append(score_bm25(part, texts, name, against)[0])
    return systems


def score_bm25(
    part: Corpus, texts: Sequence[str], name: str = TEXT_LAYER, against: str | None = None, *, k: int = K
) -> tuple[ScoredSystem, Ndcg]:
    """Score BM25 over the given texts of the pages.

    Parameters
    ----------
    part : Corpus
        The queries and P pages.
    texts : sequence of str [P]
        What is indexed of each page.
    name : str
        Which texts these are, in a table.
    against : str, optional
        The key of the system that it is compared with.
    k : int
        Ranks that count.
    """
    ranked = bm25([query.text for query in part.queries], texts)
    query_ids, page_ids = [query.query_id for query in part.queries], [page.page_id for page in part.pages]
    relevance = Relevance.from_qrels(part.qrels, query_ids, page_ids, ignore_self=part.ignore_self)
    ndcg = ndcg_with_ties(ranked.scores, relevance, k)
    system = ScoredSystem(
        BM25,
        describe_bm25(),
        name,
        "lexical",
        f"{describe_bm25()}, over the {name}",
        ndcg.values[None],
        (None,),
        ranked.vocabulary,
        ranked.index_bytes / len(texts),
        against,
    )
    return system, ndcg
