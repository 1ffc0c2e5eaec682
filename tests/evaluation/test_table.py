"""Tables and records say what the comparison says, and sentences what they say."""

import numpy as np
import pandas as pd
import pytest

from miner_diag.evaluation.table import difference_words, evaluation_records, fusion_sentences
from miner_diag.records import read_records, write_records
from tests.evaluation.helpers import N_DOCUMENTS, N_QUERIES, compare, small_corpus, systems_of, table_of

OTHERS = [("no_bias", "variant", 0.15), ("oracle_layer", "bound", 0.5)]

ABLATION_COLUMNS = (
    "system,split,ndcg_at_5,low,high,difference_to_backbone,difference_low,difference_high,p_holm,verdict,relative,"
    "difference_to_head,head_difference_low,head_difference_high,head_p_holm,head_verdict,n_parameters,seconds,n_seeds,"
    "what"
).split(",")
"""What the ablation had before it moved to this stage."""


def test_a_row_holds_its_comparison():
    systems = systems_of(others=OTHERS)
    comparison, table = compare(systems), table_of(systems)
    assert list(table["system"]) == ["backbone", "final_layer_mlp", "fusion", "no_bias", "oracle_layer"]
    for row, system in zip(table.itertuples(), comparison.systems, strict=True):
        assert row.ndcg_at_5 == system.value and (row.low, row.high) == (system.interval.low, system.interval.high)
    fusion, row = comparison["m: fusion"], table.set_index("system").loc["fusion"]
    assert row["difference_to_backbone"] == fusion.to_backbone.value
    assert (row["p_value"], row["p_holm"]) == (fusion.to_backbone.p_value, fusion.to_backbone.p_holm)
    assert (row["head_p_value"], row["head_p_holm"]) == (fusion.to_head.p_value, fusion.to_head.p_holm)
    assert row["relative"] == pytest.approx(0.2 / 0.302)
    assert (row["backbone"], row["head"], row["family"], row["head_family"]) == (
        "m",
        "final_layer_mlp",
        "headline",
        "headline",
    )
    assert (row["verdict"], row["head_verdict"]) == ("better", "better")
    assert set(table["n_documents"]) == {N_DOCUMENTS} and set(table["n_queries"]) == {N_QUERIES}
    np.testing.assert_allclose(table["effective_documents"], N_DOCUMENTS)  # all of one size


def test_columns_are_those_of_the_ablation_and_more():
    table = table_of(systems_of(others=OTHERS))
    assert set(ABLATION_COLUMNS) <= set(table.columns)
    assert {"data", "queries", "model", "role", "p_value", "family", "n_documents", "effective_documents"} <= set(
        table.columns
    )
    bound = table.set_index("system").loc["oracle_layer"]
    assert bound[["difference_to_backbone", "p_value", "p_holm", "family", "verdict", "n_seeds"]].isna().all()


def test_records_hold_every_query_of_every_seed(tmp_path):
    systems, corpus = systems_of(others=OTHERS, late=0.7), small_corpus()
    write_records(tmp_path / "records.jsonl", evaluation_records(compare(systems), systems, corpus, seed=3))
    records = pd.DataFrame([vars(record) for record in read_records(tmp_path / "records.jsonl")])
    rows = records[records["query_id"].notna() & (records["measure"] == "ndcg_at_5")]
    counts = rows.groupby(["model", "system"]).size()
    assert counts["m", "backbone"] == N_QUERIES and counts["m", "fusion"] == 2 * N_QUERIES
    assert counts["m-late", "late"] == N_QUERIES
    for system in systems:
        of_system = rows[(rows["model"] == system.model) & (rows["system"] == system.name)]
        assert of_system["value"].mean() == pytest.approx(system.ndcg.mean())
        assert set(of_system["seed"].dropna()) == {seed for seed in system.seeds if seed is not None}
    means = records[records["query_id"].isna()].set_index(["model", "system", "measure"])
    row, fusion = means.loc["m", "fusion", "ndcg_at_5_less_backbone"], compare(systems)["m: fusion"].to_backbone
    assert (row["value"], row["p_value"]) == (fusion.value, fusion.p_value)
    assert (row["n_clusters"], row["effective_clusters"]) == (N_DOCUMENTS, pytest.approx(N_DOCUMENTS))
    assert means.loc["m", "fusion", "ndcg_at_5"]["seed"] == 3  # the seed of the bootstrap
    assert means.loc["m-late", "late", "page_bytes_mean"]["value"] == 1000.0


def test_sentences_say_difference_p_value_family_and_verdict():
    systems = systems_of(others=OTHERS)
    lines = fusion_sentences(compare(systems), systems, "the test split of planted")
    assert len(lines) == 4
    assert lines[0].startswith("On the test split of planted, fusion reaches nDCG@5 0.5020 [")
    assert "+66.2% relative, p 0.0078, p Holm 0.0156 in the family headline: better." in lines[0]
    assert "Compared with final_layer_mlp, a head on the final layer alone" in lines[1]
    assert lines[2].endswith("is reached on the test split of planted.")
    assert lines[3].startswith("An oracle that picks the best layer for each query would reach 0.80")


def test_how_large_a_difference_can_be_found_stands_beside_it():
    systems = systems_of(others=[("no_bias", "variant", 0.0)])
    comparison, table = compare(systems), table_of(systems).set_index("system")
    variant = comparison["m: no_bias"].to_backbone
    assert variant.detectable > 0 and table.loc["no_bias", "detectable"] == variant.detectable
    assert table.loc["no_bias", "head_detectable"] == comparison["m: no_bias"].to_head.detectable
    assert np.isnan(table.loc["backbone", "detectable"])
    assert np.isnan(table.loc["fusion", "detectable"])  # it gains the same at every query
    words = difference_words(variant)
    assert words.endswith(
        f"not distinguishable (a true one of {variant.detectable:.4f} would be found 80% of the time)"
    )
    assert difference_words(comparison["m: fusion"].to_backbone).endswith("in the family headline: better")
    records = [r for r in evaluation_records(comparison, systems, small_corpus()) if r.query_id is None]
    told = {r.measure: r.value for r in records if r.system == "no_bias"}
    assert told["ndcg_at_5_less_backbone_detectable"] == variant.detectable
    assert "ndcg_at_5_less_backbone_detectable" not in {r.measure for r in records if r.system == "fusion"}


def test_the_target_needs_both_comparisons_and_the_size():
    for gain in (0.001, -0.1):
        systems = systems_of(gain=gain)
        assert "is not reached" in fusion_sentences(compare(systems), systems, "test")[2]


def test_several_retrievers_are_named():
    systems = [*systems_of("a"), *systems_of("b", gain=-0.1)]
    lines = fusion_sentences(compare(systems), systems, "test", several=True)
    assert lines[0].startswith("On test, a, fusion reaches") and lines[3].startswith("On test, b, fusion reaches")
    assert lines[3].endswith("worse.")


def test_a_backbone_alone_has_no_sentence_on_a_fusion():
    systems = systems_of()[:1]
    assert fusion_sentences(compare(systems), systems, "test") == []
    assert table_of(systems)["p_value"].isna().all()
