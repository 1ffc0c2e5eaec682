"""BM25 as a row: over the whole text layer, and over what a retriever read where that is another text."""

import numpy as np
import pytest

from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.evaluation.lexical import lexical_systems

TEXTS = ["alpha beta gamma", "alpha delta words", "omega words here"]


@pytest.fixture
def part():
    pages = tuple(Page(f"d/{n}", "d", n, text, f"hash {n}") for n, text in enumerate(TEXTS, start=1))
    queries = (Query("q1", "gamma", "given", "d"), Query("q2", "omega", "given", "d"))
    qrels = {"q1": {"d/1": 1}, "q2": {"d/3": 1}}
    return Corpus("tiny", "verbatim", 0, pages, queries, qrels, {"d": "test"}, lambda *_: None)


def test_texts_that_are_the_same_give_one_row(part):
    systems, missing = lexical_systems(part, {"reads-all": TEXTS}, ["reads-all"])
    assert missing == []
    assert [(system.name, system.role, system.backbone) for system in systems] == [
        ("text layer", "lexical", "reads-all: backbone")
    ]
    assert systems[0].ndcg.tolist() == [[1.0, 1.0]]
    assert systems[0].bytes_per_page > 0 and systems[0].width == 7


def test_what_a_retriever_cut_off_is_missing_in_its_row(part):
    cut = ["alpha beta", "alpha delta words", "omega words"]
    systems, _ = lexical_systems(part, {"cuts": cut, "reads-all": TEXTS}, ["reads-all", "cuts"])
    assert [system.name for system in systems] == ["text layer", "text read by cuts"]
    assert systems[1].backbone == "cuts: backbone"
    assert systems[0].ndcg[0, 0] == 1.0
    # no page holds the word: all three tie, and the value is that of chance
    assert systems[1].ndcg[0, 0] == pytest.approx(np.mean([1, 1 / np.log2(3), 1 / 2]))
    assert systems[1].ndcg[0, 1] == 1.0


def test_pictures_without_text_give_a_sentence_and_no_row(part):
    blank = Corpus(
        part.name,
        part.form,
        part.fold,
        tuple(Page(p.page_id, p.doc_id, p.page_number, " ", p.page_hash) for p in part.pages),
        part.queries,
        part.qrels,
        part.splits,
        part.renderer,
    )
    systems, missing = lexical_systems(blank, {}, ["looks-at-pictures"])
    assert systems == [] and missing == [
        "There is no BM25 over the text layer: it holds no word on any of the 3 pages."
    ]
    read, missing_too = lexical_systems(blank, {"reads-pictures": TEXTS}, ["reads-pictures"])
    assert [system.name for system in read] == ["text read by reads-pictures"] and missing_too == missing
    assert read[0].backbone == "reads-pictures: backbone"
