"""``scores.csv``: a row for each system and metric, with the intervals of the comparison; and the records beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from miner_diag.corpus import Benchmark
from miner_diag.evaluation import Measures
from miner_diag.evaluation.scored_system import Ties, main_metric
from miner_diag.evaluation.scores import rows_per_query, score_records, score_systems, scores_table
from miner_diag.stats import StatisticsOptions
from tests.evaluation.helpers import N_QUERIES, compare, small_corpus, systems_of

COLUMNS = ["system", "data", "language", "n_queries", "n_pages", "metric", "value", "low", "high"]
TIES = Ties(0.25, 0.75, 0.5)


def with_metrics(systems):
    """The same systems with two more metrics, and ties of one of them."""
    return [
        replace(
            system,
            measures=Measures(
                {"ndcg_at_5": system.ndcg, "recall_at_5": system.ndcg**2, "map": 1 - system.ndcg}, {"map": TIES}
            ),
        )
        for system in systems
    ]


@pytest.fixture
def systems():
    return with_metrics(systems_of(others=[("no_bias", "variant", 0.15)]))


def documents_of(corpus):
    return [query.doc_id for query in corpus.queries]


def test_each_system_has_a_row_for_each_metric_with_its_mean_over_seeds_and_queries(systems):
    corpus = small_corpus()
    table = scores_table(score_systems(systems, corpus, documents_of(corpus), StatisticsOptions()), corpus)
    assert list(table.columns) == COLUMNS
    assert list(table["system"]) == [system.key for system in systems for _ in range(3)]
    assert set(table["language"]) == {""} and set(table["data"]) == {"planted"}
    assert set(table["n_queries"]) == set(table["n_pages"]) == {N_QUERIES}
    for row in table.itertuples():
        system = next(system for system in systems if system.key == row.system)
        assert row.value == pytest.approx(system.measures.values[row.metric].mean(), abs=1e-12)
        assert row.low <= row.value <= row.high


@pytest.mark.parametrize("by_document", [True, False])
def test_intervals_are_those_of_the_comparison(systems, by_document):
    corpus = small_corpus()
    comparison = compare(systems, corpus, by_document, seed=4, confidence=0.8)
    documents = documents_of(corpus) if by_document else None
    table = scores_table(score_systems(systems, corpus, documents, StatisticsOptions(seed=4, confidence=0.8)), corpus)
    rows = table[table["metric"] == "ndcg_at_5"].set_index("system")
    for system in comparison.systems:
        expected = system.value, system.interval.low, system.interval.high
        np.testing.assert_allclose(rows.loc[system.name, ["value", "low", "high"]].astype(float), expected, rtol=1e-12)


def test_languages_have_rows_of_their_own(systems):
    corpus = small_corpus()
    named = tuple(replace(q, language="english" if n % 4 else "french") for n, q in enumerate(corpus.queries))
    corpus = replace(corpus, queries=named)
    scores = score_systems(systems, corpus, documents_of(corpus), StatisticsOptions())
    table = scores_table(scores, corpus)
    assert len(table) == 2 * 3 * len(systems)
    rows = table[(table["system"] == systems[0].key) & (table["metric"] == "ndcg_at_5")].set_index("language")
    assert list(rows.index) == ["french", "english"] and list(rows["n_queries"]) == [10, 30]
    values = systems[0].ndcg[0]
    french = np.arange(N_QUERIES) % 4 == 0
    assert rows.loc["french", "value"] == pytest.approx(values[french].mean())
    assert rows.loc["english", "value"] == pytest.approx(values[~french].mean())
    measures = {
        record.measure for record in score_records(scores, systems, corpus, main="ndcg_at_5", seed=0, per_query=False)
    }
    assert measures == {"map_worst", "map_best", "map_tie_rate"}  # no mean over languages


def test_what_rests_on_one_document_has_no_interval(systems):
    corpus = small_corpus()
    one = replace(corpus, queries=corpus.queries[:1], qrels={"q0": corpus.qrels["q0"]})
    single = [replace(s, measures=Measures({name: v[:, :1] for name, v in s.measures.values.items()})) for s in systems]
    for documents in (["d0"], None):
        scores = score_systems(single, one, documents, StatisticsOptions())
        assert scores_table(scores, one)[["low", "high"]].isna().all(axis=None)
        records = list(score_records(scores, single, one, main="ndcg_at_5", seed=0, per_query=True))
        assert {(record.low, record.method) for record in records} == {(None, None)}


def test_records_hold_means_ties_and_single_queries(systems):
    corpus = small_corpus()
    scores = score_systems(systems, corpus, documents_of(corpus), StatisticsOptions())
    records = list(score_records(scores, systems, corpus, main="ndcg_at_5", seed=7, per_query=True))
    means = {(r.system, r.measure): r for r in records if r.query_id is None}
    assert {measure for _, measure in means} == {
        "recall_at_5",
        "map",
        *(f"map_{end}" for end in ("worst", "best", "tie_rate")),
    }
    variant = means["no_bias", "recall_at_5"]
    assert variant.value == pytest.approx((systems[3].ndcg ** 2).mean()) and variant.low < variant.value < variant.high
    assert variant.method == "bootstrap over documents and seeds" and variant.seed == 7
    assert tuple(means["fusion", f"map_{end}"].value for end in ("worst", "best", "tie_rate")) == TIES
    of_queries = [record for record in records if record.query_id is not None]
    assert len(of_queries) == rows_per_query(systems, "ndcg_at_5") == 2 * N_QUERIES * (1 + 3 * 2)
    one = next(r for r in of_queries if (r.system, r.measure, r.seed, r.query_id) == ("fusion", "map", 1, "q3"))
    assert one.value == pytest.approx(1 - systems[2].ndcg[1, 3])
    without = list(score_records(scores, systems, corpus, main="ndcg_at_5", seed=7, per_query=False))
    assert without == [record for record in records if record.query_id is None]


def test_a_data_set_of_a_benchmark_is_compared_by_its_metric():
    corpus = small_corpus()
    assert main_metric(corpus) == "ndcg_at_5"
    benchmark = Benchmark("ViDoRe V3", "Vidore3HrRetrieval", "ndcg_at_10", "")
    assert main_metric(replace(corpus, benchmark=benchmark)) == "ndcg_at_10"
