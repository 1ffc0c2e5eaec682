"""The plan of shards: a partition, the same for a split alone, shared by both forms, whatever the order of asking."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.corpus.core import Query
from miner_diag.corpus.splits import resplit, split_of
from miner_diag.embeddings.plan import item_identity, pack, plan_shards
from tests.embeddings.helpers import make_corpus

SIZES = st.dictionaries(st.sampled_from([f"d{n}" for n in range(40)]), st.integers(1, 20), min_size=1, max_size=12)
LIMIT = st.integers(1, 12)
GOLDEN = {
    "page": ["c6ec4b87a26fa52f966bb1a3374faf00", "ef3ea8674dd9ff04b71dc7e15e06aa4d"],
    "query": ["b178df5cf9fb726975071a107a4d9805"],
}


def names(shards):
    return [shard.name for shard in shards]


def plans(corpus, limit):
    return [plan_shards(items, corpus.form, limit) for items in (corpus.queries, corpus.pages)]


@given(SIZES, LIMIT)
def test_every_item_is_in_exactly_one_shard_and_none_is_too_large(sizes, limit):
    corpus = make_corpus(sizes)
    for items, shards in zip((corpus.queries, corpus.pages), plans(corpus, limit), strict=True):
        positions = [position for shard in shards for position in shard.positions]
        assert sorted(positions) == list(range(len(items)))
        assert all(1 <= len(shard.positions) <= limit for shard in shards)
        assert len(set(names(shards))) == len(shards)


@given(SIZES, LIMIT)
def test_a_split_of_fold_0_is_a_union_of_the_corpus_shards(sizes, limit):
    corpus = make_corpus(sizes)
    for side, whole in enumerate(plans(corpus, limit)):
        parts = []
        for split in set(corpus.splits.values()):
            parts += names(plans(corpus.split(split), limit)[side])
        assert sorted(parts) == sorted(names(whole))


@given(SIZES, LIMIT)
def test_the_forms_share_exactly_the_shards_of_unaltered_items(sizes, limit):
    hidden, verbatim = (make_corpus(sizes, form) for form in ("hidden", "verbatim"))
    queries, pages = ([plan[side] for plan in (plans(hidden, limit), plans(verbatim, limit))] for side in (0, 1))
    assert queries[0] == queries[1]
    shared = set(names(pages[0])) & set(names(pages[1]))
    unaltered = {
        shard.name for shard in pages[0] if not any(hidden.pages[number].words_hidden for number in shard.positions)
    }
    assert shared == unaltered
    of_shared = {number for shard in pages[0] if shard.name in shared for number in shard.positions}
    assert of_shared == {number for number, page in enumerate(hidden.pages) if not page.words_hidden}


@given(SIZES, LIMIT, st.integers(1, 3))
def test_splits_are_those_of_fold_0_whatever_the_fold_of_the_corpus(sizes, limit, fold):
    corpus = make_corpus(sizes)
    assert plans(resplit(corpus, fold), limit) == plans(corpus, limit)
    for shard in plan_shards(corpus.pages, "hidden", limit):
        assert len({split_of(corpus.pages[number].doc_id) for number in shard.positions}) == 1


@given(SIZES, LIMIT)
def test_documents_stay_together(sizes, limit):
    """A document lies in as few shards as its items of a group need, so that other splits of documents need few."""
    corpus = make_corpus(sizes)
    shards = plan_shards(corpus.pages, "hidden", limit)
    for doc_id in sizes:
        for altered in (False, True):
            numbers = {
                n for n, page in enumerate(corpus.pages) if page.doc_id == doc_id and page.words_hidden is altered
            }
            holding = [shard for shard in shards if numbers.intersection(shard.positions)]
            assert len(holding) == -(-len(numbers) // limit)
            assert [n for shard in holding for n in shard.positions if n in numbers] == sorted(numbers)


@given(st.lists(st.integers(1, 15), max_size=20), LIMIT)
def test_packing_leaves_no_two_neighbours_that_would_fit_together(sizes, limit):
    documents = [[(number, item) for item in range(size)] for number, size in enumerate(sizes) if size <= limit]
    parts = list(pack(documents, limit))
    assert [item for part in parts for item in part] == [item for document in documents for item in document]
    firsts = [next(len(d) for d in documents if d[0] == part[0]) for part in parts[1:]]
    assert all(len(part) + first > limit for part, first in zip(parts, firsts, strict=False))


def test_the_identity_is_what_changes_the_vectors():
    corpus = make_corpus({"d0": 3})
    plain, altered = corpus.pages[0], corpus.pages[1]
    assert not plain.words_hidden and altered.words_hidden
    identity = item_identity(plain, "hidden")
    for change in ({"text": "other"}, {"page_hash": "other"}, {"page_id": "other"}):
        assert item_identity(replace(plain, **change), "hidden") != identity
    assert item_identity(replace(plain, page_number=9, doc_id="other"), "hidden") == identity
    assert item_identity(plain, "verbatim") == identity
    assert item_identity(altered, "verbatim") != item_identity(altered, "hidden")
    query = Query("q", "what", "given", "d0")
    assert item_identity(query, "hidden") == item_identity(replace(query, kind="table"), "verbatim")
    assert item_identity(replace(query, text="who"), "hidden") != item_identity(query, "hidden")


def test_a_change_of_one_item_changes_its_shard_alone():
    corpus = make_corpus({f"d{n}": 5 for n in range(12)})
    pages = list(corpus.pages)
    pages[17] = replace(pages[17], text="something else")
    before, after = (plan_shards(items, "hidden", 6) for items in (corpus.pages, pages))
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1 and 17 in changed[0].positions
    assert [shard.positions for shard in before] == [shard.positions for shard in after]


def test_the_names_do_not_change():
    """Stores that people have must be read on: the same items give these very names."""
    corpus = make_corpus({"d0": 4})
    assert names(plan_shards(corpus.pages, "hidden", 64)) == GOLDEN["page"]
    assert names(plan_shards(corpus.queries, "hidden", 256)) == GOLDEN["query"]


def test_no_room_in_a_shard_is_refused():
    with pytest.raises(ValueError, match="shard_items must be at least 1; got 0"):
        plan_shards([], "hidden", 0)
