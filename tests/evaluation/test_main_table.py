"""The main table: backbones, chosen heads, fusions and late interaction, with the numbers of the comparison."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from miner_diag.evaluation import cost_figure, main_table
from tests.evaluation.helpers import N_DOCUMENTS, N_QUERIES, small_corpus, systems_of, table_of

OTHERS = [("final_layer_linear", "head", 0.05), ("no_bias", "variant", 0.15), ("oracle_layer", "bound", 0.5)]


def pairs(table):
    return list(table[["model", "system"]].itertuples(index=False, name=None))


def test_rows_are_backbone_head_fusion_late_with_their_sizes():
    comparison = table_of(systems_of(late=0.7, others=OTHERS))
    table = main_table(comparison)
    assert pairs(table) == [("m", "backbone"), ("m", "final_layer_mlp"), ("m", "fusion"), ("m-late", "late")]
    assert list(table["role"]) == ["backbone", "head", "fusion", "late"]
    assert list(table["bytes_per_page"]) == [64.0, 64.0, 64.0, 1000.0]
    np.testing.assert_allclose(table["ndcg_at_5"], [0.302, 0.402, 0.502, 0.7])
    np.testing.assert_allclose(table["difference_to_backbone"][1:], [0.1, 0.2, 0.398])
    np.testing.assert_allclose(table["relative"][1:], np.array([0.1, 0.2, 0.398]) / 0.302)
    assert table["difference_to_backbone"].isna().tolist() == [True, False, False, False]
    assert set(table["n_documents"]) == {N_DOCUMENTS} and set(table["n_queries"]) == {N_QUERIES}
    # all documents agree: the least p there is, and families of two
    np.testing.assert_allclose(table["p_value"][1:], 2 / 2**N_DOCUMENTS)
    assert list(table["family"][1:]) == ["context", "headline", "context"]
    np.testing.assert_allclose(table["p_holm"][1:], 4 / 2**N_DOCUMENTS)


def test_its_numbers_are_those_of_the_comparison():
    comparison = table_of([*systems_of(late=0.7, others=OTHERS), *systems_of("other", others=OTHERS, seed=1)])
    table = main_table(comparison)
    merged = table.merge(comparison, on=["model", "system"], suffixes=("", "_there"), validate="one_to_one")
    assert len(merged) == len(table) == 7
    for column in ("low", "high", "p_value", "p_holm", "difference_low", "head_p_value"):
        np.testing.assert_array_equal(merged[column], merged[f"{column}_there"])


def test_each_backbone_is_the_measure_of_its_own():
    systems = [*systems_of(), *systems_of("other", gain=-0.1, base=0.6, late=0.9)]
    table = main_table(table_of(systems))
    assert pairs(table) == [
        ("m", "backbone"),
        ("m", "final_layer_mlp"),
        ("m", "fusion"),
        ("other", "backbone"),
        ("other", "final_layer_mlp"),
        ("other", "fusion"),
        ("other-late", "late"),
    ]
    rows = table.set_index(["model", "system"])
    assert rows.loc[("other", "fusion"), "difference_to_backbone"] == pytest.approx(-0.1)
    assert rows.loc[("other-late", "late"), "difference_to_backbone"] == pytest.approx(0.9 - 0.602)
    assert rows.loc[("other-late", "late"), "backbone"] == "other"


def test_late_interaction_without_a_backbone_stands_alone():
    table = main_table(table_of([system for system in systems_of(late=0.7)[-1:] for system in [_alone(system)]]))
    assert pairs(table) == [("m-late", "late")] and table["p_value"].isna().all()


def _alone(system):
    from dataclasses import replace

    return replace(system, backbone=None)


def test_items_where_that_is_asked_for():
    table = main_table(table_of(systems_of(), by_document=False))
    assert table["n_documents"].isna().all() and table["effective_documents"].isna().all()


def test_the_picture_has_a_block_for_each_form_and_a_heading_for_each_backbone():
    systems = [*systems_of(), *systems_of("other")]
    tables = [main_table(table_of(systems, small_corpus(form=form))) for form in ("hidden", "verbatim")]
    figure = cost_figure(pd.concat(tables))
    zoom, full, size = figure.axes[:3]
    assert [figure.axes[number].get_title().split(",")[0] for number in (1, 4)] == [
        "hidden queries",
        "verbatim queries",
    ]
    labels = [tick.get_text().split(" 0.")[0] for tick in zoom.get_yticklabels()]
    assert labels == ["m", "best head on the final layer", "fusion", "other", "best head on the final layer", "fusion"]
    there = tables[0]["difference_to_backbone"].dropna()
    np.testing.assert_allclose([container.lines[0].get_xdata()[0] for container in full.containers], there)
    assert [line.get_xdata()[0] for line in size.lines] == tables[0]["bytes_per_page"].tolist()


def test_marks_stand_at_their_size():
    table = main_table(table_of(systems_of())).assign(bytes_per_page=[1000.0, 100_000.0, 104_000.0])
    assert [line.get_xdata()[0] for line in cost_figure(table).axes[2].lines] == [1000, 100_000, 104_000]
