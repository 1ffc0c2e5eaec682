"""What serving costs: nothing is timed that is no index, and every number can be derived by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from miner_diag.evaluation.published import LABEL
from miner_diag.retrieval.ranking import ndcg_of_vectors
from miner_diag.retrieval.relevance import Relevance
from miner_diag.serving import cost
from miner_diag.serving.bench import cost_lines
from miner_diag.serving.cost import (
    COLUMNS,
    ISSUED,
    MEASURED,
    SYNTHETIC,
    Representation,
    ServedVectors,
    build,
    jittered,
    measure_tokens_cost,
    measure_vectors_cost,
    ndcg_of,
    page_number,
    page_point,
    recall,
    refuse_unindexed,
    time_encoding,
    with_ratios,
)
from miner_diag.serving.cost_plots import cost_of_serving_figure
from miner_diag.serving.engine import Found, Space, open_engine
from miner_diag.serving.errors import ServingError
from miner_diag.serving.published_cost import published_costs
from tests.serving.helpers import needs_edge, token_vectors, unit

N_PAGES, N_QUERIES, WIDTH = 60, 12, 32
TEXTS = [f"question {number}" for number in range(N_QUERIES)]


@pytest.fixture
def planted(rng):
    """Pages, queries near to pages 0 to 11, and which page answers which query."""
    pages = unit(rng.normal(size=(N_PAGES, WIDTH))).astype(np.float32)
    queries = unit(pages[:N_QUERIES] + 0.3 * rng.normal(size=(N_QUERIES, WIDTH))).astype(np.float32)
    return queries, pages, Relevance.of(np.arange(N_QUERIES), n_pages=N_PAGES)


def served(name, queries, pages, calls=None):
    vectors = queries if isinstance(queries, np.ndarray) else [queries.item(row) for row in range(len(queries))]
    by_text = dict(zip(TEXTS, vectors, strict=True))

    def encode_query(text):
        if calls is not None:
            calls.append((name, text))
        return by_text[text]

    return ServedVectors(name, queries, pages, encode_query, lambda number: (calls or []).append((name, number)))


def found(*numbers):
    return [Found(page_point(number), 1.0, {}) for number in numbers]


def test_columns_are_those_that_were_asked_for():
    assert ",".join(COLUMNS[: len(ISSUED)]) == (
        "system,representation,dtype,vectors_per_page,width,bytes_per_page_raw,bytes_on_disk,build_seconds,search_p50_ms,"
        "search_p95_ms,qps,recall_at_10_vs_exact,ndcg_at_5,encode_query_p50_ms,encode_page_p50_ms"
    )


@needs_edge
def test_an_engine_whose_graph_is_not_built_is_not_timed(tmp_path, planted):
    _, pages, _ = planted
    engine = open_engine("qdrant-edge", tmp_path / "raw", Space(WIDTH))
    engine.upsert([page_point(number) for number in range(N_PAGES)], pages)
    with pytest.raises(
        ServingError, match="must hold 60 points with all vectors in its graph .*it holds 60, of which 0"
    ):
        refuse_unindexed(engine, N_PAGES)
    engine.optimize()
    refuse_unindexed(engine, N_PAGES)
    with pytest.raises(ServingError, match="must hold 61 points"):
        refuse_unindexed(engine, N_PAGES + 1)
    engine.close()


def test_without_the_engine_nothing_is_measured(tmp_path, planted, monkeypatch):
    monkeypatch.setattr(cost, "default_kind", lambda: "exact")
    with pytest.raises(ServingError, match=r"qdrant-edge, which is not installed; pip install 'miner-diag\[serving\]'"):
        build(tmp_path, Space(WIDTH), planted[1])


@needs_edge
def test_ndcg_of_what_an_engine_finds_is_that_of_exact_search(tmp_path, planted):
    queries, pages, relevance = planted
    engine, seconds = build(tmp_path, Space(WIDTH), pages)
    expected = ndcg_of_vectors(queries, pages, relevance, 5)
    assert np.allclose(ndcg_of(engine, list(queries), relevance, exact=True), expected.values)
    assert 0 < expected.values.mean() < 1.01 and seconds > 0
    shifted = Relevance.of(np.arange(N_QUERIES) + 30, n_pages=N_PAGES)  # the negative control: other pages answer
    assert ndcg_of(engine, list(queries), shifted, exact=True).mean() < expected.values.mean() / 2
    engine.close()


@needs_edge
def test_rows_of_one_vector_a_page(planted):
    queries, pages, relevance = planted
    system = served("backbone", queries, pages)
    system.encode_ms["query"] += [1.0, 3.0, 8.0]
    rows, ndcg = measure_vectors_cost([system], Representation("whole"), relevance, TEXTS, 15)
    assert [row["search"] for row in rows] == ["exact", "approximate"]
    exact, approximate = rows
    assert exact["bytes_per_page_raw"] == 4 * WIDTH and exact["bytes_on_disk"] >= 4 * WIDTH * N_PAGES
    assert exact["recall_at_10_vs_exact"] == 1.0 and 0.9 <= approximate["recall_at_10_vs_exact"] <= 1.0
    assert exact["encode_query_p50_ms"] == 3.0 and np.isnan(exact["encode_page_p50_ms"])
    assert exact["ndcg_at_5"] == ndcg["backbone", "exact"].mean()
    assert set(ndcg) == {("backbone", "exact"), ("backbone", "approximate")}
    assert exact["n_pages"] == N_PAGES and exact["label"] == MEASURED
    for row in rows:
        assert 0 < row["search_p50_ms"] <= row["search_p95_ms"] and row["qps"] > 0 and row["qps_end_to_end"] > 0
    half, halved = measure_vectors_cost([system], Representation("first half", 2), relevance, TEXTS, 5)
    assert half[0]["width"] == WIDTH // 2 and half[0]["bytes_per_page_raw"] == 2 * WIDTH
    cut = ndcg_of_vectors(queries[:, : WIDTH // 2], pages[:, : WIDTH // 2], relevance, 5)
    assert np.allclose(halved["backbone", "exact"], cut.values)


@needs_edge
@pytest.mark.parametrize(
    ("quantization", "size", "dtype"), [("int8", 1, "int8, rescored"), ("binary", 1 / 8, "binary, rescored")]
)
def test_rows_of_compressed_vectors(planted, quantization, size, dtype):
    queries, pages, relevance = planted
    rows, _ = measure_vectors_cost(
        [served("backbone", queries, pages)], Representation("whole", 1, quantization), relevance, TEXTS, 5
    )
    (row,) = rows
    assert (row["search"], row["dtype"], row["bytes_per_page_raw"]) == ("approximate", dtype, WIDTH * size)


@needs_edge
def test_rows_of_more_pages_are_synthetic_and_have_no_ndcg(planted):
    queries, pages, relevance = planted
    rows, ndcg = measure_vectors_cost(
        [served("backbone", queries, pages)], Representation("whole"), relevance, TEXTS, 5, n_pages=300
    )
    assert ndcg == {} and all("ndcg_at_5" not in row for row in rows)
    assert {(row["n_pages"], row["label"]) for row in rows} == {(300, SYNTHETIC)}


@needs_edge
def test_systems_are_searched_in_turns_and_each_has_its_own_numbers(planted):
    queries, pages, relevance = planted
    calls = []
    systems = [served("backbone", queries, pages, calls), served("reversed", -queries, pages, calls)]
    rows, ndcg = measure_vectors_cost(systems, Representation("whole"), relevance, TEXTS, 3)
    assert [(row["system"], row["search"]) for row in rows] == [
        ("backbone", "exact"),
        ("reversed", "exact"),
        ("backbone", "approximate"),
        ("reversed", "approximate"),
    ]
    assert ndcg["backbone", "exact"].mean() > 0.5 > ndcg["reversed", "exact"].mean()
    one_round = ["backbone", "reversed", "reversed", "backbone", "backbone", "reversed"]
    assert [name for name, _ in calls] == one_round * cost.ROUNDS * 2


@needs_edge
@pytest.mark.parametrize(("stored_as", "size"), [("float32", 4), ("float16", 2)])
def test_rows_of_late_interaction(rng, stored_as, size):
    pages = token_vectors(rng, N_PAGES, WIDTH)
    queries = token_vectors(rng, N_QUERIES, WIDTH)
    relevance = Relevance.of(np.arange(N_QUERIES), n_pages=N_PAGES)
    (row,), ndcg = measure_tokens_cost(served("late", queries, pages), stored_as, relevance, TEXTS, 5)
    assert row["vectors_per_page"] == pages.lengths.mean()
    assert row["bytes_per_page_raw"] == pages.lengths.mean() * WIDTH * size
    assert row["bytes_on_disk"] >= row["bytes_per_page_raw"] * N_PAGES
    assert len(ndcg["late", "exact"]) == N_QUERIES


def test_recall_by_hand():
    """Two of three, then one of two: (2/3 + 1/2) / 2."""
    truth = [found(1, 2, 3), found(4, 5)]
    assert recall([found(3, 9, 1), found(5, 7)], truth) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert [page_number(hit) for hit in found(0, 15, 10**6)] == [0, 15, 10**6]


def test_copies_are_near_their_page_and_not_the_same(planted, rng):
    pages = planted[1]
    many = jittered(pages, 200, rng)
    assert many.shape == (200, WIDTH) and many.dtype == np.float32 and np.array_equal(many[:N_PAGES], pages)
    assert np.allclose(np.linalg.norm(many, axis=1), 1, atol=1e-6)
    cosines = (many[N_PAGES:] * pages[np.arange(140) % N_PAGES]).sum(axis=1)
    assert 0.9 < cosines.min() and cosines.max() < 0.999, "noise of length 0.3 leaves a cosine of about 0.96"
    assert len(np.unique(many, axis=0)) == 200
    with pytest.raises(ServingError, match="must be larger than the data's own 60 pages; got 60"):
        jittered(pages, 60, rng)


def test_queries_a_second_are_those_of_the_fastest_round():
    """Two rounds of two searches: 4 + 6 ms make 200 a second, 1 + 1 ms make 1,000; the median is of all four."""
    columns = cost.search_columns([[4.0, 6.0], [1.0, 1.0]])
    assert columns["qps"] == 1000 and columns["search_p50_ms"] == 2.5
    assert columns["search_p95_ms"] == pytest.approx(np.percentile([4, 6, 1, 1], 95))


def test_encoding_is_timed_in_a_turning_order(planted):
    queries, pages, _ = planted
    calls = []
    systems = [served(name, queries, pages, calls) for name in "abc"]
    time_encoding(systems, TEXTS[:4], [0, 1])
    assert [name for name, what in calls if what == TEXTS[3]][3:] == [
        "a",
        "b",
        "c",
    ]  # turned three times: a is first again
    assert [name for name, what in calls if what == TEXTS[1]][3:] == ["b", "c", "a"]
    assert all(len(system.encode_ms["query"]) == 4 and len(system.encode_ms["page"]) == 2 for system in systems)


def test_ratios_of_encoding_are_taken_item_by_item(planted, monkeypatch):
    """The second system takes twice the first's time at each item; the machine is slow at the second item."""
    queries, pages, _ = planted
    first, second = served("first", queries, pages), served("second", queries, pages)
    taken = iter([1.0, 2.0, 20.0, 10.0, 3.0, 6.0, 5.0, 10.0])
    monkeypatch.setattr(cost, "_ms", lambda do: next(taken))
    time_encoding([first, second], TEXTS[:3], [0])
    assert second.encode_ms["query"] == [2.0, 20.0, 6.0]
    assert second.encode_ratios == {"encode_query_to_backbone": 2.0, "encode_page_to_backbone": 2.0}
    assert first.encode_ratios == {"encode_query_to_backbone": 1.0, "encode_page_to_backbone": 1.0}


