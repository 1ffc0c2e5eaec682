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
from miner_diag.backbones import LoadOptions
from miner_diag.cka import linear_cka
from miner_diag.cka.__main__ import main
from miner_diag.cka.plots import layer_figure
from miner_diag.cka.run import CKAOptions, run
from miner_diag.corpus import load_corpus
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions, open_corpus
from miner_diag.records import read_records
from miner_diag.retrieval import ndcg_at_k
from miner_diag.retrieval.bm25 import Bm25Index
from miner_diag.stats import StatisticsOptions, bootstrap_mean
from tests.handbooks import write_handbooks

FILES = (
    "layers.csv",
    "cka_matrix_page.csv",
    "records.jsonl",
    "run.json",
    "layers.png",
    "cka_matrix.png",
    "layers.svg",
    "cka_matrix.svg",
)
REPEATABLE = ("layers.csv", "cka_matrix_page.csv", "records.jsonl")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The store that the runs of this module share."""
    return tmp_path_factory.mktemp("runs") / "store"


@pytest.fixture(scope="module")
def arguments(store):
    """Make the command line of a run."""

    def make(checkpoint, documents, out, *more):
        fixed = ["--model", str(checkpoint), "--pooling", "mean", "--device", "cpu", "--reader", "text-layer"]
        places = ["--store", str(store), "--out", str(out)]
        return [*fixed, "--data", str(documents), "--split", "all", *places, *more]

    return make


@pytest.fixture(scope="module")
def first(arguments, checkpoints, documents, tmp_path_factory, cache_of_session):
    """One run that most tests look at."""
    out = tmp_path_factory.mktemp("runs") / "cka"
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setenv("MINER_DIAG_CACHE", str(cache_of_session))
        main(arguments(checkpoints.small, documents, out))
        open_figures = plt.get_fignums()
    return SimpleNamespace(
        out=out,
        shown=shown.getvalue(),
        open_figures=open_figures,
        run=json.loads((out / "run.json").read_text()),
        layers=pd.read_csv(out / "layers.csv"),
        records=read_records(out / "records.jsonl"),
    )


@pytest.fixture
def copied(first, tmp_path):
    """A run's folder that a test may write to."""
    return shutil.copytree(first.out, tmp_path / "run")


@pytest.fixture(scope="module")
def stored(first, store, checkpoints, documents):
    """What the first run left in the store, opened again."""
    load = LoadOptions(str(checkpoints.small), pooling="mean", device="cpu", reader="text-layer")
    embedded = open_corpus(load, DataOptions(str(documents)), StoreOptions(store))
    return embedded.take(embedded.corpus).stores


def content(folder, names=FILES):
    return {name: (folder / name).read_bytes() for name in names}


def count_forwards(monkeypatch):
    """Return the list that grows by the number of items of every batch that passes through a text encoder."""
    from miner_diag.backbones.text_encoder import TextEncoder

    batches = []
    embed = TextEncoder.embed_kept
    monkeypatch.setattr(TextEncoder, "embed_kept", lambda self, batch: batches.append(len(batch)) or embed(self, batch))
    return batches


def test_writes_what_it_promises_and_nothing_else(first):
    assert {path.name for path in first.out.iterdir()} == set(FILES)


def test_layers_csv_has_a_row_for_each_hidden_state(first):
    assert first.layers["layer"].tolist() == [0, 1, 2, 3]
    assert (first.layers["n_pages"] == 35).all() and (first.layers["n_queries"] == 35).all()
    final = first.layers.iloc[-1]
    assert final["cka_page_final"] == pytest.approx(1) and final["alignment_ratio_page_final"] == pytest.approx(1)
    assert first.layers["cosine_page_final"].notna().all()  # all layers of one encoder have one width
    empty = first.layers.columns[first.layers.isna().all()].tolist()
    assert empty == ["cka_query_page_null_mean"]  # which is that of the biased estimator
    assert (first.layers["n_documents"] == 7).all() and (first.layers["effective_documents"] == 7).all()


def test_the_figure_can_be_drawn_again_from_the_table(first, tmp_path):
    layer_figure(first.layers).savefig(tmp_path / "again.png", dpi=200)
    with Image.open(tmp_path / "again.png") as again, Image.open(first.out / "layers.png") as before:
        np.testing.assert_array_equal(np.asarray(again), np.asarray(before))


