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


def test_the_picture_has_a_panel_per_form_and_full_marks_for_the_first_backbone():
    systems = [*systems_of(), *systems_of("other")]
    tables = [main_table(table_of(systems, small_corpus(form=form))) for form in ("hidden", "verbatim")]
    table = tables[0]
    figure = cost_figure(pd.concat(tables), title="planted", caption="Intervals are over something.")
    assert [ax.get_title() for ax in figure.axes] == ["hidden queries", "verbatim queries"]
    marks = [container.lines[0] for container in figure.axes[0].containers]
    assert [mark.get_markerfacecolor() == mark.get_color() for mark in marks] == [True] * 3 + [False] * 3
    assert [mark.get_ydata()[0] for mark in marks] == pytest.approx(table["ndcg_at_5"].tolist())
    places = np.array([float(mark.get_xdata()[0]) for mark in marks])  # of one size, but side by side, about that size
    assert len(set(places)) == 6
    assert np.exp(np.log(places).mean()) == pytest.approx(table["bytes_per_page"].iloc[0])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "m",
        "m, final layer mlp",
        "m, fusion",
        "other",
        "other, final layer mlp",
        "other, fusion",
    ]
    assert "Intervals are over something." in figure.get_supxlabel()


def test_marks_of_unlike_size_keep_their_place_and_of_like_size_stand_apart():
    table = main_table(table_of(systems_of())).assign(bytes_per_page=[1000.0, 100_000.0, 104_000.0])
    places = [float(container.lines[0].get_xdata()[0]) for container in cost_figure(table).axes[0].containers]
    assert places[0] == 1000 and places[2] / places[1] == pytest.approx(1.2 * 1.04)
