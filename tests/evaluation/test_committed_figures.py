"""The committed tables agree: one system, on the same queries, has one interval and one p value, wherever it stands."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

FIGURES = Path(__file__).parents[2] / "figures"
KEY = ["data", "queries", "split", "fold", "folds", "model", "system", "backbone"]
"""What a number is of. `fold` stands in tables of document splits, `folds` in that of several splits together; BM25 is
compared with several backbones there."""
COMPARED = [
    "ndcg_at_5",
    "low",
    "high",
    "difference_to_backbone",
    "difference_low",
    "difference_high",
    "p_value",
    "difference_to_head",
    "head_difference_low",
    "head_difference_high",
    "head_p_value",
]
"""What must be the same. p_holm is not among them: it belongs to the family of its table."""
NEEDED = {"data", "queries", "split", "model", "system", "backbone", "ndcg_at_5", "low", "high", "p_value", "family"}


def read_tables():
    """Every committed table of compared systems, by the name of its file."""
    tables = {}
    for path in sorted(FIGURES.glob("0[45]_*.csv")):
        table = pd.read_csv(path, dtype={"folds": str})
        if {"system", "low", "high"} <= set(table.columns):
            tables[path.name] = table
    return tables


TABLES = read_tables()


def keyed(table):
    defaults = {name: table.get(name, default) for name, default in (("fold", 0), ("folds", ""))}
    return table.assign(**defaults, backbone=table["backbone"].fillna("")).set_index(KEY)


def indexed(table):
    return keyed(table)[[column for column in COMPARED if column in table.columns]]


def test_there_are_tables_to_compare():
    assert "05_main_table.csv" in TABLES
    assert sum(name.startswith("04_ablation_") for name in TABLES) >= 2


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_its_numbers_are_of(name):
    missing = NEEDED - set(TABLES[name].columns)
    assert not missing, f"figures/{name} lacks {sorted(missing)}; make it anew from the evaluation's tables"
    assert indexed(TABLES[name]).index.is_unique


def test_the_same_system_has_the_same_interval_and_p_value_in_every_table():
    outdated = [name for name, table in TABLES.items() if NEEDED - set(table.columns)]
    assert not outdated, f"nobody can tell whether these agree with other tables: {', '.join(outdated)}"
    for (one, left), (other, right) in itertools.combinations(((n, indexed(t)) for n, t in TABLES.items()), 2):
        shared = left.index.intersection(right.index)
        columns = [column for column in left.columns if column in right.columns]
        pd.testing.assert_frame_equal(
            left.loc[shared, columns].astype(float),
            right.loc[shared, columns].astype(float),
            rtol=1e-9,
            atol=1e-12,
            obj=f"what figures/{one} and figures/{other} share",
        )


@pytest.mark.parametrize("name", [name for name in TABLES if name.startswith("04_ablation_")])
def test_the_main_table_holds_backbone_head_fusion_and_bm25_of_the_ablation(name):
    if NEEDED - set(TABLES[name].columns) or NEEDED - set(TABLES["05_main_table.csv"].columns):
        pytest.fail(f"figures/{name} or figures/05_main_table.csv has the columns of an earlier version")
    ablation, main = TABLES[name], indexed(TABLES["05_main_table.csv"])
    shared = ablation[ablation["split"] == "test"].pipe(indexed).index.intersection(main.index)
    roles = keyed(ablation).loc[shared, "role"]
    assert roles[roles != "lexical"].sort_values().tolist() == ["backbone", "fusion", "fusion", "head"]
    assert roles.eq("lexical").any()


@pytest.mark.parametrize("form", ["hidden", "verbatim"])
def test_differences_of_the_forms_are_of_the_systems_of_all_splits_together(form):
    differences = pd.read_csv(FIGURES / f"04_differences_{form}.csv").set_index("system")
    together = TABLES[f"04_folds_together_{form}.csv"].set_index("system")
    shared = differences.index.intersection(together.index)
    assert {"backbone", "head", "miner", "trained_maps"} <= set(shared)
    for column in ("ndcg_at_5", "low", "high"):
        pd.testing.assert_series_equal(differences.loc[shared, column], together.loc[shared, column], rtol=1e-9)
