"""BM25 as the line that layers and probes are held against: its texts, its numbers, and a word on what is missing."""

import re

import numpy as np
import pandas as pd
import pytest

from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.embeddings import Embedded
from miner_diag.embeddings.bm25_reference import MEASURES, bm25_reference, draw_bm25, rank_texts
from miner_diag.figures import new_figure
from miner_diag.records import Record
from miner_diag.retrieval.bm25 import Bm25Index
from miner_diag.stats import StatisticsOptions, bootstrap_mean
from tests.embeddings.helpers import PretendBackbone

TEXTS = ["alpha beta gamma", "alpha delta words", "omega words here"]
CUT = ["alpha beta", "alpha delta words", "omega words"]
BLANK = ["", " ", "."]


def corpus_of(texts):
    pages = tuple(Page(f"d{n}/1", f"d{n}", 1, text, f"hash {n}") for n, text in enumerate(texts))
    queries = tuple(Query(f"q{n}", word, "given", f"d{n % 3}") for n, word in enumerate(("gamma", "omega", "words")))
    qrels = {"q0": {"d0/1": 1}, "q1": {"d2/1": 1}, "q2": {"d1/1": 1}}
    return Corpus(
        "tiny", "verbatim", 0, pages, queries, qrels, dict.fromkeys(("d0", "d1", "d2"), "test"), lambda *_: None
    )


class Reads(PretendBackbone):
    """A retriever that read these texts of the pages, or looked at their pictures."""

    name = "reader"

    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def texts_read(self, pages):
        return self.texts


def reference(texts, read, *, by_document=False, **statistics):
    embedded = Embedded(corpus_of(texts), Reads(read), None)
    return bm25_reference(embedded, StatisticsOptions(**statistics), by_document=by_document)


def cells(found):
    return dict.fromkeys(MEASURES) | {name: interval.value for name, interval in found.measures()}


def test_texts_that_are_the_same_are_ranked_once():
    ranked, missing = rank_texts(corpus_of(TEXTS), {"reads-all": TEXTS, "cuts": CUT, "cuts-too": CUT})
    assert [(text.name, text.reader) for text in ranked] == [("text layer", None), ("text read by cuts", "cuts")]
    assert missing == []


def test_ranks_by_hand():
    (whole, cut), _ = rank_texts(corpus_of(TEXTS), {"cuts": CUT})
    # "gamma" and "omega" stand on one page each, "words" on two pages of three words each, which tie
    np.testing.assert_allclose(whole.ndcg.values, [1, 1, np.mean([1, 1 / np.log2(3)])])
    # no page holds "gamma": all three tie. "omega words" is the shorter page of the two with "words", so it comes first
    np.testing.assert_allclose(cut.ndcg.values, [np.mean([1, 1 / np.log2(3), 1 / 2]), 1, 1 / np.log2(3)])


def test_scores_are_never_held_whole(monkeypatch):
    """Layers that are larger than the memory are read block by block, and so must this be."""
    asked, scores = [], Bm25Index.scores
    monkeypatch.setattr("miner_diag.retrieval.ranking._BLOCK", 6)  # two queries of three pages
    monkeypatch.setattr(Bm25Index, "scores", lambda index, texts: asked.append(len(texts)) or scores(index, texts))
    (ranked,), _ = rank_texts(corpus_of(TEXTS))
    assert asked == [2, 1]
    monkeypatch.undo()
    (whole,), _ = rank_texts(corpus_of(TEXTS))
    for name in ("values", "worst", "best"):
        np.testing.assert_array_equal(getattr(ranked.ndcg, name), getattr(whole.ndcg, name))


def test_ranks_that_count_are_the_callers():
    ranked, _ = rank_texts(corpus_of(TEXTS), k=1)
    assert ranked[0].ndcg.k == 1


@pytest.mark.parametrize("blank", [BLANK, ["", "", ""]])
def test_texts_without_a_word_are_a_sentence(blank):
    ranked, missing = rank_texts(corpus_of(blank), {"reads-pictures": TEXTS})
    assert [text.name for text in ranked] == ["text read by reads-pictures"]
    assert missing == ["There is no BM25 over the text layer: it holds no word on any of the 3 pages."]


def test_the_columns_of_what_was_read_are_those_of_the_text_layer_where_all_was_read():
    found = cells(reference(TEXTS, TEXTS))
    assert (
        found["bm25_ndcg_at_5"]
        == found["bm25_text_read_ndcg_at_5"]
        == pytest.approx((2 + (1 + 1 / np.log2(3)) / 2) / 3)
    )
    cut = cells(reference(TEXTS, CUT))
    assert cut["bm25_ndcg_at_5"] == found["bm25_ndcg_at_5"] > cut["bm25_text_read_ndcg_at_5"]
    looks = cells(reference(TEXTS, None))
    assert looks == {**found, "bm25_text_read_ndcg_at_5": None}
    scans = cells(reference(BLANK, TEXTS))
    assert scans == {"bm25_ndcg_at_5": None, "bm25_text_read_ndcg_at_5": found["bm25_ndcg_at_5"]}
    assert cells(reference(BLANK, BLANK)) == cells(reference(BLANK, None)) == dict.fromkeys(MEASURES)


