"""Splits go by document, are decided by a hash, do not move, and share no picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.corpus import CorpusError, load_corpus, split_of
from miner_diag.corpus.splits import deal_splits, resplit

SPLITS = ("train", "validation", "test")


def splits_of(corpus):
    """doc_id -> names of the splits that hold a page or a query of it."""
    found = defaultdict(set)
    for name in set(corpus.splits.values()):
        part = corpus.split(name)
        for item in (*part.pages, *part.queries):
            found[item.doc_id].add(name)
    return dict(found)


@pytest.fixture
def shelf(make):
    """Twelve documents of two pages each."""
    return {f"doc{n:02d}.pdf": make.handbook(f"tides{n}", n_pages=2) for n in range(12)}


def test_every_document_is_in_one_split_whole(folder, shelf):
    corpus = load_corpus(folder(shelf))
    found = splits_of(corpus)
    assert set(found) == {name.removesuffix(".pdf") for name in shelf}
    assert all(len(names) == 1 for names in found.values())
    assert {name for names in found.values() for name in names} == set(SPLITS)
    parts = [corpus.split(name) for name in SPLITS]
    assert sum(len(part.pages) for part in parts) == len(corpus.pages)
    assert sum(len(part.queries) for part in parts) == len(corpus.queries)
    for part in parts:
        own = {page.page_id for page in part.pages}
        assert set(part.qrels) == {query.query_id for query in part.queries}
        assert all(own.issuperset(judged) for judged in part.qrels.values())


def test_no_document_moves_when_others_are_added(make, folder, shelf):
    few = load_corpus(folder(dict(list(shelf.items())[:6]))).splits
    more = load_corpus(folder(shelf | {"a-first-one.pdf": make.handbook("storms")})).splits
    assert {name: more[name] for name in few} == few


def test_splits_do_not_depend_on_the_form_or_on_what_is_in_the_document(make, folder, shelf):
    path = folder(shelf)
    before = load_corpus(path).splits
    assert load_corpus(path, queries="verbatim").splits == before
    folder({"doc03.pdf": make.handbook("something else")})
    assert load_corpus(path).splits == before


def test_shares_are_roughly_50_15_35_in_every_fold():
    for fold in range(4):
        counts = Counter(split_of(f"shelf/document-{n}", fold) for n in range(4000))
        # standard deviations of the shares: 0.8, 0.6 and 0.8 %
        for name, share in zip(SPLITS, (0.50, 0.15, 0.35), strict=True):
            assert abs(counts[name] / 4000 - share) < 0.03


def test_folds_are_other_splits_that_know_nothing_of_each_other(folder, shelf):
    path = folder(shelf)
    assert load_corpus(path, fold=0).splits == load_corpus(path).splits
    assert load_corpus(path, fold=1).splits != load_corpus(path).splits
    assert load_corpus(path, fold=1).splits == load_corpus(path, fold=1).splits
    # of 4,000 documents, 0.5^2 + 0.15^2 + 0.35^2 = 39.5 % are in the same split of both folds by chance
    same = sum(split_of(f"d{n}", 0) == split_of(f"d{n}", 1) for n in range(4000)) / 4000
    assert abs(same - 0.395) < 0.03


def test_the_default_splits_are_pinned():
    """A change of the hash would silently make every earlier number incomparable."""
    found = [split_of(f"document-{number}") for number in range(8)]
    assert found == ["test", "validation", "train", "train", "train", "train", "validation", "test"]


def test_no_picture_stands_in_two_splits(make, folder, shelf):
    """Every document closes with the same empty page; page numbers and documents differ, pixels do not."""
    blank = make.PdfPage((make.Text("This page is intentionally left blank.", y=400),))
    files = {}
    for number in range(12):
        texts = (make.Text(f"Figure 1: Average level of tides in harbour number {number}"),)
        files[f"doc{number:02d}.pdf"] = make.pdf([make.PdfPage(texts), *[blank] * (1 + number % 2)])
    corpus = load_corpus(folder(files))
    where = defaultdict(set)
    for page in corpus.pages:
        where[page.page_hash].add(corpus.splits[page.doc_id])
    assert all(len(names) == 1 for names in where.values())
    assert len({corpus.splits[query.doc_id] for query in corpus.queries}) == 3
    assert len(corpus.queries) == 12
    assert any("doc00" in item.name for item in corpus.skipped), "pages that are left out are named"


def test_pictures_that_stand_twice_inside_one_split_stay_and_share_their_hash(make, folder):
    blank = make.PdfPage((make.Text("This page is intentionally left blank.", y=400),))
    texts = (make.Text("Figure 1: Average level of tides in all harbours"),)
    corpus = load_corpus(folder({"a.pdf": make.pdf([make.PdfPage(texts), blank, blank])}))
    hashes = [page.page_hash for page in corpus.pages]
    assert len(hashes) == 3 and hashes[1] == hashes[2] != hashes[0]


def test_the_hash_sees_pixels_not_text_layers(make, folder):
    """Two scans look the same though only one has a text layer drawn in white."""
    caption = make.Text("Figure 1: Average level of tides in all harbours")
    scan = make.PdfPage(drawing="0.5 g 100 100 300 300 re f 1 g")
    with_layer = make.PdfPage((make.Text("recognised words", y=700),), drawing="0.5 g 100 100 300 300 re f 1 g")
    corpus = load_corpus(folder({"a.pdf": make.pdf([make.PdfPage((caption,)), scan, with_layer])}))
    assert corpus.pages[1].page_hash == corpus.pages[2].page_hash
    assert corpus.pages[1].text != corpus.pages[2].text


def test_a_split_without_queries_and_an_unknown_split_are_sentences(make, folder):
    corpus = load_corpus(folder({"only.pdf": make.handbook()}))
    (used,) = set(corpus.splits.values())
    for name in set(SPLITS) - {used}:
        with pytest.raises(CorpusError, match=f"{name} split .* no query"):
            corpus.split(name)
    with pytest.raises(CorpusError, match="'dev'"):
        corpus.split("dev")
    assert corpus.split("all") is corpus


def test_resplit_moves_documents_and_nothing_else(folder, shelf):
    corpus = load_corpus(folder(shelf))
    moved = resplit(corpus, 3)
    assert moved.splits == load_corpus(folder(shelf), fold=3).splits != corpus.splits
    assert (moved.pages, moved.queries, moved.qrels, moved.fold) == (corpus.pages, corpus.queries, corpus.qrels, 3)
    assert resplit(moved, 0) == corpus


def test_resplit_leaves_out_pages_whose_picture_stands_in_two_splits(folder, shelf):
    corpus = load_corpus(folder(shelf))
    fold = next(f for f in range(1, 50) if split_of("doc00", f) != split_of("doc01", f))
    alike = tuple(replace(p, page_hash="alike") if p.page_id in ("doc00/1", "doc01/1") else p for p in corpus.pages)
    moved = resplit(replace(corpus, pages=alike), fold)
    assert {page.page_id for page in alike} - {page.page_id for page in moved.pages} == {"doc00/1", "doc01/1"}
    gone = {query.query_id for query in corpus.queries} - {query.query_id for query in moved.queries}
    assert gone == {name for name, gold in corpus.qrels.items() if not gold.keys().isdisjoint(["doc00/1", "doc01/1"])}
    assert gone and moved.qrels.keys() == {query.query_id for query in moved.queries}
    told = [item.name for item in moved.skipped if f"of another split of fold {fold}" in item.reason]
    assert told == ["doc00/1", "doc01/1"]


@given(
    st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=12, unique=True),
    st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=3), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_dealing_keeps_groups_together_and_leaves_no_split_empty(names, queries, fold):
    together = [{names[number % len(names)] for number in query} for query in queries]
    splits = deal_splits(names, together, fold)
    assert set(splits) == set(names)
    assert all(len({splits[name] for name in group}) == 1 for group in together)
    groups = []
    for group in together:
        touching = [other for other in groups if other & group]
        groups = [other for other in groups if not other & group] + [group.union(*touching)]
    used = {splits[next(iter(group))] for group in groups}
    assert len(groups) < 3 or used == set(SPLITS)
    alone = deal_splits(names, [[name] for name in names], fold)
    today = {name: split_of(name, fold) for name in names}
    assert alone == today or len(set(today.values())) < 3, "nothing moves where no split is empty"
    assert alone == deal_splits(names[::-1], [[name] for name in names], fold), "the order of documents is nothing"


def test_the_dealing_is_pinned():
    names = ["north", "south", "east", "west"]
    assert {split_of(name) for name in names} == {"train"}
    expected = {"north": "test", "south": "validation", "east": "train", "west": "train"}
    assert deal_splits(names, [[name] for name in names], 0) == expected
    assert deal_splits(names[:2], [[name] for name in names[:2]], 0) == {"north": "train", "south": "train"}
