"""The command from end to end: a folder of PDFs and a small checkpoint in, tables, records and figures out."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from miner_diag import __version__
from miner_diag.cka import linear_cka
from miner_diag.cka.__main__ import main
from miner_diag.embeddings import open_store
from miner_diag.records import read_records

FILES = ("layers.csv", "cka_matrix_page.csv", "records.jsonl", "run.json", "layers.png", "cka_matrix.png")
REPEATABLE = ("layers.csv", "cka_matrix_page.csv", "records.jsonl")


def arguments(checkpoint, documents, out, *more):
    fixed = ["--model", str(checkpoint), "--pooling", "mean", "--device", "cpu", "--reader", "text-layer"]
    return [*fixed, "--data", str(documents), "--split", "all", "--out", str(out), *more]


@pytest.fixture(scope="module")
def first(checkpoints, documents, tmp_path_factory):
    """One run that most tests look at."""
    out = tmp_path_factory.mktemp("runs") / "cka"
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setenv("MINER_DIAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        main(arguments(checkpoints.small, documents, out))
        open_figures = plt.get_fignums()
    return SimpleNamespace(
        out=out,
        told=told.getvalue(),
        open_figures=open_figures,
        run=json.loads((out / "run.json").read_text()),
        layers=pd.read_csv(out / "layers.csv"),
        records=read_records(out / "records.jsonl"),
    )


@pytest.fixture
def copied(first, tmp_path):
    """A run's folder that a test may write to."""
    return shutil.copytree(first.out, tmp_path / "run")


def content(folder, names=FILES):
    return {name: (folder / name).read_bytes() for name in names}


def test_writes_what_it_promises_and_nothing_else(first):
    assert {path.name for path in first.out.iterdir()} == {*FILES, "embeddings"}


def test_layers_csv_has_a_row_for_each_hidden_state(first):
    assert first.layers["layer"].tolist() == [0, 1, 2, 3]
    assert (first.layers["n_pages"] == 35).all() and (first.layers["n_queries"] == 35).all()
    final = first.layers.iloc[-1]
    assert final["cka_page_final"] == pytest.approx(1) and final["alignment_ratio_page_final"] == pytest.approx(1)
    assert first.layers["cosine_page_final"].notna().all()  # all layers of one encoder have one width
    assert not first.layers.drop(columns=["probe_kind"]).isna().all().any()


def test_numbers_are_those_of_the_stored_embeddings(first):
    """What is in the table can be computed again from what is in the store, by anybody."""
    pages = open_store(first.out / "embeddings" / "pages")
    queries = open_store(first.out / "embeddings" / "queries")
    assert pages.shape == queries.shape == (35, 4, 32)
    page_of = [pages.ids.index(query_id.rpartition("/")[0]) for query_id in queries.ids]
    for row in first.layers.itertuples():
        x, y = pages.layer_embeddings[:, row.layer], pages.layer_embeddings[:, -1]
        assert row.cka_page_final == pytest.approx(linear_cka(x, y), abs=1e-9)
        mine = queries.layer_embeddings[:, row.layer]
        assert row.cka_query_page == pytest.approx(linear_cka(mine, x[page_of]), abs=1e-9)
        scores = unit(mine) @ unit(x).T
        own = scores[np.arange(35), page_of]
        rank = 1 + (scores > own[:, None] + 1e-12).sum(1)
        assert row.ndcg_at_5 == pytest.approx(np.where(rank <= 5, 1 / np.log2(rank + 1), 0).mean(), abs=1e-6)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_words_that_query_and_page_share_are_found_by_the_embedding_layer(first):
    """The pages repeat their title's words, so a bag of words retrieves; a diagnosis that sees nothing is broken."""
    assert first.layers["ndcg_at_5_low"][0] > 3 * first.run["chance_ndcg_at_5"]
    assert first.layers["retrieval_aligned"][0]


def test_matrix_is_layers_by_layers_and_agrees_with_the_table(first):
    matrix = pd.read_csv(first.out / "cka_matrix_page.csv", index_col="layer")
    assert matrix.shape == (4, 4) and list(matrix.index) == [0, 1, 2, 3] and list(matrix.columns) == list("0123")
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    np.testing.assert_allclose(matrix["3"], first.layers["cka_page_final"], atol=1e-4)