def test_numbers_are_those_of_the_stored_embeddings(first, stored):
    """What is in the table can be computed again from what is in the store, by anybody."""
    queries, pages = stored
    assert pages.shape == queries.shape == (35, 4, 32)
    page_of = [pages.ids.index(query_id.rpartition("/")[0]) for query_id in queries.ids]
    for row in first.layers.itertuples():
        x, y = pages.layer_embeddings[:, row.layer], pages.layer_embeddings[:, -1]
        assert row.cka_page_final == pytest.approx(linear_cka(x, y), abs=1e-9)
        asking = queries.layer_embeddings[:, row.layer]
        assert row.cka_query_page == pytest.approx(linear_cka(asking, x[page_of]), abs=1e-9)
        scores = unit(asking) @ unit(x).T
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


def test_bm25_stands_beside_the_layers_on_the_same_queries_and_documents(first, documents):
    """In the table, the records, the picture and a sentence; by the words of the pages, which are read whole here."""
    part = load_corpus(documents)
    index = {page.page_id: number for number, page in enumerate(part.pages)}
    scores = Bm25Index([page.text for page in part.pages]).scores([query.text for query in part.queries])
    gold = [{index[page_id]: grade for page_id, grade in part.qrels[query.query_id].items()} for query in part.queries]
    values = ndcg_at_k(scores, gold)
    for column in ("bm25_ndcg_at_5", "bm25_text_read_ndcg_at_5"):
        assert first.layers[column].to_numpy() == pytest.approx(np.full(4, values.mean()))
        interval = bootstrap_mean(values, np.random.default_rng(0), clusters=[query.doc_id for query in part.queries])
        assert first.layers[f"{column}_low"][0] == pytest.approx(interval.low)
        assert first.layers[f"{column}_high"][0] == pytest.approx(interval.high)
    records = [record for record in first.records if record.model == "bm25"]
    assert {(record.system, record.measure) for record in records} == {("text layer", "ndcg_at_5")}
    assert [record.value for record in records] == pytest.approx([values.mean(), *values])
    assert records[0].n_clusters == 7
    said = f"For orientation: BM25 reaches nDCG@5 {interval} over the text layer of the pages, all of which small-bert"
    assert said in first.shown and any(said in sentence for sentence in first.run["sentences"])
    panel = layer_figure(first.layers).axes[-1]
    assert values.mean() in [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() == "--"]
    assert [text.get_text() for text in panel.texts] == [f"BM25, text layer ({values.mean():.3f})"]


def test_what_a_retriever_cuts_off_is_missing_in_its_own_line(arguments, checkpoints, documents, copied, capsys):
    main(arguments(checkpoints.small, documents, copied, "--max-tokens", "8"))
    table = pd.read_csv(copied / "layers.csv")
    assert (table["bm25_text_read_ndcg_at_5"] < table["bm25_ndcg_at_5"]).all()
    assert "over the text layer of the pages and " in capsys.readouterr().out
    assert len(layer_figure(table).axes[-1].texts) == 2


def test_matrix_is_layers_by_layers_and_agrees_with_the_table(first):
    matrix = pd.read_csv(first.out / "cka_matrix_page.csv", index_col="layer")
    assert matrix.shape == (4, 4) and list(matrix.index) == [0, 1, 2, 3] and list(matrix.columns) == list("0123")
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    np.testing.assert_allclose(matrix["3"], first.layers["cka_page_final"], atol=1e-4)


def test_records_name_model_data_and_split_and_every_query(first, stored):
    record = first.records[0]
    assert (record.model, record.dataset, record.split, record.d) == ("small-bert", "handbooks", "all", 32)
    assert record.model_revision == first.run["backbone"]["backbone_revision"]
    ids = {record.query_id for record in first.records if record.query_id is not None}
    assert ids == set(stored.queries.ids)
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
    assert options["load"]["model"] == str(checkpoints.small) and options["data"]["data"] == str(documents)
    assert options["statistics"] == {"intervals_over": "auto", "confidence": 0.95, "seed": 0}
    assert options["rules"] == {"ratio_threshold": 0.5, "aligned_share": 0.5, "estimator": "debiased"}
    assert (options["split"], options["data"]["limit"]) == ("all", None)
    text = json.dumps(run)
    assert '"cpu' in text and "float32" in text  # device and dtype
    assert run["backbone"]["dtype"] == "float32"
    assert re.fullmatch("[0-9a-f]{64}", run["corpus_revision"])
    assert run["seconds"] > 0 and run["peak_memory_mb"] > 50
    assert sum(run["seconds_by_stage"].values()) == pytest.approx(run["seconds"], abs=0.5)
    assert len(run["noise_floor"]["max_relative_difference"]) == 4
    assert max(run["noise_floor"]["max_relative_difference"]) < 1e-4
    assert list(run["skipped"]) == ["broken"] and run["skipped"]["broken"]
    assert (run["n_queries"], run["n_pages"], run["n_pairs"]) == (35, 35, 35)
    assert (run["n_documents"], run["effective_documents"]) == (7, 7.0)
    assert "nDCG@5" in run["sentences"][0] and "alignment ratio" in run["sentences"][1]