@pytest.mark.parametrize("by_document", [False, True])
def test_intervals_are_over_what_those_of_the_layers_are_over(by_document):
    found = reference(TEXTS, CUT, by_document=by_document, seed=4, confidence=0.8)
    documents = ["d0", "d1", "d2"] if by_document else None
    for text, interval in zip(found.ranked, found.intervals, strict=True):
        rng = np.random.default_rng(4)
        assert interval == bootstrap_mean(text.ndcg.values, rng, clusters=documents, confidence=0.8)
    assert {interval.n_clusters for interval in found.intervals} == {3 if by_document else None}


def test_records_are_means_and_values_by_query_under_the_names_of_an_evaluation():
    found = reference(TEXTS, CUT)
    records = found.records(dataset="tiny", split="test", seed=7)
    assert all(isinstance(record, Record) and record.measure == "ndcg_at_5" for record in records)
    assert {record.model for record in records} == {"bm25"}
    for text, interval in zip(found.ranked, found.intervals, strict=True):
        of_text = [record for record in records if record.system == text.name]
        assert [record.query_id for record in of_text] == [None, "q0", "q1", "q2"]
        assert of_text[0].value == pytest.approx(np.mean([record.value for record in of_text[1:]]))
        assert (of_text[0].low, of_text[0].high, of_text[0].n, of_text[0].seed) == (interval.low, interval.high, 3, 7)


@pytest.mark.parametrize(
    ("texts", "read", "said"),
    [
        (
            TEXTS,
            TEXTS,
            [r"^For orientation: BM25 reaches nDCG@5 0\.9385 \[.*\] over the text layer of the pages, all of "],
        ),
        (TEXTS, CUT, [r"0\.9385 \[.*\] over the text layer of the pages and .* over the text read by reader\.$"]),
        (TEXTS, None, [r"over the text layer of the pages; reader looks at their pictures\.$"]),
        (BLANK, TEXTS, [r"0\.9385 \[.*\] over the text read by reader\.$", r"^There is no BM25 over the text layer: "]),
        (BLANK, None, [r"^There is no BM25 over the text layer: it holds no word on any of the 3 pages\.$"]),
    ],
)
def test_the_sentence_says_what_there_is_and_why_the_rest_is_not(texts, read, said):
    lines = reference(texts, read).lines()
    assert len(lines) == len(said)
    for line, pattern in zip(lines, said, strict=True):
        assert re.search(pattern, line), line


def drawn(table, top=0.5):
    ax = new_figure(4, 2).subplots()
    ax.set_ylim(0, top)
    draw_bm25(ax, pd.DataFrame(table))
    return ax


def row(whole, read):
    return {"bm25_ndcg_at_5": [whole, whole], "bm25_text_read_ndcg_at_5": [read, read]}


@pytest.mark.parametrize(
    ("whole", "read", "levels"), [(0.4, 0.3, [0.4, 0.3]), (0.4, 0.4, [0.4]), (0.4, None, [0.4]), (None, 0.3, [0.3])]
)
def test_a_line_for_each_number_with_its_name(whole, read, levels):
    ax = drawn(row(whole, read))
    assert [line.get_ydata()[0] for line in ax.lines] == levels
    assert len({line.get_linestyle() for line in ax.lines}) == len(levels)  # told apart without colour
    for text, level in zip(ax.texts, levels, strict=True):
        assert text.get_text().startswith("BM25, ") and f"({level:.3f})" in text.get_text()


@pytest.mark.parametrize("table", [{"layer": [0, 1]}, row(None, None)])
def test_nothing_is_drawn_of_a_table_without_numbers(table):
    ax = drawn(table)
    assert not ax.lines and not ax.texts and ax.get_ylim() == (0, 0.5)


@pytest.mark.parametrize("levels", [(0.4, 0.39), (0.39, 0.4), (0.9, 0.01), (0.5, 0.5001)])
def test_names_stand_apart_and_inside_the_panel(levels):
    ax = drawn(row(*levels))
    ax.get_figure().draw_without_rendering()
    one, other = (text.get_window_extent() for text in ax.texts)
    assert not one.overlaps(other)
    panel = ax.get_window_extent()
    assert panel.y0 <= min(one.y0, other.y0) and max(one.y1, other.y1) <= panel.y1