def test_records_name_model_data_and_split_and_every_query(first):
    record = first.records[0]
    assert (record.model, record.dataset, record.split, record.d) == ("small-bert", "handbooks", "all", 32)
    assert record.model_revision == first.run["backbone"]["backbone_revision"]
    ids = {record.query_id for record in first.records if record.query_id is not None}
    assert ids == set(open_store(first.out / "embeddings" / "queries").ids)
    for record in first.records:
        if record.query_id is None:
            assert record.n is not None, record
        assert math.isfinite(record.value)
    table = {record.layer: record.value for record in first.records if record.measure == "anisotropy_page"}
    np.testing.assert_allclose([table[layer] for layer in range(4)], first.layers["anisotropy_page"])


def test_run_json_says_what_ran_on_what_and_what_it_cost(first, checkpoints, documents):
    run = first.run
    assert run["command"] == "miner_diag.cka"
    assert run["package_version"] == __version__
    assert "commit" in run
    assert all(run["libraries"][name] for name in ("numpy", "torch", "transformers", "pypdfium2"))
    options = run["options"]
    assert options["model"] == str(checkpoints.small) and options["data"] == str(documents)
    assert (options["split"], options["seed"], options["estimator"], options["limit"]) == ("all", 0, "debiased", None)
    told = json.dumps(run)
    assert '"cpu' in told and "float32" in told  # device and dtype
    assert run["backbone"]["dtype"] == "float32"
    assert re.fullmatch("[0-9a-f]{64}", run["corpus_revision"])
    assert run["seconds"] > 0 and run["peak_memory_mb"] > 50
    assert sum(run["seconds_by_stage"].values()) == pytest.approx(run["seconds"], abs=0.5)
    assert len(run["noise_floor"]["max_relative_difference"]) == 4
    assert max(run["noise_floor"]["max_relative_difference"]) < 1e-4
    assert list(run["skipped"]) == ["broken"] and run["skipped"]["broken"]
    assert (run["n_queries"], run["n_pages"], run["n_pairs"]) == (35, 35, 35)
    assert len(run["sentences"]) == 2


def test_the_terminal_shows_a_table_two_sentences_and_what_was_left_out(first):
    lines = first.told.splitlines()
    rows = [line for line in lines if re.match(r"\s*[0-3]\s+-?\d\.\d{3}", line)]
    assert len(rows) == 4
    for sentence in first.run["sentences"]:
        assert sentence in lines
        assert sentence.endswith(".")
    assert any("left out: broken" in line for line in lines)
    assert str(first.out) in lines[-1]
    assert len(lines) < 20


def test_pictures_are_large_enough_to_print_and_hold_ink(first):
    for name in ("layers.png", "cka_matrix.png"):
        with Image.open(first.out / name) as picture:
            assert min(picture.size) > 600
            assert picture.info["dpi"][0] == pytest.approx(200, abs=1)
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_no_figure_is_left_open(first):
    assert first.open_figures == []


def test_the_plotting_backend_of_the_caller_stays(checkpoints, documents, copied):
    """A notebook that runs the diagnosis goes on to draw its own figures."""
    before = mpl.get_backend()
    plt.switch_backend("svg")
    try:
        main(arguments(checkpoints.small, documents, copied))
        assert mpl.get_backend() == "svg"
    finally:
        plt.switch_backend(before)


def test_a_second_run_reuses_the_store_and_gives_the_same_bytes(checkpoints, documents, copied, monkeypatch):
    from miner_diag.backbones.text_encoder import TextEncoder

    before = content(copied, REPEATABLE)
    shards = {path: path.stat().st_mtime_ns for path in (copied / "embeddings").rglob("*.safetensors")}
    assert shards
    calls = []
    embed = TextEncoder.embed
    monkeypatch.setattr(TextEncoder, "embed", lambda self, batch: calls.append(len(batch)) or embed(self, batch))
    main(arguments(checkpoints.small, documents, copied))
    assert calls == []
    assert content(copied, REPEATABLE) == before
    assert {path: path.stat().st_mtime_ns for path in (copied / "embeddings").rglob("*.safetensors")} == shards


def test_another_folder_gives_the_same_bytes(first, checkpoints, documents, tmp_path):
    main(arguments(checkpoints.small, documents, tmp_path / "elsewhere"))
    assert content(tmp_path / "elsewhere", REPEATABLE) == content(first.out, REPEATABLE)


