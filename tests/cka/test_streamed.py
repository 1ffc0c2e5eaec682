"""Layers that do not fit memory: streamed is whole, rows are read block by block, and what is missing is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from miner_diag.cka.diagnosis import Rules, diagnose
from miner_diag.cka.streamed import ABSENT, FEWEST_BLOCKS, MOST_BLOCKS, deal_to_blocks, diagnose_streamed
from miner_diag.cka.table import diagnosis_records, layer_table, sentences
from tests.cka.helpers import CountedStore

WHO = {"model": "m", "model_revision": "r", "dataset": "d", "split": "s", "width": 16, "seed": 0}
GIGABYTE = 1e9
VALUES = ("cka", "mean_cosine", "alignment_ratio")


def documents_of(n):
    """Seven documents of unequal size."""
    return [f"d{min(row // 12, 6)}" for row in range(n)]


def stores(planted):
    return CountedStore(planted.queries), CountedStore(planted.pages)


def streamed(planted, queries, pages, *, memory_gb=1e-9, over_documents=False, **changes):
    groups = {}
    if over_documents:
        groups = {"query_documents": documents_of(96), "page_documents": documents_of(80)}
    inputs = {"query_inputs": range(96), "page_inputs": range(80)}  # known, so that no pass is needed to find them out
    options = {"rng": np.random.default_rng(0), **planted.ids, **inputs, **groups, **changes}
    return diagnose_streamed(queries, pages, planted.gold, memory_gb=memory_gb, **options)


@pytest.fixture(scope="module")
def small_memory(planted):
    """A diagnosis with one byte of memory, and the stores it was read from."""
    queries, pages = stores(planted)
    return streamed(planted, queries, pages), queries, pages


@pytest.fixture(scope="module")
def over_documents(planted):
    """Whole and streamed diagnosis over documents: there are fewer documents than blocks."""
    groups = {"query_documents": documents_of(96), "page_documents": documents_of(80)}
    rng = np.random.default_rng(0)
    whole = diagnose(planted.queries, planted.pages, planted.gold, **planted.ids, **groups, rng=rng)
    return whole, streamed(planted, *stores(planted), over_documents=True)


@pytest.mark.parametrize("memory_gb", [1e-9, 5e-5, 1.0])
def test_streamed_is_whole(planted, memory_gb):
    queries, pages = stores(planted)
    diagnosis = streamed(planted, queries, pages, memory_gb=memory_gb)
    assert diagnosis.usable == planted.diagnosis.usable
    for ours, theirs in zip(diagnosis.layers, planted.diagnosis.layers, strict=True):
        for view in ("page_final", "query_final", "query_page"):
            one, other = getattr(ours, view), getattr(theirs, view)
            assert (one is None) == (other is None)
            if one is None:
                continue
            for name in VALUES:
                value, expected = getattr(one, name), getattr(other, name)
                assert (value is None) == (expected is None), (ours.layer, view, name)
                if value is not None:
                    assert value.value == pytest.approx(expected.value, abs=1e-6, rel=1e-6), (ours.layer, view, name)
                    assert value.n == expected.n
            assert one.null.p_value == pytest.approx(other.null.p_value, rel=1e-6)
            assert one.null.upper == pytest.approx(other.null.upper, rel=1e-9)
        assert (ours.ndcg, ours.share_margin, ours.tie_rate) == (theirs.ndcg, theirs.share_margin, theirs.tie_rate)
        assert (ours.retrieval_aligned, ours.probe_kind) == (theirs.retrieval_aligned, theirs.probe_kind)
    np.testing.assert_allclose(diagnosis.page_matrix.values, planted.diagnosis.page_matrix.values, rtol=0, atol=1e-6)
    for one, other in zip(diagnosis.per_query, planted.diagnosis.per_query, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert one.query_ids == other.query_ids


def test_over_few_documents_the_intervals_are_those_of_the_whole(over_documents):
    """Each document is a block, so what is left out is the same."""
    whole, diagnosis = over_documents
    for ours, theirs in zip(diagnosis.layers[1:], whole.layers[1:], strict=True):
        for view in ("page_final", "query_final", "query_page"):
            for name in VALUES:
                value, expected = getattr(getattr(ours, view), name), getattr(getattr(theirs, view), name)
                if expected is None:
                    assert value is None
                    continue
                assert (value.low, value.high) == pytest.approx((expected.low, expected.high), abs=2e-5), (view, name)
                assert value.n_clusters == expected.n_clusters
                assert value.effective_clusters == pytest.approx(expected.effective_clusters)


def test_the_final_layer_with_itself_is_exactly_one(small_memory):
    final = small_memory[0].layers[-1]
    for view in (final.page_final, final.query_final):
        for interval in (view.cka, view.alignment_ratio):
            assert (interval.low, interval.value, interval.high) == (1, 1, 1)


def test_nothing_is_read_whole_and_rows_are_counted(planted, small_memory, monkeypatch):
    diagnosis, queries, pages = small_memory
    # one layer a pass: six layers with a CKA, each over pages, over queries and over pairs; and 21 tiles of the matrix
    # of 6 by 6 layers, its diagonal included. The shape of the kernels takes each row once more.
    assert pages.rows_read == 6 * 80 + 6 * 64 + 21 * 80 + 80 + 64
    assert queries.rows_read == 6 * 96 + 6 * 64 + 96 + 64
    assert pages.layers_read == queries.layers_read == list(range(7))
    row_bytes = planted.pages[:1].nbytes
    monkeypatch.setattr("miner_diag.cka.streamed._READ_BYTES", 10 * row_bytes)
    monkeypatch.setattr("miner_diag.cka.permutation.SHAPE_ITEMS", 10)
    queries, pages = stores(planted)
    again = streamed(planted, queries, pages)
    assert pages.most_rows == queries.most_rows == 10  # of 80 and 96
    np.testing.assert_allclose(again.page_matrix.values, diagnosis.page_matrix.values, rtol=0, atol=1e-9)


def test_one_pass_is_enough_where_the_sums_fit(planted):
    queries, pages = stores(planted)
    streamed(planted, queries, pages, memory_gb=1.0)
    # one pass over pages, queries and pairs each; one for the matrix; and the shape of the kernels
    assert pages.rows_read == 80 + 64 + 80 + 80 + 64
    assert queries.rows_read == 96 + 64 + 96 + 64


def test_what_is_not_computed_is_absent_and_said(small_memory, planted):
    diagnosis, *_ = small_memory
    assert diagnosis.measured.absent == ABSENT
    for word in ("effective rank", "anisotropy", "length one", "outlier", "--memory-gb"):
        assert word in ABSENT
    table = layer_table(diagnosis)
    assert table[["effective_rank_page", "anisotropy_page"]].isna().all().all()
    whole = layer_table(planted.diagnosis)
    of_blocks = ("_low", "_high", "effective_rank_page", "anisotropy_page")
    same = [column for column in table if not column.endswith(of_blocks) or column.startswith("ndcg")]
    pd.testing.assert_frame_equal(table[same], whole[same], check_exact=False, rtol=1e-6, atol=1e-6, check_dtype=False)
    records = diagnosis_records(diagnosis, **WHO)
    measures = {record.measure for record in records}
    assert not measures & {"effective_rank_page", "anisotropy_page", "cka_page_final_unit_rows"}
    assert {"cka_page", "cka_query_page_null", "ndcg_at_5"} <= measures
    for record in records:
        if record.measure in ("cka_page_final", "alignment_ratio_query_final") and record.low is not None:
            assert "over blocks of rows" in record.method
    assert sentences(diagnosis)[0] == sentences(planted.diagnosis)[0]


def test_a_constant_layer_is_a_note_and_a_constant_final_one_a_sentence(planted, small_memory):
    constant = small_memory[0].layers[0]
    assert constant.page_final is None and constant.notes == planted.diagnosis.layers[0].notes
    changed = planted.pages.copy()
    changed[:, -1] = changed[0, -1]
    with pytest.raises(ValueError, match="layer 6, the final one, has no CKA: layer 6 is the same for all 80 pages"):
        streamed(planted, CountedStore(planted.queries), CountedStore(changed))


def test_a_layer_without_a_cka_is_named_by_its_number(planted):
    changed = planted.pages.copy()
    changed[:, 3] = changed[0, 3]
    changed[7, 3] += 1  # one item carries the layer alone: the debiased self-HSIC is 0
    layer = streamed(planted, CountedStore(planted.queries), CountedStore(changed)).layers[3]
    assert layer.page_final is None and len(layer.notes) == 1
    assert layer.notes[0].startswith("layer 3: ") and "self-HSIC" in layer.notes[0]


def test_the_biased_estimator_is_refused(planted):
    with pytest.raises(ValueError, match="biased estimator needs all rows at once.*raise --memory-gb"):
        streamed(planted, *stores(planted), rules=Rules(estimator="biased"))


def test_documents_stay_whole_and_blocks_are_alike(rng):
    documents = rng.choice([f"d{n}" for n in range(53)], p=(p := rng.random(53)) / p.sum(), size=2000)
    blocks = deal_to_blocks(documents, 2000, 8)
    for document in set(documents):
        assert len(set(blocks[documents == document])) == 1
    sizes = np.bincount(blocks)
    assert len(sizes) == 8 and sizes.max() < 1.3 * sizes.min()
    assert len(np.bincount(deal_to_blocks(["a", "b", "a"], 3, 8))) == 2  # fewer documents than blocks
    assert deal_to_blocks(None, 10, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert deal_to_blocks(None, 3, 8).tolist() == [0, 1, 2]


def test_memory_decides_between_most_and_fewest_blocks(planted, small_memory):
    assert small_memory[0].layers[-1].query_page.cka.n_clusters == FEWEST_BLOCKS
    generous = streamed(planted, *stores(planted), memory_gb=1.0)
    assert generous.layers[-1].query_page.cka.n_clusters == MOST_BLOCKS
    sums = 3 * 8 * 16**2  # bytes of one block of one layer
    between = streamed(planted, *stores(planted), memory_gb=20.5 * sums / GIGABYTE)
    assert between.layers[-1].query_page.cka.n_clusters == 20
