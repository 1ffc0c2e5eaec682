"""The command from end to end, on a folder of PDFs and a small checkpoint."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file

from miner_diag.backbones import load_backbone
from miner_diag.backbones.text_encoder import TextEncoder
from miner_diag.corpus import Corpus
from miner_diag.probes import ProbeStack
from miner_diag.probes.__main__ import main
from miner_diag.probes.table import COLUMNS
from miner_diag.records import read_records

FILES = {
    "probes.safetensors",
    "probes.csv",
    "salience.safetensors",
    "selection.json",
    "records.jsonl",
    "run.json",
    "rule.csv",
    "controls.csv",
    "concentration.csv",
    "probes.png",
    "salience.png",
    "ratio.png",
}


def _conftest_of(stage):
    path = Path(__file__).parents[1] / stage / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"{stage}_made_for_probes", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    made, words = _conftest_of("backbones"), _conftest_of("cka").WORDS
    made.WORDS = words
    folder = tmp_path_factory.mktemp("retrievers") / "small-bert"
    return made.save_tiny(folder, made.tiny_bert_config(initializer_range=0.2), max_length=48)


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Twenty handbooks of five pages, each page with a title in the outline."""
    made, words = _conftest_of("corpus"), _conftest_of("cka").WORDS
    folder = tmp_path_factory.mktemp("documents") / "handbooks"
    folder.mkdir()
    rng = np.random.default_rng(11)
    for number in range(20):
        pages, outline = [], []
        for page in range(5):
            topic = rng.permutation(words)[:9]
            lines = [" ".join(rng.permutation(topic)) for _ in range(3)]
            texts = [made.Text(" ".join(topic[:4]), y=760, size=18)]
            texts += [made.Text(line, y=700 - 40 * place) for place, line in enumerate(lines)]
            pages.append(made.PdfPage(tuple(texts)))
            outline.append((" ".join(topic[:4]), page))
        (folder / f"handbook-{number}.pdf").write_bytes(made.pdf_bytes(pages, outline))
    return folder


def arguments(checkpoint, documents, out, *more):
    fixed = ["--model", str(checkpoint), "--pooling", "mean", "--device", "cpu", "--reader", "text-layer"]
    quick = ["--epochs", "2", "--batch-size", "16", "--n-seeds", "2", "--resamples", "5", "--queries", "verbatim"]
    return [*fixed, *quick, "--data", str(documents), "--out", str(out), *more]


@pytest.fixture(scope="module")
def first(checkpoint, documents, tmp_path_factory, one_thread):
    out, told, parts = tmp_path_factory.mktemp("runs") / "probes", io.StringIO(), []
    split = Corpus.split
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setenv("MINER_DIAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr(
            Corpus, "split", lambda corpus, name: (name == "all" or parts.append(name), split(corpus, name))[1]
        )
        main(arguments(checkpoint, documents, out))
        open_figures = plt.get_fignums()
    return SimpleNamespace(
        parts=parts,
        out=out,
        open_figures=open_figures,
        told=told.getvalue(),
        checkpoint=checkpoint,
        run=json.loads((out / "run.json").read_text()),
        table=pd.read_csv(out / "probes.csv"),
        selection=json.loads((out / "selection.json").read_text()),
    )


def test_writes_what_it_promises_and_nothing_else(first):
    assert {path.name for path in first.out.iterdir()} == FILES | {"embeddings"}
    for picture in first.out.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20