def test_another_seed_moves_the_bootstrap_and_no_value(first, checkpoints, documents, copied):
    main(arguments(checkpoints.small, documents, copied, "--seed", "1"))
    table = pd.read_csv(copied / "layers.csv")
    ends = ["ndcg_at_5_low", "ndcg_at_5_high"]
    pd.testing.assert_frame_equal(table.drop(columns=ends), first.layers.drop(columns=ends))
    assert not table[ends].equals(first.layers[ends])


def refused(capsys, *args):
    """Run what must fail; return the sentence."""
    with pytest.raises(SystemExit) as exit:
        main(list(args))
    assert isinstance(exit.value.code, str) and exit.value.code.startswith("error: ")
    assert capsys.readouterr().out == ""
    return exit.value.code


def test_another_model_into_the_same_folder_is_refused_and_the_fields_are_named(
    first, checkpoints, documents, copied, capsys
):
    before = content(copied)
    sentence = refused(capsys, *arguments(checkpoints.other, documents, copied))
    assert "differ" in sentence and "backbone" in sentence
    assert "small-bert" in sentence and "other-bert" in sentence
    assert content(copied) == before


@pytest.mark.parametrize(
    ("more", "field"),
    [
        (("--limit", "20"), "corpus_part"),
        (("--queries", "verbatim"), "corpus_form"),
        (("--max-tokens", "9"), "max_"),
        (("--query-prompt", "tide"), "prompt"),
    ],
)
def test_other_numbers_into_the_same_folder_are_refused(checkpoints, documents, copied, capsys, more, field):
    before = content(copied)
    sentence = refused(capsys, *arguments(checkpoints.small, documents, copied, *more))
    assert "differ" in sentence and field in sentence
    assert content(copied) == before


def test_a_run_that_fails_leaves_an_earlier_one_untouched(checkpoints, documents, copied, capsys):
    before = content(copied)
    sentence = refused(capsys, *arguments(checkpoints.small, documents, copied, "--confidence", "1.5"))
    assert "confidence" in sentence and "1.5" in sentence
    assert content(copied) == before
    assert not list(copied.glob(".*"))


def test_unknown_model_lists_what_there_is(documents, tmp_path, capsys):
    sentence = refused(capsys, *arguments("MiniLM", documents, tmp_path / "run"))
    assert "'MiniLM'" in sentence and "page-text" in sentence and "folder" in sentence
    assert not (tmp_path / "run").exists()


def test_unknown_data_lists_what_there_is(tmp_path, capsys):
    sentence = refused(capsys, "--data", "nothing-like-it", "--out", str(tmp_path / "run"))
    for name in ("nothing-like-it", "sample", "debian-docs-small", "debian-docs-large", "folder"):
        assert name in sentence
    assert not (tmp_path / "run").exists()


def test_a_folder_of_nothing_usable_names_each_file(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "empty.pdf").write_bytes(b"")
    sentence = refused(capsys, "--data", str(tmp_path / "bad"), "--out", str(tmp_path / "run"))
    assert "empty" in sentence


def test_too_few_pages_for_cka_is_a_sentence(checkpoints, documents, tmp_path, capsys):
    sentence = refused(capsys, *arguments(checkpoints.small, documents, tmp_path / "run", "--limit", "3"))
    assert "at least 4" in sentence and "3" in sentence and "--limit" in sentence
    assert not (tmp_path / "run" / "layers.csv").exists()


def test_a_constant_final_layer_is_a_sentence(checkpoints, documents, tmp_path, capsys):
    """A checkpoint whose last norm has lost its weights."""
    import torch
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(checkpoints.small, tmp_path / "broken-bert")
    weights = load_file(broken / "model.safetensors")
    weights["encoder.layer.2.output.LayerNorm.weight"].zero_()
    weights["encoder.layer.2.output.LayerNorm.bias"].copy_(torch.ones(32))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    sentence = refused(capsys, *arguments(broken, documents, tmp_path / "run"))
    assert "layer 3" in sentence and "final" in sentence and "same for all 35" in sentence
    assert not (tmp_path / "run" / "layers.csv").exists()


