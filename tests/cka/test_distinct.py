"""Items of equal input enter CKA, ratio, rank and anisotropy once, empty ones not at all; nDCG sees every item."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.cka.diagnosis import diagnose
from miner_diag.cka.distinct import DistinctItems, distinct_items, notes_on
from miner_diag.cka.dual_encoder import diagnose_dual_encoder
from miner_diag.cka.streamed import diagnose_streamed
from miner_diag.cka.table import layer_table
from tests.cka.helpers import CountedStore

N, D, EMPTY = 60, 12, 14


@pytest.fixture(scope="module")
def folder():
    """A folder with 14 pages without text: layers [page, 3, D] that have little in common, and one vector for those."""
    rng = np.random.default_rng(3)
    pages = rng.normal(size=(N + EMPTY, 3, D))
    pages[:, 1] += pages[:, 2]
    pages[N:] = 4 * rng.normal(size=(3, D))
    queries = pages[:N] + 0.3 * rng.normal(size=(N, 3, D))
    return {
        "queries": queries.astype(np.float32),
        "pages": pages.astype(np.float32),
        "gold": [{row: 1} for row in range(N)],
        "query_ids": [f"q{row}" for row in range(N)],
        "page_ids": [f"p{row}" for row in range(N + EMPTY)],
    }


def without_empty(folder):
    return folder | {"pages": folder["pages"][:N], "page_ids": folder["page_ids"][:N]}


def diagnosed(arguments, function=diagnose, **changes):
    return function(**(arguments | changes), rng=np.random.default_rng(0))


def streamed(**arguments):
    stores = {side: CountedStore(arguments.pop(side)) for side in ("queries", "pages")}
    return diagnose_streamed(**stores, **arguments, memory_gb=1e-5)


def geometry(diagnosis):
    """Every number of the diagnosis that is about geometry, with its interval."""
    return [
        (
            layer.page_final.cka,
            layer.page_final.alignment_ratio,
            layer.query_final.cka,
            layer.query_page.cka,
            layer.query_page.alignment_ratio,
            layer.effective_rank,
            layer.anisotropy,
            layer.null_p,
        )
        for layer in diagnosis.layers
    ], diagnosis.page_matrix.values.tolist()


@pytest.mark.parametrize("function", [diagnose, streamed])
def test_empty_pages_change_no_number_of_geometry(folder, function):
    inputs = [*range(N), *[None] * EMPTY]
    with_them = diagnosed(folder, function, page_inputs=inputs)
    assert geometry(with_them) == geometry(diagnosed(without_empty(folder), function))
    # what is ranked are all pages
    assert with_them.n_pages == N + EMPTY
    assert with_them.chance < diagnosed(without_empty(folder), function).chance


def test_counted_as_different_they_would(folder):
    """The control: the layer that shares nothing with the final one looks as if it did."""
    inputs = [*range(N), *[None] * EMPTY]
    apart = diagnosed(folder, page_inputs=range(N + EMPTY)).layers[0]
    honest = diagnosed(folder, page_inputs=inputs).layers[0]
    assert apart.page_final.cka.value > 0.5 > 0.1 > honest.page_final.cka.value
    assert apart.anisotropy.value > honest.anisotropy.value + 0.01
    assert apart.effective_rank.value < honest.effective_rank.value - 1


@pytest.mark.parametrize("function", [diagnose, streamed])
def test_equal_pages_enter_once_with_the_document_of_the_first(folder, function):
    inputs = [*range(N), *["blank"] * EMPTY]
    documents = [f"d{row % 10}" for row in range(N + EMPTY)]
    seen = diagnosed(folder, function, page_inputs=inputs, page_documents=documents, query_documents=documents[:N])
    one = folder | {"pages": folder["pages"][: N + 1], "page_ids": folder["page_ids"][: N + 1]}
    expected = diagnosed(one, function, page_documents=documents[: N + 1], query_documents=documents[:N])
    assert geometry(seen) == geometry(expected)


@pytest.mark.parametrize("function", [diagnose, streamed])
def test_without_inputs_equal_vectors_are_equal_items(folder, function):
    assert geometry(diagnosed(folder, function)) == geometry(
        diagnosed(folder, function, page_inputs=[*range(N), *[N] * EMPTY])
    )


def test_equal_queries_enter_once(folder):
    """A title that stands in two documents is one point among the queries, though both are searched for."""
    twice = {name: np.concatenate([folder[name], folder[name][:8]]) for name in ("queries",)}
    twice |= {"gold": folder["gold"] + [{row + 10: 1} for row in range(8)]}
    twice |= {"query_ids": [*folder["query_ids"], *[f"again{row}" for row in range(8)]]}
    seen, once = diagnosed(folder | twice), diagnosed(folder)
    assert geometry(seen) == geometry(once)
    assert (seen.n_queries, len(seen.measured.queries)) == (N + 8, N)


def test_each_half_of_a_dual_encoder_takes_its_own_items_once(folder):
    inputs = [*range(N), *[None] * EMPTY]
    seen = diagnosed(folder, diagnose_dual_encoder, page_inputs=inputs)
    expected = diagnosed(without_empty(folder), diagnose_dual_encoder)
    for layer, same in zip(seen.layers, expected.layers, strict=True):
        assert (layer.to_final.cka, layer.effective_rank, layer.anisotropy) == (
            same.to_final.cka,
            same.effective_rank,
            same.anisotropy,
        )
    np.testing.assert_array_equal(seen.cross.values, expected.cross.values)


def test_the_table_counts_what_enters(folder):
    table = layer_table(diagnosed(folder, page_inputs=[*range(N), *[None] * EMPTY]))
    assert set(table["n_pages"]) == {N + EMPTY}
    assert set(table["n_pages_in_cka"]) == {N} == set(table["n_queries_in_cka"]) == set(table["n_pairs_in_cka"])


def test_the_sentences_name_counts_and_consequence():
    pages, queries = DistinctItems.of([None, None, 1, 2, 2]), DistinctItems.of("abc")
    (note,) = notes_on(queries, pages)
    assert "over 2 of 5 pages" in note and "of 2 pages nothing was read" in note
    assert "1 page is read the same as an earlier one" in note
    assert "Equal rows would change them at every layer; nDCG@5 is over all pages" in note
    assert notes_on(queries, queries) == []


def test_inputs_of_another_number_are_a_sentence(folder):
    with pytest.raises(ValueError, match="page_inputs must name the input of each of the 74 items; got 3"):
        diagnosed(folder, page_inputs=[1, 2, 3])


def test_too_few_different_pages_are_a_sentence(folder):
    with pytest.raises(ValueError, match="CKA needs at least 4 pages that are read differently; this split has 1"):
        diagnosed(folder, page_inputs=["blank"] * (N + EMPTY))


def test_inputs_are_not_asked_for_where_they_are_given():
    def never():
        raise AssertionError("the vectors were read")
        yield

    assert len(distinct_items([1, 1, None], never(), name="inputs", n=3)) == 1