def row(system, search="approximate", representation="whole", dtype="float32", n_pages=10, label=MEASURED, **more):
    numbers = {"bytes_per_page_raw": 100.0, "bytes_on_disk": 2000, "search_p50_ms": 2.0, "qps": 400.0, "ndcg_at_5": 0.5}
    numbers |= {"encode_query_p50_ms": 10.0, "encode_page_p50_ms": 20.0, "qps_end_to_end": 50.0}
    facts = {"system": system, "search": search, "representation": representation, "dtype": dtype, "n_pages": n_pages}
    return {**facts, "label": label, **numbers, **more}


@pytest.fixture
def table():
    rows = [
        row("backbone", "exact", search_p50_ms=4.0),
        row("backbone"),
        row("miner", encode_query_p50_ms=10.5, qps=380.0),
        row("backbone", n_pages=1000, label=SYNTHETIC, ndcg_at_5=np.nan, search_p50_ms=8.0),
        row("miner", n_pages=1000, label=SYNTHETIC, ndcg_at_5=np.nan, search_p50_ms=16.0),
        row("late", "exact", "late interaction", bytes_per_page_raw=4200.0, search_p50_ms=100.0),
        row("late", "exact", "late interaction", n_pages=7),
    ]
    return with_ratios(rows, "backbone")


