"""Several document splits evaluated together."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.evaluation import (
    EvaluationError,
    ScoredSystem,
    SplitValues,
    SystemValues,
    compare_systems,
    put_together,
)
from miner_diag.evaluation.document_splits import FoldScores, systems_together, together_table
from miner_diag.evaluation.scored_system import Measures, compare_scored
from miner_diag.stats import StatisticsOptions


def values(query_ids, documents, backbone, head, fusion):
    rows = {"backbone": [backbone], "head": head, "fusion": fusion}
    return SplitValues(query_ids, documents, {name: np.array(table, dtype=np.float64) for name, table in rows.items()})


FIRST = values(["a", "b"], ["x", "y"], [0.2, 0.4], [[0.3, 0.4], [0.5, 0.4]], [[1.0, 0.5], [0.8, 0.5]])
SECOND = values(["b", "c"], ["y", "z"], [0.6, 0.0], [[0.6, 0.2], [0.8, 0.2]], [[0.7, 0.1], [0.9, 0.3]])


def test_a_query_of_several_splits_counts_once_with_its_mean():
    together, documents = put_together([FIRST, SECOND])
    assert documents == ["x", "y", "z"]
    np.testing.assert_allclose(together["backbone"], [[0.2, 0.5, 0.0]])
    np.testing.assert_allclose(together["fusion"], [[1.0, 0.6, 0.1], [0.8, 0.7, 0.3]])


def test_one_split_is_itself():
    together, documents = put_together([FIRST])
    assert documents == list(FIRST.documents)
    for name, table in together.items():
        np.testing.assert_allclose(table, FIRST.values[name])


def test_order_of_queries_and_splits_does_not_matter():
    turned = values(["b", "a"], ["y", "x"], [0.4, 0.2], [[0.4, 0.3], [0.4, 0.5]], [[0.5, 1.0], [0.5, 0.8]])
    one, _ = put_together([FIRST, SECOND])
    other, documents = put_together([SECOND, turned])
    order = [documents.index(name) for name in "xyz"]
    for name, table in one.items():
        np.testing.assert_allclose(table, other[name][:, order])


def many(rng, gain):
    query_ids, documents = [f"q{n}" for n in range(60)], [f"d{n // 3}" for n in range(60)]
    base = rng.random(60)
    head, fusion = (np.stack([base + shift + rng.normal(0, 0.02, 60) for _ in range(3)]) for shift in (0.01, gain))
    return values(query_ids, documents, base, head, fusion)


def compare(splits, by_document=True):
    together, documents = put_together(splits)
    systems = [
        SystemValues("backbone", "backbone", together["backbone"]),
        SystemValues("head", "head", together["head"], "backbone"),
        SystemValues("fusion", "fusion", together["fusion"], "backbone", "head"),
    ]
    return compare_systems(systems, clusters=documents if by_document else None, statistics=StatisticsOptions())


def test_the_fusion_is_compared_with_backbone_and_head():
    rng = np.random.default_rng(0)
    result = compare([many(rng, 0.1), many(rng, 0.1)])
    fusion = result["fusion"]
    assert fusion.to_backbone.value == pytest.approx(0.1, abs=0.02)
    assert fusion.to_head.value == pytest.approx(0.09, abs=0.02)
    assert fusion.verdict == fusion.verdict_to_head == "better"
    assert result.n_documents == 20 and result["backbone"].to_backbone is None


def test_no_gain_beyond_the_head_is_not_made_one_by_more_splits():
    rng = np.random.default_rng(1)
    assert compare([many(rng, 0.01) for _ in range(5)])["fusion"].verdict_to_head == "not distinguishable"


def test_intervals_over_queries_where_documents_are_too_few():
    result = compare([many(np.random.default_rng(0), 0.1)], by_document=False)
    assert result.n_documents is None and result.n_queries == 60


def test_refuses_splits_that_do_not_match():
    fewer = SplitValues(SECOND.query_ids, SECOND.documents, {name: v[:1] for name, v in SECOND.values.items()})
    with pytest.raises(EvaluationError, match="every split must hold the same systems and seeds"):
        put_together([FIRST, fewer])
    moved = SplitValues(SECOND.query_ids, ["x", "z"], SECOND.values)
    with pytest.raises(EvaluationError, match="query b must have one document; got y and x"):
        put_together([FIRST, moved])


def fold_scores(part, rows):
    """Backbone, head and fusion of value 0.5, and BM25 over texts of these names and values [Q]."""
    flat = np.full((1, len(part.queries)), 0.5)
    made = [
        ("model", "backbone", "backbone", flat),
        ("model", "plain", "head", flat),
        ("model", "fused", "fusion", flat),
    ]
    made += [("bm25", name, "lexical", np.array([values])) for name, values in rows.items()]
    systems = tuple(
        ScoredSystem(
            *(
                model,
                "r",
                name,
                role,
                "",
                Measures({"ndcg_at_5": ndcg}),
                (None,),
                4,
                16.0,
                None if role == "backbone" else "model: backbone",
            ),
            head="model: plain" if role == "fusion" else None,
        )
        for model, name, role, ndcg in made
    )
    return FoldScores("model", "", part, systems)


def part_of(*names):
    pages = tuple(Page(name, f"d{name}", 1, "words", name) for name in names)
    queries = tuple(Query(f"q{name}", "words", "given", f"d{name}") for name in names)
    qrels = {f"q{name}": {name: 1} for name in names}
    return Corpus("tiny", "verbatim", 0, pages, queries, qrels, {p.doc_id: "test" for p in pages}, lambda *_: None)


READ = "text read by model"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # by hand: "b" is in both splits, so it counts with its mean
        ({"text layer": [0.1, 0.3]}, {"text layer": [0.5, 0.9]}, {"text layer": [0.1, 0.4, 0.9]}),
        # in the second split the retriever read the text layer as it is, so there is one row for both texts
        (
            {"text layer": [0.1, 0.3], READ: [0.0, 0.1]},
            {"text layer": [0.5, 0.9]},
            {"text layer": [0.1, 0.4, 0.9], READ: [0.0, 0.3, 0.9]},
        ),
        # scans in the second split: no text layer, so there is none over all of them
        ({"text layer": [0.1, 0.3], READ: [0.0, 0.1]}, {READ: [0.5, 0.9]}, {READ: [0.0, 0.3, 0.9]}),
        ({}, {}, {}),
    ],
)
def test_bm25_is_compared_with_the_backbone_over_all_splits(one, other, expected):
    folds = [fold_scores(part_of("a", "b"), one), fold_scores(part_of("b", "c"), other)]
    systems, documents = systems_together(folds)
    assert documents == ["da", "db", "dc"]
    lexical = {system.name: system for system in systems if system.role == "lexical"}
    assert lexical.keys() == expected.keys()
    comparison = compare_scored(systems, None, StatisticsOptions())
    table = together_table(folds, systems, comparison).set_index("system")
    for name, values in expected.items():
        np.testing.assert_allclose(lexical[name].ndcg, [values])
        assert table.loc[name, "difference_to_backbone"] == pytest.approx(np.mean(values) - 0.5)
