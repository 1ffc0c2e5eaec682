"""Which data a command runs over: the limit draws from the split, and values are checked."""

import pytest

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.options import DataOptions


def test_a_limit_makes_a_corpus_of_its_own_out_of_the_split():
    options = DataOptions(limit=20)
    corpus = options.load_around("validation")
    part = options.part_of(corpus, "validation")
    assert part is corpus and len(part.pages) == 20 and part.part == "validation, 20 pages"
    assert {corpus.splits[page.doc_id] for page in part.pages} == {"validation"}


def test_without_a_limit_all_splits_are_around_the_part():
    options = DataOptions()
    corpus = options.load_around("validation")
    assert corpus.part == "all" and options.part_of(corpus, "validation") == load_corpus().split("validation")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fold": -1}, "fold must be 0 or more; got -1"), ({"limit": 0}, "limit must be at least 1 page; got 0")],
)
def test_values_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)


def test_a_table_refuses_a_form(small_table):
    folder = str(small_table())
    assert DataOptions(folder).load().form == "verbatim"
    with pytest.raises(CorpusError, match="which brings its own queries, so queries 'hidden' has no effect"):
        DataOptions(folder, queries="hidden").load()