def test_ratios_are_to_the_backbone_over_as_many_pages_searched_alike(table):
    assert list(table.columns) == list(COLUMNS)
    assert table["search_p50_to_backbone"].tolist()[:6] == [1, 1, 1, 1, 2, 25]
    assert table.loc[2, "encode_query_to_backbone"] == 1.05 and table.loc[2, "qps_to_backbone"] == 0.95
    assert table.loc[5, "bytes_per_page_to_backbone"] == 42
    assert np.isnan(table.loc[6, "search_p50_to_backbone"]), "no backbone was searched over 7 pages"


def test_closing_lines_say_the_numbers_of_the_table(table):
    lines = cost_lines(table, "miner")
    assert "10.50 ms, 1.050 of the backbone's 10.00 ms" in lines[0]
    assert "4,200 bytes a page, 42 times the backbone's, 100.0 ms a search" in lines[1]
    assert "published, not run here" in lines[-1]


def test_published_rows_are_the_papers_and_say_so():
    rows = published_costs()
    assert rows["qps"].tolist() == [15.41, 14.36, 2.75]
    assert rows["bytes_on_disk"].tolist() == pytest.approx([22.24e6, 22.24e6, 943.38e6])
    assert rows["ndcg_at_5"].tolist() == [0.533, 0.552, 0.576]
    assert rows["label"].str.startswith(f"{LABEL}: AAAAA-Academia-Attractions").all()


@pytest.mark.parametrize(("against", "marks"), [("bytes_per_page_raw", 3), ("qps", 4)])
def test_figures_show_what_was_measured_on_the_data(table, against, marks):
    """Exact and approximate search read the same bytes; synthetic and published rows are on no figure."""
    shown = pd.concat([table.iloc[:6], published_costs().reindex(columns=table.columns)], ignore_index=True)
    (ax,) = cost_of_serving_figure(shown, against, title="a title").axes
    drawn = [line for line in ax.lines if len(line.get_xdata())]
    assert len(drawn) == marks
    assert ax.get_ylabel() == "nDCG@5" and "per" in ax.get_xlabel() and ax.get_xscale() == "log"
    assert {text.get_text() for text in ax.figure.legends[0].get_texts()} >= {"backbone", "miner", "late"}