def test_a_constant_inner_layer_is_a_note(checkpoints, documents, tmp_path, capsys):
    """With CLS pooling the embedding output is the same for every text; the other layers are diagnosed all the same."""
    args = arguments(checkpoints.small, documents, tmp_path / "run")
    args[args.index("mean")] = "cls"
    main(args)
    told = capsys.readouterr().out
    assert re.search("^layer 0 is the same for all", told, re.MULTILINE)
    table = pd.read_csv(tmp_path / "run" / "layers.csv")
    assert table["layer"].tolist() == [0, 1, 2, 3]
    assert table["cka_page_final"].isna().tolist() == [True, False, False, False]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert any("layer 0" in note for note in run["notes"])
    assert table["ndcg_at_5"][0] == pytest.approx(run["chance_ndcg_at_5"])


def test_limit_draws_that_many_pages(checkpoints, documents, tmp_path):
    main(arguments(checkpoints.small, documents, tmp_path / "run", "--limit", "20"))
    table = pd.read_csv(tmp_path / "run" / "layers.csv")
    assert (table["n_pages"] == 20).all() and (table["n_queries"] == 20).all()
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["options"]["limit"] == 20 and run["corpus_part"] == "all, 20 pages"


def test_a_split_takes_its_documents_only(checkpoints, documents, tmp_path):
    args = arguments(checkpoints.small, documents, tmp_path / "run")
    args[args.index("all")] = "train"
    main(args)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["corpus_part"] == "train" and 4 <= run["n_pages"] < 35
    from miner_diag.corpus.splits import split_of

    ids = open_store(tmp_path / "run" / "embeddings" / "pages").ids
    assert {split_of(page_id.rpartition("/")[0]) for page_id in ids} == {"train"}


def test_intervals_are_over_documents_unless_items_are_asked_for(first, checkpoints, documents, copied, capsys):
    assert json.loads((first.out / "run.json").read_text())["intervals_over"] == "documents"
    main(arguments(checkpoints.small, documents, copied, "--intervals-over", "items"))
    assert json.loads((copied / "run.json").read_text())["intervals_over"] == "items"
    assert "over single items" in capsys.readouterr().out
    table = pd.read_csv(copied / "layers.csv")
    pd.testing.assert_series_equal(table["ndcg_at_5"], first.layers["ndcg_at_5"])
    assert not table["ndcg_at_5_low"].equals(first.layers["ndcg_at_5_low"])
    single = {(r.measure, r.layer): r for r in first.records if r.query_id is None and r.other_layer is None}
    for record in read_records(copied / "records.jsonl"):
        before = single.get((record.measure, record.layer))
        if record.query_id is not None or record.other_layer is not None or record.low is None or before.low is None:
            continue
        assert record.value == pytest.approx(before.value, abs=1e-12)
        if before.low < before.value < before.high:
            assert (record.low, record.high) != (before.low, before.high), record


def test_intervals_over_one_document_are_a_sentence(checkpoints, documents, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    shutil.copy(documents / "handbook-0.pdf", tmp_path / "one")
    args = arguments(checkpoints.small, tmp_path / "one", tmp_path / "run", "--intervals-over", "documents")
    assert "at least 2" in refused(capsys, *args)


def test_figures_name_the_estimator_they_draw(checkpoints, documents, copied, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    main(arguments(checkpoints.small, documents, copied, "--estimator", "biased"))
    assert len(figures) == 2
    for figure in figures:
        words = " ".join([label for ax in figure.axes for label in (ax.get_ylabel(), ax.get_title())])
        assert "debiased" not in words, words
    assert {r.estimator for r in read_records(copied / "records.jsonl")} == {"biased", None}


def test_figures_name_model_data_split_and_counts(checkpoints, documents, copied, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    main(arguments(checkpoints.small, documents, copied))
    curves, heat_map = figures
    for words in ("small-bert", "handbooks", "all", "hidden", "35 pages", "35 queries", "95%"):
        assert words in curves.get_suptitle()
    for words in ("small-bert", "handbooks", "all", "35"):
        assert words in heat_map.axes[0].get_title()


def test_an_error_goes_to_standard_error_with_status_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "miner_diag.cka", "--data", "nothing-like-it", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "MINER_DIAG_CACHE": str(tmp_path / "cache")},
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_help_explains_the_options(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in ("--model", "--data", "--split", "--limit", "--out", "--intervals-over", "runs/cka", "validation"):
        assert words in told
