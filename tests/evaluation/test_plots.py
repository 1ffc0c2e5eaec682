"""The figures show what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from miner_diag.evaluation import ablation_figure, cost_figure, folds_figure, query_differences_figure
from tests.evaluation.helpers import systems_of, table_of


@pytest.fixture
def ablation():
    rows = [
        ("backbone", "backbone", None, None, None, ""),
        ("fusion", "fusion", 0.05, 0.02, 0.08, "better"),
        ("final_layer_head", "head", 0.02, -0.01, 0.05, "not distinguishable"),
        ("concat_pca", "baseline", -0.1, -0.15, -0.05, "worse"),
        ("oracle_layer", "bound", None, None, None, ""),
    ]
    names = ["system", "role", "difference_to_backbone", "difference_low", "difference_high", "verdict"]
    test = pd.DataFrame(rows, columns=names).assign(split="test", model="m", backbone="m", ndcg_at_5=0.5)
    return pd.concat([test, test.assign(split="validation", difference_to_backbone=9.0)])


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def values(ax):
    return [container.lines[0].get_xdata()[0] for container in ax.containers]


def test_the_forest_is_of_one_split_in_groups_that_are_always_the_same(ablation):
    figure = ablation_figure(ablation)
    (ax,) = figure.axes
    assert labels(ax.yaxis) == [  # from above
        "the two forms of the fusion",
        "fusion",
        "heads on the final layer alone",
        "head: the fusion's form",
        "simpler ways",
        "all layers joined, then PCA",
    ]
    points = [container.lines[0] for container in ax.containers]
    np.testing.assert_allclose(values(ax), [0.05, 0.02, -0.1])
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, True]
    ends = [container.lines[2][0].get_segments()[0][:, 0] for container in ax.containers]
    np.testing.assert_allclose(ends, [[0.02, 0.08], [-0.01, 0.05], [-0.15, -0.05]])
    other_way = ablation.iloc[::-1].assign(difference_to_backbone=lambda t: -t["difference_to_backbone"])
    assert labels(ablation_figure(other_way).axes[0].yaxis) == labels(ax.yaxis)


def test_what_is_far_off_stands_at_the_edge_with_its_number(ablation):
    ablation.loc[ablation["system"] == "concat_pca", "difference_to_backbone"] = -0.9
    (ax,) = ablation_figure(ablation).axes
    assert [text.get_text() for text in ax.texts] == ["-0.900"] and ax.get_xlim()[0] > -0.3


def test_a_run_that_is_told_by_a_long_path_leaves_room_for_what_is_drawn(ablation):
    ablation["system"] = ablation["system"].replace("fusion", f"fusion (/{'a-folder/' * 20})")
    figure = ablation_figure(ablation)
    figure.draw_without_rendering()  # Matplotlib warns where labels leave no room
    assert figure.axes[0].get_position().width > 0.25


def test_bm25_is_named_once_where_the_whole_text_was_read(ablation):
    bm25 = {"role": "lexical", "model": "bm25", "difference_to_backbone": 0.1, "split": "test", "backbone": "m"}
    bm25 |= {"difference_low": 0.05, "difference_high": 0.15, "verdict": "better"}
    two = pd.DataFrame([bm25 | {"system": "text layer"}, bm25 | {"system": "text read by m"}])
    (ax,) = ablation_figure(pd.concat([ablation, two])).axes
    assert labels(ax.yaxis)[-2:] == ["BM25, embeds nothing", "BM25, whole text"]
    two.loc[1, "difference_to_backbone"] = 0.09
    (ax,) = ablation_figure(pd.concat([ablation, two])).axes
    assert labels(ax.yaxis)[-1] == "BM25, text m read"


def test_retrievers_share_a_row_and_have_marks_of_their_own():
    table = table_of([*systems_of("a", others=[("no_bias", "variant", 0.1)]), *systems_of("b")])
    figure = ablation_figure(table)
    (ax,) = figure.axes
    markers = [container.lines[0].get_marker() for container in ax.containers]
    assert sorted(markers) == ["o", "o", "o", "s", "s"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


@pytest.fixture
def folds():
    rows = [
        {
            "model": "m",
            "fold": fold,
            "role": role,
            "system": system,
            "chosen": chosen,
            "difference_to_backbone": gain,
            "difference_low": gain - 0.01,
            "difference_high": gain + 0.01,
            "backbone_ndcg_at_5": 0.4 + 0.1 * fold,
        }
        for fold in (0, 1)
        for role, system, chosen, gain in (
            ("fusion", "miner", True, 0.04),
            ("fusion", "trained_maps", True, 0.06),
            ("head", "linear", True, 0.02),
            ("head", "mlp", False, 0.3),
        )
    ]
    together = [
        {
            "model": "m",
            "role": role,
            "system": system,
            "chosen": role != "backbone",
            "backbone_ndcg_at_5": 0.4,
            "difference_to_backbone": gain,
            "difference_low": gain - 0.01,
            "difference_high": gain + 0.01,
        }
        for role, system, gain in (
            ("fusion", "miner", 0.02),
            ("fusion", "trained_maps", 0.03),
            ("head", "head", 0.01),
            ("backbone", "backbone", 0.0),
        )
    ]
    bm25 = {**rows[0], "model": "bm25", "role": "lexical", "chosen": False, "difference_to_backbone": 0.9}
    return pd.DataFrame([*rows, bm25]), pd.DataFrame([*together, bm25])  # BM25 is in the tables, and has no panel


def test_folds_are_relative_to_each_folds_backbone_and_end_with_all_together(folds):
    (ax,) = folds_figure(*folds).axes
    head, miner, ours = ([*container.lines[0].get_ydata()] for container in ax.containers)
    np.testing.assert_allclose(miner, [0.1, 0.08, 0.05])
    np.testing.assert_allclose(ours, [0.15, 0.12, 0.075])
    np.testing.assert_allclose(head, [0.05, 0.04, 0.025])
    assert labels(ax.xaxis) == ["0", "1", "all"]


def test_the_legend_of_folds_is_in_the_order_of_the_marks_and_crosses_nothing(folds):
    figure = folds_figure(*folds)
    (ax,) = figure.axes
    names = ["best head on the final layer", "MINER", "ours"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names
    first = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert first == sorted(first)
    figure.draw_without_rendering()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


def test_a_split_that_one_retriever_lacks_leaves_its_place_empty(folds):
    own, together = (pd.concat([table, table.assign(model="n")], ignore_index=True) for table in folds)
    own = own[~(own["model"].eq("m") & own["fold"].eq(0))]
    first, _ = folds_figure(own, together).axes
    assert len(first.containers[0].lines[0].get_xdata()) == 2


def costs():
    rows = [
        {
            "data": "d",
            "queries": queries,
            "split": "test",
            "model": model,
            "backbone": None if role == "backbone" else "m",
            "system": system,
            "role": role,
            "bytes_per_page": size,
            "ndcg_at_5": 0.4,
            "difference_to_backbone": gain,
            "difference_low": None if gain is None else gain - 0.01,
            "difference_high": None if gain is None else gain + 0.01,
            "verdict": "better",
            "n_queries": 20,
        }
        for queries in ("hidden", "verbatim")
        for model, system, role, size, gain in (
            ("m", "backbone", "backbone", 1536.0, None),
            ("m", "miner", "fusion", 1536.0, 0.01),
            ("m", "trained_maps", "fusion", 1536.0, 0.02),
            ("m-late", "late", "late", 400_000.0, 0.3),
        )
    ]
    return pd.DataFrame(rows)


def test_every_system_stands_at_its_own_size_and_difference():
    axes = cost_figure(costs()).axes
    assert len(axes) == 6  # zoomed in, in full, and the size, for each form of queries
    zoom, full, size = axes[:3]
    assert labels(zoom.yaxis) == ["m 0.400", "MINER", "ours", "late interaction"]
    np.testing.assert_allclose(values(full), [0.01, 0.02, 0.3])
    np.testing.assert_allclose(values(zoom), [0.01, 0.02])
    assert [text.get_text() for text in zoom.texts] == ["+0.300"]  # beyond the panel, with its number
    assert [line.get_xdata()[0] for line in size.lines] == [1536, 1536, 1536, 400_000]
    assert size.get_xscale() == "log"
    assert [axes[n].get_title() for n in (1, 4)] == ["hidden queries, n = 20", "verbatim queries, n = 20"]


def test_a_system_of_unknown_size_keeps_its_row():
    table = costs()
    table.loc[table["role"] == "late", "bytes_per_page"] = None
    size = cost_figure(table).axes[2]
    assert [line.get_xdata()[0] for line in size.lines][:3] == [1536, 1536, 1536]


def test_differences_of_queries_are_drawn_from_the_largest_gain_to_the_largest_loss():
    table = pd.DataFrame({"query_id": list("abcde"), "difference": [0.0, -0.5, 0.25, 1.0, 0.0]})
    table = table.assign(metric="ndcg_at_10", mean_low=-0.2, mean_high=0.5, changed_name="a", baseline_name="b")
    figure = query_differences_figure(table.assign(n_documents=3))
    (ax,) = figure.axes
    said = [text.get_text() for text in ax.texts]
    assert said == ["2 gain", "1 lose", "mean +0.150 [-0.200, +0.500]; 2 queries unchanged"]
    gained, lost = (shade.get_paths()[0].vertices[:, 1] for shade in ax.collections)
    assert gained.max() == 1 and lost.min() == -0.5
    assert ax.get_ylabel() == "difference in nDCG@10" and figure.get_suptitle().startswith("a less b")
    assert "3 documents" in figure.get_supxlabel()
    one_sided = query_differences_figure(table[table["difference"] > 0])
    assert "0 lose" in [text.get_text() for text in one_sided.axes[0].texts]
    one_sided.draw_without_rendering()