def test_the_terminal_shows_a_table_two_sentences_and_what_was_left_out(first):
    lines = first.shown.splitlines()
    rows = [line for line in lines if re.match(r"\s*[0-3]\s+-?\d\.\d{3}", line)]
    assert len(rows) == 4
    sentences = first.run["sentences"]
    assert set(sentences) <= set(lines)
    assert all(sentence.endswith(".") for sentence in sentences[:2])
    assert any("left out: broken" in line for line in lines)
    assert lines[-2].endswith(f"written to {first.out}")
    assert lines[-1].startswith("next: python -m miner_diag.probes --model ") and "--data" in lines[-1]
    assert len(lines) < 20


def test_pictures_are_large_enough_to_print_and_hold_ink(first):
    for name in ("layers.png", "cka_matrix.png"):
        with Image.open(first.out / name) as picture:
            assert min(picture.size) > 600
            assert picture.info["dpi"][0] == pytest.approx(200, abs=1)
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_no_figure_is_left_open(first):
    assert first.open_figures == []


def test_the_plotting_backend_of_the_caller_stays(arguments, checkpoints, documents, copied):
    """A notebook that runs the diagnosis goes on to draw its own figures."""
    before = mpl.get_backend()
    plt.switch_backend("svg")
    try:
        main(arguments(checkpoints.small, documents, copied))
        assert mpl.get_backend() == "svg"
    finally:
        plt.switch_backend(before)