def test_table_has_a_row_for_each_layer_and_kind(first):
    table = first.table
    assert tuple(table.columns) == COLUMNS
    assert table["layer"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (table["low"] <= table["validation_ndcg_at_5"]).all()
    assert (table["validation_ndcg_at_5"] <= table["high"]).all()
    base, projected = (table[table["kind"] == kind].reset_index() for kind in ("base", "normalized_projection"))
    difference = projected["validation_ndcg_at_5"] - base["validation_ndcg_at_5"]
    np.testing.assert_allclose(projected["difference_to_other_kind"], difference, atol=1e-12)
    for name, other in (("difference_to_other_kind",) * 2, ("difference_low", "difference_high")):
        np.testing.assert_allclose(base[name], -projected[other], atol=1e-12)
    assert table["selected"].iloc[-1] and table["selection_frequency"].iloc[-1] == 1.0
    assert table["alignment_ratio_page_final"].iloc[-1] == pytest.approx(1, abs=1e-9)


def test_means_are_those_of_the_records(first):
    records = pd.DataFrame([vars(record) for record in read_records(first.out / "records.jsonl")])
    for row in first.table.itertuples():
        mine = records[(records["measure"] == f"{row.kind}_ndcg_at_5") & (records["layer"] == row.layer)]
        per_query = mine[mine["query_id"].notna()]["value"]
        assert per_query.mean() == pytest.approx(row.validation_ndcg_at_5, abs=1e-12)
        assert len(per_query) == first.run["n_queries"]


def test_probes_are_saved_for_this_backbone(first):
    backbone = load_backbone(str(first.checkpoint), pooling="mean", reader="text-layer", device="cpu")
    stack = ProbeStack.load(first.out / "probes.safetensors", backbone.key())
    saved = load_file(first.out / "salience.safetensors")
    assert {name: array.shape for name, array in saved.items()} == {
        "base": (4, 32),
        "normalized_projection": (4, 32),
    }
    np.testing.assert_allclose(saved["base"], stack.gates[:, 0] ** 2, rtol=1e-6)


def test_only_train_and_validation_are_read(first):
    assert first.run["corpus_part"] == "validation" and first.run["train"]["corpus_part"] == "train"
    assert first.parts == ["train", "validation"]


def test_selection_says_how_sure_it_is_and_that_it_is_too_good(first):
    chosen = first.selection
    assert chosen["selected_layers"][-1] == 3
    assert (chosen["resamples"], chosen["seeds"], len(chosen["selected_by_seed"])) == (5, 2, 2)
    assert "too good" in chosen["caution"]
    assert len(chosen["random_labels"]["frequency"]) == 4


def test_the_terminal_says_whether_the_ratio_knew(first):
    assert "The alignment ratio names the preferred kind at" in first.told
    assert "false negatives" in first.told and "Kept:" in first.told


def test_controls_and_rule_are_tables(first):
    controls, rule = pd.read_csv(first.out / "controls.csv"), pd.read_csv(first.out / "rule.csv")
    assert set(controls["control"]) == {
        "shuffled_pairs",
        "start",
        "shuffled_training",
        "unaligned_true",
        "unaligned_shuffled",
        "embedding_layer_alone",
        "final_layer_alone",
    }
    rows = controls.set_index(["control", "kind", "layer"])
    before, after = rows.loc["start"]["ndcg_at_5"], rows.loc["shuffled_training"]
    np.testing.assert_allclose(after["over_start"], after["ndcg_at_5"] - before, atol=1e-12)
    assert ((after["over_start_low"] <= after["over_start"]) & (after["over_start"] <= after["over_start_high"])).all()
    raw = first.table[first.table["kind"] == "base"]["raw_ndcg_at_5"]
    np.testing.assert_allclose(before["base"], raw, atol=1e-12)  # a gate of 1 is the raw layer
    assert set(controls["kind"][controls["control"] == "unaligned_shuffled"]) == {"normalized_projection"}
    assert rule["threshold"].min() == 0.1 and rule["threshold"].max() == 1.5
    assert (rule["hits"] <= rule["decided_layers"]).all()


def test_no_figure_is_left_open(first):
    assert first.open_figures == []


@pytest.fixture(scope="module")
def again(first, documents, tmp_path_factory):
    """A second run from the first one's stores, read row by row, in a process that draws with another backend."""
    extraction = sys.modules["miner_diag.embeddings.extract"]  # the package has a function of that name
    out, before = tmp_path_factory.mktemp("runs") / "again", mpl.get_backend()
    stores = ["--embeddings", str(first.out / "embeddings")]
    plt.switch_backend("svg")
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            patch.setenv("MINER_DIAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
            patch.setattr(extraction, "embed_halving", None)  # a forward would fail
            main(arguments(first.checkpoint, documents, out, *stores, "--memory-gb", "1e-9"))
        return SimpleNamespace(out=out, backend=mpl.get_backend())
    finally:
        plt.switch_backend(before)


def test_a_second_run_reuses_the_stores_and_gives_the_same_numbers(first, again):
    for name in ("probes.csv", "probes.safetensors", "selection.json", "records.jsonl", "controls.csv"):
        assert (again.out / name).read_bytes() == (first.out / name).read_bytes(), name


def test_the_plotting_backend_of_the_caller_stays(again):
    """A notebook that fits probes goes on to draw its own figures."""
    assert again.backend == "svg"


def test_sweep_settles_one_option_after_the_other(first, documents, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("miner_diag.probes.sweep.PLAN", (("temperature", "both", (0.05, 0.1)),))
    monkeypatch.setattr("miner_diag.probes.sweep.NOISE", 0.0)
    stores = ["--embeddings", str(first.out / "embeddings")]
    main(arguments(first.checkpoint, documents, tmp_path / "sweep", *stores, "--sweep"))
    table = pd.read_csv(tmp_path / "sweep" / "sweep.csv")
    tried, seeds = (table[table["option"] == option] for option in ("temperature", "seed"))
    assert tried["value"].tolist() == [0.05, 0.1] and tried["settled"].sum() == 1
    assert tried["score"][tried["settled"]].item() == tried["score"].max() == seeds["score"].iloc[0]
    assert seeds["value"].tolist() == [0, 1, 2]


def test_each_of_two_towers_is_probed_by_itself(first, documents, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(TextEncoder, "shared_layers", False)
    stores = ["--embeddings", str(first.out / "embeddings"), "--no-controls"]
    main(arguments(first.checkpoint, documents, tmp_path / "towers", *stores))
    told = capsys.readouterr().out
    for side in ("query", "page"):
        out = tmp_path / "towers" / side
        assert {path.name for path in out.iterdir()} == FILES
        assert f"layers of the {side} tower, each probed against the final embedding of the other one" in told
        table = pd.read_csv(out / "probes.csv")
        assert table[f"alignment_ratio_{side}_final"].iloc[-1] == pytest.approx(1, abs=1e-9)
        assert table["alignment_ratio_query_page"].isna().all()
        assert json.loads((out / "run.json").read_text())["probed_tower"] == side
        # the final layer alone is what the retriever is, whichever side is probed
        raw = table["raw_ndcg_at_5"].iloc[-1]
        assert raw == pytest.approx(first.table["raw_ndcg_at_5"].iloc[-1], abs=1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n-seeds", "0"], "n_seeds and resamples must be at least 1"),
        (["--memory-gb", "0"], "memory_gb must be above 0"),
        (["--rank", "99"], "rank must be at most the width, 32; got 99"),
        (["--rule", "top_k", "--top-k", "9"], "top_k must be at most the number of layers, 4; got 9"),
    ],
)
def test_bad_options_end_with_a_sentence(first, documents, tmp_path, more, message, capsys):
    stores = ["--embeddings", str(first.out / "embeddings")]
    with pytest.raises((SystemExit, ValueError)) as ended:
        main(arguments(first.checkpoint, documents, tmp_path / "bad", *stores, *more))
    assert message in str(ended.value) + capsys.readouterr().err
