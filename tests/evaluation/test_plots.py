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
    test = pd.DataFrame(rows, columns=names).assign(split="test", model="m", ndcg_at_5=0.5)
    return pd.concat([test, test.assign(split="validation", difference_to_backbone=9.0)])


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def test_the_forest_is_of_one_split_and_the_best_is_on_top(ablation):
    figure = ablation_figure(ablation, title="a title", caption="families and documents")
    (ax,) = figure.axes
    assert labels(ax.yaxis) == ["concat pca", "final layer head", "fusion"]  # from below
    points = [container.lines[0] for container in ax.containers]
    np.testing.assert_allclose([line.get_xdata()[0] for line in points], [-0.1, 0.02, 0.05])
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, True]
    ends = [container.lines[2][0].get_segments()[0][:, 0] for container in ax.containers]
    np.testing.assert_allclose(ends, [[-0.15, -0.05], [-0.01, 0.05], [0.02, 0.08]])
    assert figure.get_supxlabel() == "families and documents"


def test_what_is_far_off_stands_at_the_edge_with_its_number(ablation):
    ablation.loc[ablation["system"] == "concat_pca", "difference_to_backbone"] = -0.9
    (ax,) = ablation_figure(ablation).axes
    assert [text.get_text() for text in ax.texts] == ["-0.900"] and ax.get_xlim()[0] > -0.3


def test_a_run_that_is_told_by_a_long_path_leaves_room_for_what_is_drawn(ablation):
    ablation["system"] = ablation["system"].replace("fusion", f"fusion (/{'a-folder/' * 20})")
    figure = ablation_figure(ablation)
    figure.draw_without_rendering()  # Matplotlib warns where labels leave no room
    assert figure.axes[0].get_position().width > 0.4


def test_bm25_is_named_where_one_retriever_is_not(ablation):
    bm25 = {"system": "text layer", "role": "lexical", "model": "bm25", "difference_to_backbone": 0.1, "split": "test"}
    bm25 |= {"difference_low": 0.05, "difference_high": 0.15, "verdict": "better"}
    (ax,) = ablation_figure(pd.concat([ablation, pd.DataFrame([bm25])])).axes
    assert labels(ax.yaxis)[-2:] == ["fusion", "bm25, text layer"]


def test_systems_of_several_retrievers_are_named():
    table = table_of([*systems_of("a", others=[("no_bias", "variant", 0.1)]), *systems_of("b")])
    (ax,) = ablation_figure(table).axes
    assert set(labels(ax.yaxis)) == {f"{m}, {s}" for m in "ab" for s in ("final layer mlp", "fusion")} | {"a, no bias"}


def test_folds_are_relative_to_each_folds_backbone_and_end_with_all_together():
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
    rows, together = [*rows, bm25], [*together, bm25]  # it is in the tables, and has no panel
    (ax,) = folds_figure(pd.DataFrame(rows), pd.DataFrame(together)).axes
    head, miner, ours = ([*container.lines[0].get_ydata()] for container in ax.containers)
    np.testing.assert_allclose(miner, [0.1, 0.08, 0.05])
    np.testing.assert_allclose(ours, [0.15, 0.12, 0.075])
    np.testing.assert_allclose(head, [0.05, 0.04, 0.025])
    assert labels(ax.xaxis) == ["0", "1", "all"]


def test_the_forms_of_the_fusion_have_marks_of_their_own():
    rows = [
        {
            "queries": "hidden",
            "split": "test",
            "model": "m",
            "backbone": "m",
            "system": system,
            "role": role,
            "bytes_per_page": 1536.0,
            "ndcg_at_5": 0.4,
            "low": 0.3,
            "high": 0.5,
        }
        for system, role in (("backbone", "backbone"), ("miner", "fusion"), ("trained_maps", "fusion"))
    ]
    (ax,) = cost_figure(pd.DataFrame(rows)).axes
    markers = {container.get_label(): container.lines[0].get_marker() for container in ax.containers}
    assert len(markers) == 3 == len(set(markers.values()))


def test_differences_of_queries_are_drawn_from_the_largest_gain_to_the_largest_loss():
    table = pd.DataFrame({"query_id": list("abcde"), "difference": [0.0, -0.5, 0.25, 1.0, 0.0]})
    figure = query_differences_figure(table, "ndcg_at_10", (-0.2, 0.5), title="a title", caption="over documents")
    (ax,) = figure.axes
    gained, lost = ([(bar.get_x() + 0.5, bar.get_height()) for bar in bars] for bars in ax.containers)
    np.testing.assert_allclose(gained, [(0, 1.0), (1, 0.25)])
    np.testing.assert_allclose(lost, [(4, -0.5)])
    labels_of = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(labels_of) == ["1 of 5 queries lose", "2 of 5 queries gain", "mean +0.1500 [-0.2000, +0.5000]"]
    assert ax.get_ylabel() == "difference in nDCG@10" and figure.get_supxlabel() == "over documents"
    one_sided = query_differences_figure(table[table["difference"] > 0], "map", (0.1, 0.9))
    assert "0 of 2 queries lose" in [text.get_text() for text in one_sided.axes[0].get_legend().get_texts()]
    one_sided.draw_without_rendering()
