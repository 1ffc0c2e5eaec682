"""The main table of public benchmarks: every kind of retriever, who measured it, and nothing that nobody measured."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from miner_diag.corpus.benchmark_sets import benchmark_names, benchmark_sets
from miner_diag.evaluation.averages import NOT_RUN
from miner_diag.evaluation.leaderboard import AUTHORS, KINDS, MEASURED, MTEB, leaderboard, leaderboard_figure
from miner_diag.evaluation.published import LABEL, read_published

EAGER, MOCA = "eagerworks/eager-embed-v1", "moca-embed/MoCa-Qwen25VL-3B"
BENCHMARKS = [[one.manifest for one in benchmark_sets(name)] for name in benchmark_names()]


def averages(*rows):
    columns = ["system", "benchmark", "metric", "value"]
    return pd.DataFrame([dict(zip(columns, row, strict=True)) for row in rows])


@pytest.fixture(scope="module")
def public():
    return read_published()


@pytest.fixture(scope="module")
def table(public):
    return leaderboard(public, BENCHMARKS)


def value(table, benchmark, kind, model, by):
    keys = {"benchmark": benchmark, "kind": kind, "model": model, "by": by}
    return table.loc[(table[list(keys)] == pd.Series(keys)).all(axis=1), "value"].item()


def test_every_kind_stands_in_its_place_and_every_number_says_whose_it_is(table):
    for _, rows in table.groupby("benchmark"):
        assert list(dict.fromkeys(rows["kind"])) == list(KINDS)
    assert set(table["of"]) == {LABEL, NOT_RUN}
    assert (table["value"].isna() == table["of"].eq(NOT_RUN)).all()
    assert set(table.loc[table["of"].eq(LABEL), "by"]) == {AUTHORS, MTEB}
    assert not table.duplicated(["benchmark", "kind", "model", "by"]).any()


def test_the_papers_numbers_and_the_public_ones_stand_side_by_side(table):
    """57.20 and 49.25 are what the reference for this project computed; the others are the authors' page."""
    assert value(table, "ViDoRe V2", "backbone", EAGER, MTEB) == pytest.approx(57.20, abs=5e-3)
    assert value(table, "ViDoRe V3", "backbone", EAGER, MTEB) == pytest.approx(49.25, abs=5e-3)
    assert value(table, "ViDoRe V2", "backbone", EAGER, AUTHORS) == 56.0
    assert value(table, "ViDoRe V2", "+ miner", EAGER, AUTHORS) == 58.5
    assert value(table, "ViDoRe V2", "late interaction", "jinaai/jina-embeddings-v4", AUTHORS) == 57.6
    assert value(table, "ViDoRe V3", "+ miner", MOCA, AUTHORS) == 49.5
    of_authors = table[table["by"].eq(AUTHORS)]
    assert of_authors["kind"].value_counts().to_dict() == {"backbone": 9, "+ miner": 9, "late interaction": 1}


def test_ours_fill_their_cells_and_a_model_of_ones_own_gets_rows(public):
    ours = averages(
        ("eager-embed-v1: backbone", "ViDoRe V2", "ndcg_at_5", 0.571),
        ("eager-embed-v1: miner", "ViDoRe V2", "ndcg_at_5", 0.58),
        ("eager-embed-v1: miner", "ViDoRe V2", "ndcg_at_10", 0.9),  # not the benchmark's metric
        ("mine: trained_maps", "ViDoRe V2", "ndcg_at_5", 0.4),
        ("mine-late: late", "ViDoRe V2", "ndcg_at_5", 0.6),
        ("mine: no_bias", "ViDoRe V2", "ndcg_at_5", 0.3),
        ("mine: backbone", "ViDoRe V2", "ndcg_at_5", None),
    )
    table = leaderboard(public, BENCHMARKS[1:2], ours)
    own = table[table["of"].eq(MEASURED)].set_index(["kind", "model"])["value"]
    assert own.to_dict() == {
        ("backbone", EAGER): pytest.approx(57.1),
        ("+ miner", EAGER): pytest.approx(58.0),
        ("+ trained_maps", "mine"): pytest.approx(40.0),
        ("late interaction", "mine"): pytest.approx(60.0),
    }
    left = table[table["of"].eq(NOT_RUN)]
    assert len(left) == 7 and EAGER not in set(left.loc[left["kind"].isin(["backbone", "+ miner"]), "model"])


def test_the_figure_draws_every_number_once(table):
    figure = leaderboard_figure(table)
    drawn = sum(len(line.get_xdata()) for ax in figure.axes for line in ax.lines if line.get_marker() in ("o", "|"))
    assert drawn == table["value"].notna().sum()
    assert [ax.get_xlabel().split(":")[0] for ax in figure.axes] == ["ViDoRe V1", "ViDoRe V2", "ViDoRe V3"]
    plt.close(figure)
