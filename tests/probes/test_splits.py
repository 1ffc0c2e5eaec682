"""Splits are taken from an embedded corpus: what is needed and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from miner_diag.corpus.core import CorpusError
from miner_diag.embeddings import EmbeddedCorpus, StoreOptions
from miner_diag.probes import ProbeError, fitting_splits, take_split
from miner_diag.probes.retrieval_data import rows_of
from tests.probes.helpers import ArrayStore, FunctionBackbone, pretend_embedded


def test_train_and_validation_are_taken_and_test_is_not():
    embedded = pretend_embedded()
    splits = fitting_splits(embedded, memory_gb=4.0)
    assert embedded.taken == ["train", "validation"]
    for name, split in (("train", splits.train), ("validation", splits.validation)):
        assert split.corpus.part == name and split.embedded.corpus is split.corpus
        assert {embedded.corpus.splits[document] for document in split.data.documents} == {name}
        facts = split.facts()
        assert (facts["n_queries"], facts["n_pages"], facts["n_pairs"], facts["n_documents"]) == (48, 48, 48, 8)
        assert facts["corpus_revision"] == split.corpus.revision
    assert not set(splits.train.data.documents) & set(splits.validation.data.documents)


def test_rows_are_those_of_the_split():
    split = take_split(pretend_embedded(), pretend_embedded().corpus, "validation", 4.0)
    assert split.data.relevance.query_ids == tuple(query.query_id for query in split.corpus.queries)
    np.testing.assert_array_equal(split.data.pages, split.embedded.stores.pages.layer_embeddings)
    queries, pages = split.data.pairs
    np.testing.assert_array_equal(queries, pages)


def test_a_side_that_exceeds_the_memory_stays_on_disk():
    embedded = pretend_embedded()
    bytes_of_a_side = 4 * 48 * 3 * 10
    in_memory = take_split(embedded, embedded.corpus, "train", 1.001e-9 * bytes_of_a_side).data
    on_disk = take_split(embedded, embedded.corpus, "train", 0.999e-9 * bytes_of_a_side).data
    assert isinstance(in_memory.queries, np.ndarray) and isinstance(in_memory.pages, np.ndarray)
    assert isinstance(on_disk.queries, ArrayStore) and isinstance(on_disk.pages, ArrayStore)


def test_the_store_on_disk_and_memory_hold_the_same_rows(tmp_path):
    """The real store: rows are those of the split, whether they are read at once or row by row."""
    pretend = pretend_embedded()
    vectors = {query.query_id: layers for query, layers in zip(pretend.corpus.queries, pretend.queries, strict=True)}
    vectors |= {page.page_id: layers for page, layers in zip(pretend.corpus.pages, pretend.pages, strict=True)}
    backbone = FunctionBackbone(vectors.__getitem__, (3, 10))
    embedded = EmbeddedCorpus(pretend.corpus, backbone, StoreOptions(store=tmp_path), progress=False)
    expected = fitting_splits(pretend, memory_gb=4.0)
    for memory_gb in (4.0, 1e-9):
        splits = fitting_splits(embedded, memory_gb=memory_gb)
        for name in ("train", "validation"):
            data, wanted = getattr(splits, name).data, getattr(expected, name).data
            for side in ("queries", "pages"):
                assert isinstance(getattr(data, side), np.ndarray) == (memory_gb == 4.0)
                np.testing.assert_array_equal(rows_of(getattr(data, side), np.arange(48)), getattr(wanted, side))


def test_another_split_by_document_is_taken_from_the_same_items():
    embedded = pretend_embedded()
    turned = {"train": "test", "validation": "train", "test": "validation"}
    other = replace(embedded.corpus, splits={d: turned[name] for d, name in embedded.corpus.splits.items()}, fold=1)
    own, dealt = fitting_splits(embedded, memory_gb=4.0), fitting_splits(embedded, other, memory_gb=4.0)
    np.testing.assert_array_equal(dealt.train.data.pages, own.validation.data.pages)
    assert set(dealt.validation.data.documents).isdisjoint({*own.train.data.documents, *own.validation.data.documents})


def test_pictures_in_both_splits_are_refused_before_anything_is_embedded():
    embedded = pretend_embedded(same_pictures=True)
    with pytest.raises(ProbeError, match="1 page pictures stand in train and in validation"):
        fitting_splits(embedded, memory_gb=4.0)
    assert embedded.taken == []


def test_a_split_without_queries_is_refused():
    embedded = pretend_embedded()
    none = replace(embedded.corpus, splits=dict.fromkeys(embedded.corpus.splits, "train"))
    with pytest.raises(CorpusError, match="the validation split of planted"):
        fitting_splits(embedded, none, memory_gb=4.0)


@pytest.mark.parametrize(("side", "fixed"), [("query", "page"), ("page", "query")])
def test_a_side_of_a_dual_encoder_stands_against_the_final_embedding_of_the_other(side, fixed):
    embedded = pretend_embedded(shared_layers=False)
    split = fitting_splits(embedded, memory_gb=4.0, side=side).train
    stores = split.embedded.stores
    sides = {"query": (split.data.queries, stores.queries), "page": (split.data.pages, stores.pages)}
    assert split.data.fixed == fixed
    np.testing.assert_array_equal(sides[side][0], sides[side][1].layer_embeddings)
    for layer in range(3):
        np.testing.assert_array_equal(sides[fixed][0][:, layer], sides[fixed][1].layer(2))
