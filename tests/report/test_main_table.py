"""The main table: runs of several stages on the same queries, or a refusal."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.report import ReportError, cost_figure, main_table
from miner_diag.report.__main__ import main

N, DOCUMENTS = 40, 8


@pytest.fixture
def corpus():
    documents = [f"d{number % DOCUMENTS}" for number in range(N)]
    return Corpus(
        "planted",
        "hidden",
        0,
        tuple(Page(f"p{i}", documents[i], i + 1, "", f"h{i}") for i in range(N)),
        tuple(Query(f"q{i}", f"query {i}", "given", documents[i]) for i in range(N)),
        {f"q{i}": {f"p{i}": 1} for i in range(N)},
        dict.fromkeys(documents, "test"),
        renderer=lambda page, side: None,
        part="test",
    )


@pytest.fixture
def write_fusion(tmp_path, corpus):
    def write(model="m", gain=0.2, width=16, base=0.3, revision=None, queries=N):
        folder = tmp_path / f"fusion-{model}"
        folder.mkdir(exist_ok=True)
        run = {
            "command": "miner_diag.fusion",
            "corpus_revision": revision or corpus.revision,
            "head": "final_layer_mlp",
        }
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "fusion.json").write_text(json.dumps({"width": width}))
        wanted = {"backbone": 0.0, "final_layer_mlp": gain / 2, "fusion": gain, "no_bias": 9.0}
        lines = [
            {
                "model": model,
                "split": split,
                "measure": f"{name}_ndcg_at_5",
                "query_id": f"q{i}",
                "value": base + more + 0.001 * (i % 5) + (5.0 if split == "validation" else 0.0),
            }
            for split in ("validation", "test")
            for name, more in wanted.items()
            for i in range(queries)
        ]
        (folder / "per_query.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return write


@pytest.fixture
def write_late(tmp_path, corpus):
    def write(model="m-late", value=0.7):
        folder = tmp_path / f"late-{model}"
        folder.mkdir()
        run = {"command": "miner_diag.late", "corpus_revision": corpus.revision, "pages": {"bytes_mean": 1000.0}}
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "records.jsonl").write_text(json.dumps({"model": model}) + "\n")
        table = pd.DataFrame({"query_id": [f"q{i}" for i in range(N)], "ndcg_at_5": value})
        table.sample(frac=1, random_state=0).to_csv(folder / "ndcg_per_query.csv", index=False)
        return folder

    return write


def test_rows_are_backbone_head_fusion_late_with_their_sizes(corpus, write_fusion, write_late):
    table = main_table(corpus, [write_fusion()], [write_late()])
    assert list(table["system"]) == ["m", "m, final layer mlp", "m, fused", "m-late"]
    assert list(table["kind"]) == ["backbone", "head", "fusion", "late"]
    assert list(table["bytes_per_page"]) == [64.0, 64.0, 64.0, 1000.0]
    np.testing.assert_allclose(table["ndcg_at_5"], [0.302, 0.402, 0.502, 0.7])  # validation is not mixed in
    np.testing.assert_allclose(table["difference_to_backbone"][1:], [0.1, 0.2, 0.398])
    np.testing.assert_allclose(table["relative"][1:], np.array([0.1, 0.2, 0.398]) / 0.302)
    assert table["difference_to_backbone"].isna().tolist() == [True, False, False, False]
    assert set(table["n_documents"]) == {DOCUMENTS} and set(table["n_queries"]) == {N}
    assert (table["p_holm"][1:] <= 3 * 2 / 2**DOCUMENTS + 1e-12).all()  # all documents agree: the least p there is


def test_each_backbone_is_the_measure_of_its_own(corpus, write_fusion, write_late):
    late = [write_late("other-late", 0.9), write_late("elsewhere", 0.8)]
    table = main_table(corpus, [write_fusion(), write_fusion("other", gain=-0.1, base=0.6)], late)
    assert list(table["system"]) == [
        "m",
        "m, final layer mlp",
        "m, fused",
        "elsewhere",
        "other",
        "other, final layer mlp",
        "other, fused",
        "other-late",
    ]
    found = table.set_index("system")
    assert found.loc["other, fused", "difference_to_backbone"] == pytest.approx(-0.1)
    assert found.loc["other-late", "difference_to_backbone"] == pytest.approx(0.9 - 0.602)
    assert found.loc["elsewhere", "model"] == "m"


def test_items_where_that_is_asked_for(corpus, write_fusion):
    table = main_table(corpus, [write_fusion()], intervals_over="items")
    assert table["n_documents"].isna().all()


def test_what_does_not_fit_is_refused(corpus, write_fusion, write_late, tmp_path):
    with pytest.raises(ReportError, match="at least one run, each of another backbone; got none"):
        main_table(corpus, [])
    folder = write_fusion()
    with pytest.raises(ReportError, match=r"each of another backbone; got \['m', 'm'\]"):
        main_table(corpus, [folder, folder])
    with pytest.raises(ReportError, match=r"is a run of miner_diag.late; expected one of miner_diag.fusion"):
        main_table(corpus, [write_late()])
    with pytest.raises(ReportError, match="is not there; the run in"):
        main_table(corpus, [tmp_path / "nowhere"])
    with pytest.raises(ReportError, match=r"judged on other pages or queries than planted \(test, hidden, fold 0\)"):
        main_table(corpus, [write_fusion(revision="abc")])
    with pytest.raises(ReportError, match="has scores of 39 queries, planted has 40; missing: q39"):
        main_table(corpus, [write_fusion(queries=N - 1)])


def test_the_picture_has_a_panel_per_form_and_full_marks_for_the_first_backbone(corpus, write_fusion):
    table = main_table(corpus, [write_fusion(), write_fusion("other")])
    both = pd.concat([table, table.assign(queries="verbatim")])
    figure = cost_figure(both, title="planted")
    assert [ax.get_title() for ax in figure.axes] == ["hidden queries", "verbatim queries"]
    marks = [container.lines[0] for container in figure.axes[0].containers]
    assert [mark.get_markerfacecolor() == mark.get_color() for mark in marks] == [True] * 3 + [False] * 3
    assert [mark.get_ydata()[0] for mark in marks] == pytest.approx(table["ndcg_at_5"].tolist())
    places = np.array([float(mark.get_xdata()[0]) for mark in marks])  # of one size, but side by side, about that size
    assert len(set(places)) == 6
    assert np.exp(np.log(places).mean()) == pytest.approx(table["bytes_per_page"].iloc[0])
    assert len(figure.legends[0].get_texts()) == 6


def test_marks_of_unlike_size_keep_their_place_and_of_like_size_stand_apart(corpus, write_fusion):
    table = main_table(corpus, [write_fusion()]).assign(bytes_per_page=[1000.0, 100_000.0, 104_000.0])
    places = [float(container.lines[0].get_xdata()[0]) for container in cost_figure(table).axes[0].containers]
    assert places[0] == 1000 and places[2] / places[1] == pytest.approx(1.2 * 1.04)


def test_the_command_writes_table_and_picture(corpus, write_fusion, write_late, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("miner_diag.report.__main__.load_corpus", lambda *args, **how: corpus)
    out = tmp_path / "report"
    main(["--fusion", str(write_fusion()), str(write_fusion("other")), "--late", str(write_late()), "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {"main_table.csv", "main_table.png", "run.json"}
    assert len(pd.read_csv(out / "main_table.csv")) == 7
    assert "m, fused" in capsys.readouterr().out
