"""Averages: languages first, then sets, all of them or none; the paper's numbers beside ours, labelled."""

from types import SimpleNamespace

import pandas as pd
import pytest

from miner_diag.corpus.benchmark_sets import benchmark_names, benchmark_sets
from miner_diag.evaluation.averages import NOT_RUN, average_scores, paper_table, published_averages
from miner_diag.evaluation.published import read_published

TWO = [
    SimpleNamespace(name="a", benchmark="ViDoRe V3", metric="ndcg_at_10", languages=("french", "english"), task="A"),
    SimpleNamespace(name="b", benchmark="ViDoRe V3", metric="ndcg_at_10", languages=("english",), task="B"),
]


def scores(*rows):
    columns = ["system", "data", "language", "metric", "value", "n_queries"]
    return pd.DataFrame([dict(zip(columns, row, strict=True)) for row in rows])


ROWS = (
    ("m: backbone", "a", "french", "ndcg_at_10", 0.2, 1000),
    ("m: backbone", "a", "english", "ndcg_at_10", 0.4, 10),
    ("m: backbone", "b", "english", "ndcg_at_10", 0.9, 500),
    ("m: backbone", "b", "english", "recall_at_5", 0.1, 500),
)


def test_languages_come_first_then_sets_and_no_queries_are_counted():
    table = average_scores(scores(*ROWS), TWO).set_index("metric")
    row = table.loc["ndcg_at_10"]
    assert row["value"] == pytest.approx(((0.2 + 0.4) / 2 + 0.9) / 2)
    assert row["value"] != pytest.approx((0.2 + 0.4 + 0.9) / 3)  # neither rows
    assert row["value"] != pytest.approx((0.2 * 1000 + 0.4 * 10 + 0.9 * 500) / 1510)  # nor queries weigh alike
    assert row["main"] and not table.loc["ndcg_at_5", "main"]
    assert (row["n_sets"], row["of_sets"]) == (2, 2)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_language_or_a_set_that_is_missing_leaves_the_average_empty(missing):
    rows = [row for number, row in enumerate(ROWS) if number != missing]
    row = average_scores(scores(*rows), TWO).set_index("metric").loc["ndcg_at_10"]
    assert pd.isna(row["value"]) and row["n_sets"] == 1


def test_the_shipped_benchmarks_have_the_public_sets_that_their_papers_name():
    assert benchmark_names() == ("vidore-v1", "vidore-v2", "vidore-v3")
    sets = {name: benchmark_sets(name) for name in benchmark_names()}
    assert {name: len(of_name) for name, of_name in sets.items()} == {"vidore-v1": 10, "vidore-v2": 4, "vidore-v3": 8}
    metrics = {name: {one.manifest.metric for one in of_name} for name, of_name in sets.items()}
    assert metrics == {"vidore-v1": {"ndcg_at_5"}, "vidore-v2": {"ndcg_at_5"}, "vidore-v3": {"ndcg_at_10"}}
    assert benchmark_sets("sample") == benchmark_sets("vidore-v3-hr") == ()


def test_public_runs_are_averaged_as_the_leaderboard_does():
    """Sums of what mteb's results hold; 57.20 and 49.25 are what the reference for this project computed from them."""
    public = read_published()
    for name, metric, expected in (("vidore-v2", "ndcg_at_5", 57.20), ("vidore-v3", "ndcg_at_10", 49.25)):
        manifests = [one.manifest for one in benchmark_sets(name)]
        table = published_averages(public, manifests, metric)
        of_eager = table[table["model"].eq("eagerworks/eager-embed-v1") & table["kind"].eq("single")]
        assert of_eager["value"].item() == pytest.approx(expected, abs=0.006)
        assert table["value"].is_monotonic_decreasing


def test_the_papers_table_has_our_cells_beside_it_and_says_where_nothing_was_run():
    rows = [
        {"system": f"eager-embed-v1: {system}", "benchmark": "ViDoRe V3", "metric": metric, "value": value}
        for system, metric, value in (
            ("backbone", "ndcg_at_10", 0.4925),
            ("backbone", "ndcg_at_5", 0.9),
            ("miner", "ndcg_at_10", None),
        )
    ]
    table = paper_table(pd.DataFrame(rows), read_published()).set_index(["model", "benchmark"])
    row = table.loc[("eagerworks/eager-embed-v1", "ViDoRe(v3)")]
    assert (row["published_backbone"], row["published_miner"]) == (47.6, 48.8)
    assert (row["backbone"], row["miner"], row["trained_maps"]) == ("49.2", NOT_RUN, NOT_RUN)
    others = table.drop(index=[("eagerworks/eager-embed-v1", "ViDoRe(v3)")])
    assert (others[["backbone", "miner", "trained_maps", "late"]] == NOT_RUN).all(axis=None) and len(others) == 8
