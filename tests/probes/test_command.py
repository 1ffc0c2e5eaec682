"""The command from end to end, on a folder of PDFs and a small checkpoint."""

from __future__ import annotations

import contextlib
import io
import json
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file

from miner_diag.backbones import LoadOptions, load_backbone
from miner_diag.backbones.text_encoder import TextEncoder
from miner_diag.corpus import load_corpus
from miner_diag.embeddings.bm25_reference import rank_texts
from miner_diag.probes import ProbeStack
from miner_diag.probes.__main__ import main
from miner_diag.probes.plots import probe_figure
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
    "ratio.csv",
    "probes.svg",
    "salience.svg",
    "ratio.svg",
}


def arguments(checkpoint, documents, out, store, *more):
    fixed = ["--model", str(checkpoint), "--pooling", "mean", "--device", "cpu", "--reader", "text-layer"]
    quick = ["--epochs", "2", "--batch-size", "16", "--n-seeds", "2", "--resamples", "5", "--queries", "verbatim"]
    return [*fixed, *quick, "--data", str(documents), "--out", str(out), "--store", str(store), *more]


@pytest.fixture(scope="module")
def first(checkpoint, documents, tmp_path_factory, cache_of_session, one_thread):
    folder, printed, embedded = tmp_path_factory.mktemp("runs"), io.StringIO(), []
    prepare = TextEncoder.prepare
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("MINER_DIAG_CACHE", str(cache_of_session))
        patch.setattr(
            TextEncoder,
            "prepare",
            lambda backbone, items, side: (embedded.extend(items), prepare(backbone, items, side))[1],
        )
        main(arguments(checkpoint, documents, folder / "probes", folder / "store"))
        open_figures = plt.get_fignums()
    out = folder / "probes"
    return SimpleNamespace(
        out=out,
        store=folder / "store",
        embedded=embedded,
        open_figures=open_figures,
        printed=printed.getvalue(),
        checkpoint=checkpoint,
        run=json.loads((out / "run.json").read_text()),
        table=pd.read_csv(out / "probes.csv"),
        selection=json.loads((out / "selection.json").read_text()),
    )


def test_writes_what_it_promises_and_nothing_else(first):
    assert {path.name for path in first.out.iterdir()} == FILES
    for picture in first.out.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20


def test_table_has_a_row_for_each_layer_and_kind(first):
    table = first.table
    assert tuple(table.columns)[-len(COLUMNS) :] == COLUMNS
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
        of_probe = records[(records["system"] == row.kind) & (records["layer"] == row.layer)]
        of_probe = of_probe[(of_probe["measure"] == "ndcg_at_5") & of_probe["query_id"].notna()]
        per_query = of_probe["value"]
        assert per_query.mean() == pytest.approx(row.validation_ndcg_at_5, abs=1e-12)
        assert len(per_query) == first.run["n_queries"]


def test_bm25_stands_beside_the_probes_on_the_validation_queries(first, documents):
    part = load_corpus(documents, queries="verbatim").split("validation")
    ranked, _ = rank_texts(part)
    values, table = ranked[0].ndcg.values, first.table
    for column in ("bm25_ndcg_at_5", "bm25_text_read_ndcg_at_5"):  # the retriever reads all
        assert table[column].to_numpy() == pytest.approx(np.full(8, values.mean()))
        assert (table[f"{column}_low"] <= table[column]).all() and (table[column] <= table[f"{column}_high"]).all()
    records = [record for record in read_records(first.out / "records.jsonl") if record.model == "bm25"]
    assert [record.value for record in records] == pytest.approx([values.mean(), *values])
    assert f"For orientation: BM25 reaches nDCG@5 {values.mean():.4f} [" in first.printed
    assert [text.get_text() for text in probe_figure(table).axes[0].texts] == [
        f"BM25, text layer ({values.mean():.3f})"
    ]


def test_probes_are_saved_for_this_backbone(first):
    backbone = load_backbone(
        LoadOptions(model=str(first.checkpoint), pooling="mean", reader="text-layer", device="cpu")
    )
    stack = ProbeStack.load(first.out / "probes.safetensors", backbone.key())
    saved = load_file(first.out / "salience.safetensors")
    assert {name: array.shape for name, array in saved.items()} == {
        "base": (4, 32),
        "normalized_projection": (4, 32),
    }
    np.testing.assert_allclose(saved["base"], stack.gates[:, 0] ** 2, rtol=1e-6)


def test_only_train_and_validation_are_read(first, documents):
    assert first.run["corpus_part"] == "validation" and first.run["train"]["corpus_part"] == "train"
    corpus = load_corpus(documents, queries="verbatim")
    embedded = {getattr(item, "page_id", None) or item.query_id for item in first.embedded}
    allowed = {
        item_id
        for part in (corpus.split("train"), corpus.split("validation"))
        for item_id in (*(page.page_id for page in part.pages), *(query.query_id for query in part.queries))
    }
    assert embedded == allowed


def test_run_json_holds_what_was_used(first):
    options = first.run["options"]
    assert options["study"]["training"]["epochs"] == 2 and options["n_seeds"] == first.run["n_seeds"] == 2
    assert options["load"]["model"] == str(first.checkpoint) and options["statistics"]["seed"] == 0
    assert first.run["intervals_over"] in ("documents", "items")


def test_selection_says_how_sure_it_is_and_that_it_is_too_good(first):
    chosen = first.selection
    assert chosen["selected_layers"][-1] == 3
    assert (chosen["resamples"], chosen["seeds"], len(chosen["selected_by_seed"])) == (5, 2, 2)
    assert "too good" in chosen["caution"]
    assert len(chosen["random_labels"]["frequency"]) == 4


