"""Several document splits judged together."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.fusion.pooled import SplitValues as Values
from miner_diag.fusion.pooled import judge_pooled, pool


def values(query_ids, documents, backbone, head, fusion):
    rows = {"backbone": [backbone], "head": head, "fusion": fusion}
    return Values(query_ids, documents, {name: np.array(table, dtype=np.float64) for name, table in rows.items()})


FIRST = values(["a", "b"], ["x", "y"], [0.2, 0.4], [[0.3, 0.4], [0.5, 0.4]], [[1.0, 0.5], [0.8, 0.5]])
SECOND = values(["b", "c"], ["y", "z"], [0.6, 0.0], [[0.6, 0.2], [0.8, 0.2]], [[0.7, 0.1], [0.9, 0.3]])


def test_a_query_of_several_splits_counts_once_with_its_mean():
    pooled, documents = pool([FIRST, SECOND])
    assert documents == ["x", "y", "z"]
    np.testing.assert_allclose(pooled["backbone"], [[0.2, 0.5, 0.0]])
    np.testing.assert_allclose(pooled["fusion"], [[1.0, 0.6, 0.1], [0.8, 0.7, 0.3]])


def test_one_split_is_itself():
    pooled, documents = pool([FIRST])
    assert documents == list(FIRST.documents)
    for name, found in pooled.items():
        np.testing.assert_allclose(found, FIRST.values[name])


def test_order_of_queries_and_splits_does_not_matter():
    turned = values(["b", "a"], ["y", "x"], [0.4, 0.2], [[0.4, 0.3], [0.4, 0.5]], [[0.5, 1.0], [0.5, 0.8]])
    one, _ = pool([FIRST, SECOND])
    other, documents = pool([SECOND, turned])
    order = [documents.index(name) for name in "xyz"]
    for name, found in one.items():
        np.testing.assert_allclose(found, other[name][:, order])


def many(rng, gain):
    query_ids, documents = [f"q{n}" for n in range(60)], [f"d{n // 3}" for n in range(60)]
    base = rng.random(60)
    head, fusion = (np.stack([base + shift + rng.normal(0, 0.02, 60) for _ in range(3)]) for shift in (0.01, gain))
    return values(query_ids, documents, base, head, fusion)


def test_the_fusion_is_held_against_backbone_and_head():
    rng = np.random.default_rng(0)
    judged = {j.name: j for j in judge_pooled([many(rng, 0.1), many(rng, 0.1)], rng)}
    assert judged["fusion"].to_backbone.value == pytest.approx(0.1, abs=0.02)
    assert judged["fusion"].to_head.value == pytest.approx(0.09, abs=0.02)
    assert judged["fusion"].verdict == judged["fusion"].verdict_to_head == "better"
    assert judged["fusion"].ndcg.n_clusters == 20 and judged["backbone"].to_backbone is None


def test_no_gain_beyond_the_head_is_not_made_one_by_pooling():
    rng = np.random.default_rng(1)
    judged = {j.name: j for j in judge_pooled([many(rng, 0.01) for _ in range(5)], rng)}
    assert judged["fusion"].verdict_to_head == "not distinguishable"


def test_intervals_over_queries_where_documents_are_too_few():
    rng = np.random.default_rng(0)
    judged = judge_pooled([many(rng, 0.1)], rng, by_document=False)
    assert judged[0].ndcg.n_clusters is None and judged[0].ndcg.n == 60


def test_refuses_splits_that_do_not_match():
    rng = np.random.default_rng(0)
    fewer = Values(SECOND.query_ids, SECOND.documents, {name: v[:1] for name, v in SECOND.values.items()})
    with pytest.raises(ValueError, match="same systems and seeds in every split"):
        judge_pooled([FIRST, fewer], rng)
    moved = Values(SECOND.query_ids, ["x", "z"], SECOND.values)
    with pytest.raises(ValueError, match="query b must have one document; got y and x"):
        judge_pooled([FIRST, moved], rng)
