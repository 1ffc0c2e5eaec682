"""Whether intervals are over documents, and what a reader is told of it."""

from __future__ import annotations

import pytest

from miner_diag.corpus.clusters import MIN_DOCUMENTS, over_documents
from miner_diag.corpus.core import Corpus, Page, Query


def corpus_of(*sizes):
    """A corpus whose documents have so many queries, one for each page."""
    items = [(f"d{number}", row) for number, size in enumerate(sizes) for row in range(size)]
    return Corpus(
        "made-up",
        "hidden",
        0,
        tuple(Page(f"p-{doc}-{row}", doc, row + 1, "", f"{doc}{row}") for doc, row in items),
        tuple(Query(f"q-{doc}-{row}", "words", "given", doc) for doc, row in items),
        {f"q-{doc}-{row}": {f"p-{doc}-{row}": 1} for doc, row in items},
        {doc: "test" for doc, _ in items},
        renderer=lambda page, side: None,
    )


@pytest.mark.parametrize("choice", ["auto", "documents"])
def test_enough_documents_of_one_size_need_no_word(choice):
    assert over_documents(corpus_of(*[4] * MIN_DOCUMENTS), choice) == (True, [])
    assert over_documents(corpus_of(30, 20, *[10] * 10), choice) == (True, [])  # these count as 8.8


def test_documents_of_unequal_size_are_told_with_their_effective_number():
    # (12 + 5 * 3)^2 / (144 + 5 * 9) = 729 / 189
    over, (note,) = over_documents(corpus_of(12, 3, 3, 3, 3, 3), "auto")
    assert over
    assert note == (
        "intervals are over 6 documents of unequal size; they are as wide as 3.9 documents of equal size justify"
    )


def test_few_documents_are_taken_only_if_they_are_chosen():
    few = corpus_of(4, 4, 4)
    over, (caution,) = over_documents(few, "auto")
    assert not over and "over single items of 3 documents" in caution
    assert over_documents(few, "documents") == (True, [])
    assert over_documents(few, "items")[0] is False


def test_many_documents_are_left_alone_if_items_are_chosen():
    over, (caution,) = over_documents(corpus_of(*[4] * 9), "items")
    assert not over and "single items of 9 documents" in caution


def test_one_document_is_a_sentence():
    with pytest.raises(ValueError, match=r"at least 2 documents with queries; made-up \(all\) has 1.*--intervals-over"):
        over_documents(corpus_of(9), "documents")