def test_the_terminal_says_whether_the_ratio_could_have_told_and_what_comes_next(first, documents):
    assert "The alignment ratio names the preferred kind at" in first.printed
    assert "false negatives" in first.printed and "Kept:" in first.printed
    last = first.printed.splitlines()[-1]
    assert last == (
        f"next: python -m miner_diag.fusion --model {first.checkpoint} --pooling mean --reader text-layer --device cpu "
        f"--data {documents} --queries verbatim --store {first.store} --probes {first.out}"
    )


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
    readings = [f"alignment_ratio_{name}" for name in ("page_final", "query_page")]
    readings += [f"{name}_centred" for name in readings]
    assert list(rule["reading"].unique()) == readings and (rule["reading"].value_counts() == 58).all()
    assert "Another reading, alignment_ratio_page_final_centred:" in first.printed


def test_no_figure_is_left_open(first):
    assert first.open_figures == []


def refuse(*given):
    raise AssertionError("the backbone ran although all items are in the store")


@pytest.fixture(scope="module")
def again(first, documents, tmp_path_factory, cache_of_session):
    """A second run from the first one's store, read row by row, in a process that draws with another backend."""
    out, before = tmp_path_factory.mktemp("runs") / "again", mpl.get_backend()
    plt.switch_backend("svg")
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            patch.setenv("MINER_DIAG_CACHE", str(cache_of_session))
            patch.setattr(TextEncoder, "embed_kept", refuse)
            main(arguments(first.checkpoint, documents, out, first.store, "--memory-gb", "1e-9"))
        return SimpleNamespace(out=out, backend=mpl.get_backend())
    finally:
        plt.switch_backend(before)


def test_a_second_run_reuses_the_store_and_gives_the_same_numbers(first, again):
    for name in ("probes.csv", "probes.safetensors", "selection.json", "records.jsonl", "controls.csv"):
        assert (again.out / name).read_bytes() == (first.out / name).read_bytes(), name


def test_the_plotting_backend_of_the_caller_stays(again):
    """A notebook that fits probes goes on to draw its own figures."""
    assert again.backend == "svg"


@pytest.fixture
def quick(monkeypatch):
    """Leave out of the stage what costs most here and is looked at in the first run."""
    monkeypatch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
    return ["--no-controls"]


def test_seed_and_confidence_are_those_of_the_command_line(first, documents, tmp_path, quick):
    out = tmp_path / "other"
    with contextlib.redirect_stdout(io.StringIO()):
        main(arguments(first.checkpoint, documents, out, first.store, "--seed", "5", "--confidence", "0.5", *quick))
    table, records = pd.read_csv(out / "probes.csv"), read_records(out / "records.jsonl")
    assert (table["raw_ndcg_at_5"] == first.table["raw_ndcg_at_5"]).all()
    assert (table["high"] - table["low"] < first.table["high"] - first.table["low"] + 1e-12).all()
    assert {record.seed for record in records if record.model != "bm25"} == {5}
    assert {record.confidence for record in records if record.low is not None} == {0.5}
    stacks = [ProbeStack.load(folder / "probes.safetensors") for folder in (first.out, out)]
    assert np.abs(stacks[0].weights - stacks[1].weights).max() > 0


def test_each_half_of_a_dual_encoder_is_probed_by_itself(first, documents, tmp_path, monkeypatch, quick, capsys):
    monkeypatch.setattr(TextEncoder, "shared_layers", False)
    out = tmp_path / "halves"
    main(arguments(first.checkpoint, documents, out, first.store, *quick))
    printed = capsys.readouterr().out
    assert "next:" not in printed  # the fusion is built for one stack of layers
    for side in ("query", "page"):
        assert {path.name for path in (out / side).iterdir()} == FILES
        assert f"layers of its {side} encoder, each probed against the final embedding of the other" in printed
        table = pd.read_csv(out / side / "probes.csv")
        assert table[f"alignment_ratio_{side}_final"].iloc[-1] == pytest.approx(1, abs=1e-9)
        assert table["alignment_ratio_query_page"].isna().all()
        run = json.loads((out / side / "run.json").read_text())
        assert run["side"] == side and f"probes of the {side} encoder" in run["seconds_by_stage"]
        records = read_records(out / side / "records.jsonl")
        assert {record.side for record in records if record.model != "bm25"} == {side}
        # the final layer alone is what the retriever is, whichever side is probed
        raw = table["raw_ndcg_at_5"].iloc[-1]
        assert raw == pytest.approx(first.table["raw_ndcg_at_5"].iloc[-1], abs=1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n-seeds", "0"], "n_seeds must be at least 1; got 0"),
        (["--resamples", "0"], "resamples must be at least 1; got 0"),
        (["--confidence", "1"], "confidence must be between 0 and 1"),
        (["--split", "validation"], "--split"),
        (["--sweep"], "--sweep"),
        (["--memory-gb", "0"], "memory_gb must be above 0"),
        (["--rank", "99"], "rank must be at most the width, 32; got 99"),
        (["--rule", "top_k", "--top-k", "9"], "top_k must be at most the number of layers, 4; got 9"),
    ],
)
def test_bad_options_end_with_a_sentence(first, documents, tmp_path, more, message, capsys):
    with pytest.raises((SystemExit, ValueError)) as ended:
        main(arguments(first.checkpoint, documents, tmp_path / "bad", first.store, *more))
    assert message in str(ended.value) + capsys.readouterr().err