def test_a_second_run_reads_the_store_and_gives_the_same_bytes(
    arguments, checkpoints, documents, copied, store, monkeypatch
):
    before = content(copied, REPEATABLE)
    shards = {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")}
    assert shards
    batches = count_forwards(monkeypatch)
    main(arguments(checkpoints.small, documents, copied))
    assert batches == []
    assert content(copied, REPEATABLE) == before
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")} == shards


def test_another_folder_and_store_give_the_same_bytes(first, arguments, checkpoints, documents, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    main(arguments(checkpoints.small, documents, elsewhere, "--store", str(tmp_path / "store")))
    assert content(elsewhere, REPEATABLE) == content(first.out, REPEATABLE)


def test_the_command_and_the_function_are_one(first, checkpoints, documents, store, tmp_path):
    load = LoadOptions(str(checkpoints.small), pooling="mean", device="cpu", reader="text-layer")
    options = CKAOptions(
        load=load,
        data=DataOptions(str(documents)),
        store=StoreOptions(store),
        statistics=StatisticsOptions(seed=0),
        split="all",
        out=tmp_path / "run",
    )
    run(options)
    assert content(tmp_path / "run", REPEATABLE) == content(first.out, REPEATABLE)


def test_another_seed_moves_the_bootstrap_and_no_value(arguments, first, checkpoints, documents, copied):
    main(arguments(checkpoints.small, documents, copied, "--seed", "1"))
    table = pd.read_csv(copied / "layers.csv")
    ends = [column for column in table if re.search("ndcg_at_5_(low|high)$", column)]
    pd.testing.assert_frame_equal(table.drop(columns=ends), first.layers.drop(columns=ends))
    assert not table[ends].equals(first.layers[ends])


def refused(capsys, *args):
    """Run what must fail; return the sentence."""
    with pytest.raises(SystemExit) as exit:
        main(list(args))
    assert isinstance(exit.value.code, str) and exit.value.code.startswith("error: ")
    assert capsys.readouterr().out == ""
    return exit.value.code


def kept(store):
    """Names of the page stores."""
    return {path.name for path in store.iterdir() if "-page-" in path.name}


def test_another_model_is_kept_apart_and_the_table_is_its_own(arguments, checkpoints, documents, copied, store):
    before = kept(store)
    main(arguments(checkpoints.other, documents, copied))
    assert len(kept(store) - before) == 1
    assert pd.read_csv(copied / "layers.csv")["layer"].tolist() == [0, 1, 2]
    assert {record.model for record in read_records(copied / "records.jsonl")} == {"other-bert", "bm25"}


@pytest.mark.parametrize(
    ("more", "n_items"),
    [
        (("--limit", "20"), 40),  # a corpus of its own, in the same store
        (("--queries", "verbatim"), 35),  # other pages, the same queries
        (("--max-tokens", "9"), 70),
        (("--query-prompt", "tide"), 35),  # other queries, the same pages
    ],
)
def test_other_numbers_are_kept_apart(first, arguments, checkpoints, documents, copied, monkeypatch, more, n_items):
    """Whatever else runs, the first run's embeddings stay as they are."""
    batches = count_forwards(monkeypatch)
    main(arguments(checkpoints.small, documents, copied, *more))
    noise = 16 if more[0] != "--query-prompt" else 0  # pages that are embedded alone, to see what rounding does
    assert sum(batches) - noise == n_items
    assert content(copied, REPEATABLE) != content(first.out, REPEATABLE)
    batches.clear()
    main(arguments(checkpoints.small, documents, copied))
    assert batches == []
    assert content(copied, REPEATABLE) == content(first.out, REPEATABLE)


def test_a_run_that_fails_leaves_an_earlier_one_untouched(arguments, checkpoints, documents, copied, capsys):
    before = content(copied)
    with pytest.raises(SystemExit) as exit:
        main(arguments(checkpoints.small, documents, copied, "--confidence", "1.5"))
    assert exit.value.code == 2
    sentence = " ".join(capsys.readouterr().err.split())
    assert "confidence must be between 0 and 1, both excluded; got 1.5" in sentence
    assert content(copied) == before
    assert not list(copied.glob(".*"))


def test_unknown_model_lists_what_there_is(arguments, documents, tmp_path, capsys):
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


def test_too_few_pages_for_cka_is_a_sentence(arguments, checkpoints, documents, tmp_path, capsys):
    sentence = refused(capsys, *arguments(checkpoints.small, documents, tmp_path / "run", "--limit", "3"))
    assert "at least 4" in sentence and "3" in sentence and "--limit" in sentence
    assert not (tmp_path / "run" / "layers.csv").exists()


def test_a_constant_final_layer_is_a_sentence(arguments, checkpoints, documents, tmp_path, capsys):
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


def test_a_constant_inner_layer_is_a_note(arguments, checkpoints, documents, tmp_path, capsys):
    """With CLS pooling the embedding output is the same for every text; the other layers are diagnosed all the same."""
    args = arguments(checkpoints.small, documents, tmp_path / "run")
    args[args.index("mean")] = "cls"
    main(args)
    shown = capsys.readouterr().out
    assert re.search("^layer 0 is the same for all", shown, re.MULTILINE)
    table = pd.read_csv(tmp_path / "run" / "layers.csv")
    assert table["layer"].tolist() == [0, 1, 2, 3]
    assert table["cka_page_final"].isna().tolist() == [True, False, False, False]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert any("layer 0" in note for note in run["notes"])
    assert table["ndcg_at_5"][0] == pytest.approx(run["chance_ndcg_at_5"])


def test_limit_draws_that_many_pages(arguments, checkpoints, documents, tmp_path):
    main(arguments(checkpoints.small, documents, tmp_path / "run", "--limit", "20"))
    table = pd.read_csv(tmp_path / "run" / "layers.csv")
    assert (table["n_pages"] == 20).all() and (table["n_queries"] == 20).all()
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["options"]["data"]["limit"] == 20 and run["corpus_part"] == "all, 20 pages"


def test_a_split_takes_its_documents_only(arguments, checkpoints, documents, tmp_path, monkeypatch):
    batches = count_forwards(monkeypatch)
    args = arguments(checkpoints.small, documents, tmp_path / "run")
    args[args.index("all")] = "train"
    main(args)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["corpus_part"] == "train" and 4 <= run["n_pages"] < 35
    from miner_diag.corpus.splits import split_of

    ids = {record.query_id for record in read_records(tmp_path / "run" / "records.jsonl")} - {None}
    assert {split_of(query_id.split("/")[0]) for query_id in ids} == {"train"}
    assert sum(batches) <= 2 * run["n_pages"] + 16  # the other splits are not embedded


def test_intervals_are_over_documents_unless_items_are_asked_for(
    arguments, first, checkpoints, documents, copied, capsys
):
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
        assert (before.n_clusters, before.effective_clusters) == (7, 7.0) and record.n_clusters is None


def test_a_layer_with_itself_has_the_interval_one_to_one_on_every_machine(first):
    """Products of another instruction set differ in their last bits; nothing of them may be seen."""
    final = {record.measure: record for record in first.records if record.layer == 3 and record.other_layer is None}
    for measure in ("cka_page_final", "cka_query_final", "alignment_ratio_page_final", "alignment_ratio_query_final"):
        assert (final[measure].low, final[measure].value, final[measure].high) == (1, 1, 1), measure
    assert final["cka_page_final_unit_rows"].low == final["cka_page_final_unit_rows"].high == 1


def test_documents_of_unequal_size_are_said_with_their_effective_number(arguments, checkpoints, tmp_path, capsys):
    folder = write_handbooks(tmp_path / "uneven", sizes=(12, 3, 3, 3, 3, 3))
    main(arguments(checkpoints.small, folder, tmp_path / "run"))
    effective = 27**2 / (12**2 + 5 * 3**2)  # 3.86
    shown = capsys.readouterr().out
    assert "over 6 documents of unequal size; they are as wide as 3.9 documents of equal size justify" in shown
    table, run = pd.read_csv(tmp_path / "run" / "layers.csv"), json.loads((tmp_path / "run" / "run.json").read_text())
    assert (table["n_documents"] == 6).all() and table["effective_documents"].tolist() == pytest.approx([effective] * 4)
    assert (run["n_documents"], run["effective_documents"]) == (6, pytest.approx(effective))


def test_layers_larger_than_the_memory_are_read_block_by_block(
    first, arguments, checkpoints, documents, copied, monkeypatch, capsys
):
    from miner_diag.embeddings import EmbeddingStore

    whole = property(lambda self: pytest.fail("all layers of all items were asked for at once"))
    monkeypatch.setattr(EmbeddingStore, "layer_embeddings", whole)
    main(arguments(checkpoints.small, documents, copied, "--memory-gb", "1e-6"))
    assert "layers were read from the store block by block, because they are larger" in capsys.readouterr().out
    table = pd.read_csv(copied / "layers.csv")
    assert table["effective_rank_page"].isna().all() and table["anisotropy_page"].isna().all()
    # seven documents are seven blocks, so intervals are those of the whole as well
    columns = [column for column in table if column not in ("effective_rank_page", "anisotropy_page")]
    pd.testing.assert_frame_equal(table[columns], first.layers[columns], check_exact=False, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        pd.read_csv(copied / "cka_matrix_page.csv"), pd.read_csv(first.out / "cka_matrix_page.csv"), atol=1e-6
    )
    for name in ("layers.png", "cka_matrix.png"):
        assert (copied / name).stat().st_size > 1000


def test_intervals_over_one_document_are_a_sentence(arguments, checkpoints, documents, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    shutil.copy(documents / "handbook-0.pdf", tmp_path / "one")
    args = arguments(checkpoints.small, tmp_path / "one", tmp_path / "run", "--intervals-over", "documents")
    assert "at least 2" in refused(capsys, *args)


def test_figures_name_the_estimator_they_draw(arguments, checkpoints, documents, copied, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    main(arguments(checkpoints.small, documents, copied, "--estimator", "biased"))
    assert len(figures) == 4  # each as picture and as vectors
    for figure in figures:
        words = " ".join([label for ax in figure.axes for label in (ax.get_ylabel(), ax.get_title())])
        assert "debiased" not in words, words
    assert {r.estimator for r in read_records(copied / "records.jsonl")} == {"biased", None}


def test_figures_name_model_data_split_and_counts(arguments, checkpoints, documents, copied, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    main(arguments(checkpoints.small, documents, copied))
    curves, heat_map = figures[::2]
    for words in ("small-bert", "handbooks", "all", "hidden"):
        assert words in curves.get_suptitle()
    for words in ("35 pages", "35 queries", "95%", "7 documents"):
        assert words in curves.get_supxlabel()
    for words in ("small-bert", "handbooks", "all", "35"):
        assert words in heat_map.get_suptitle()


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
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("--model", "--data", "--split", "--limit", "--out", "--intervals-over", "runs/cka", "validation"):
        assert words in shown
