"""BM25 by hand, and what it makes of texts without words."""

import math

import numpy as np
import pytest

from miner_diag.retrieval.bm25 import K1, B, Bm25Index, NoWordError, describe_bm25

PAGES = ["index corpus corpus", "corpus pages", "nothing else", ""]


def by_hand(query, pages):
    """Lucene's formula, word by word."""
    words = [page.split() for page in pages]
    mean_length = sum(map(len, words)) / len(words)
    scores = []
    for page in words:
        score = 0.0
        for word in query.split():
            n_with = sum(word in other for other in words)
            idf = math.log(1 + (len(words) - n_with + 0.5) / (n_with + 0.5))
            count = page.count(word)
            score += idf * count / (count + K1 * (1 - B + B * len(page) / mean_length))
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["corpus", "index pages", "else corpus"])
def test_scores_are_those_of_the_formula(query):
    np.testing.assert_allclose(Bm25Index(PAGES).scores([query])[0], by_hand(query, PAGES), rtol=1e-5)


def test_case_stop_words_and_unknown_words_do_not_count():
    found = Bm25Index(PAGES).scores(["the CORPUS of xyzzy", "corpus", "xyzzy", ""])
    np.testing.assert_array_equal(found[0], found[1])
    assert not found[2].any() and not found[3].any()
    assert found.dtype == np.float32 and found.shape == (4, 4)
    assert not found[:, 3].any()  # a page without words


def test_the_order_of_pages_moves_their_scores_alone():
    order = [2, 0, 3, 1]
    forward, turned = (Bm25Index(pages).scores(["index corpus"]) for pages in (PAGES, [PAGES[n] for n in order]))
    np.testing.assert_allclose(turned[0], forward[0, order], rtol=1e-6)


def test_what_the_index_takes_grows_with_its_words():
    small, large = Bm25Index(PAGES), Bm25Index([*PAGES, "many more words stand here"])
    assert large.vocabulary > small.vocabulary == 5
    assert large.size_bytes > small.size_bytes > 0 and large.n_pages == 5
    assert "k1 1.5" in describe_bm25() and "bm25s" in describe_bm25()


def test_the_library_says_nothing_of_its_own(caplog):
    Bm25Index(PAGES).scores(["corpus"])
    assert not caplog.records


def test_pages_without_a_single_word_are_refused():
    with pytest.raises(NoWordError, match="page_texts must hold a word on at least one page; none of the 2 pages has"):
        Bm25Index(["", " . "])
