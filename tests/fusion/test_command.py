"""The command from end to end, on a folder of PDFs and a small checkpoint."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from miner_diag.backbones import load_backbone
from miner_diag.corpus import Corpus
from miner_diag.embeddings.store import open_store
from miner_diag.fusion import Fusion, FusionError
from miner_diag.fusion.__main__ import main
from miner_diag.records import read_records


def _probes_command():
    path = Path(__file__).parents[1] / "probes" / "test_command.py"
    spec = importlib.util.spec_from_file_location("probes_command_made_for_fusion", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_MADE = _probes_command()
checkpoint, documents = _MADE.checkpoint, _MADE.documents  # twenty handbooks, and a retriever of four layers

FILES = {
    "fusion.safetensors",
    "fusion.json",
    "ablation.csv",
    "weights.csv",
    "sensitivity.csv",
    "seeds.csv",
    "training.csv",
    "widths.csv",
    "folds.csv",
    "pooled.csv",
    "per_query.jsonl",
    "run.json",
    "weights.png",
    "ablation.png",
    "sensitivity.png",
    "training.png",
    "folds.png",
}
SYSTEMS = {
    "backbone",
    "final_layer_linear",
    "final_layer_head",
    "final_layer_mlp",
    "fusion",
    "shuffled_layers",
    "oracle_layer",
}


def arguments(checkpoint, documents, out, *more):
    fixed = ["--model", str(checkpoint), "--pooling", "mean", "--device", "cpu", "--reader", "text-layer"]
    probes = ["--probe.epochs", "1", "--probe.batch-size", "16", "--probe.resamples", "2", "--probe.rule", "top_k"]
    quick = ["--training.epochs", "2", "--training.negatives", "30", "--ablation.n-seeds", "2"]
    tries = ["--ablation.rate-scales", "1.0", "--ablation.systems", "shuffled_layers"]
    grid = ["--grid.shares", "0.5", "1.0", "--grid.n-layers", "2", "--grid.thresholds", "0.5"]
    where = ["--queries", "verbatim", "--data", str(documents), "--out", str(out)]
    return [*fixed, *probes, *quick, *tries, *grid, *where, *more]


@pytest.fixture(scope="module", autouse=True)
def no_correlations():
    """Of the probe stage, what costs most here and decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
        yield


@pytest.fixture(scope="module")
def first(checkpoint, documents, tmp_path_factory, one_thread):
    out, told, parts, split = tmp_path_factory.mktemp("runs") / "fusion", io.StringIO(), [], Corpus.split
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setenv("MINER_DIAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr(
            Corpus, "split", lambda corpus, name: (name == "all" or parts.append(name), split(corpus, name))[1]
        )
        main(arguments(checkpoint, documents, out, "--folds", "1"))
    return SimpleNamespace(
        out=out,
        told=told.getvalue(),
        parts=parts,
        checkpoint=checkpoint,
        run=json.loads((out / "run.json").read_text()),
        table=pd.read_csv(out / "ablation.csv"),
        fusion=json.loads((out / "fusion.json").read_text()),
    )


def test_writes_what_it_promises_and_nothing_else(first):
    assert {path.name for path in first.out.iterdir()} == FILES | {"embeddings", "probes"}
    for picture in first.out.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20, picture


def test_the_ablation_has_the_columns_asked_for(first):
    table = first.table
    assert set(table["split"]) == {"validation", "test"} and set(table["system"]) == SYSTEMS
    assert {
        "ndcg_at_5",
        "low",
        "high",
        "difference_to_backbone",
        "p_holm",
        "verdict",
        "n_parameters",
        "seconds",
    } <= set(table.columns)
    assert (table["low"] <= table["ndcg_at_5"] + 1e-12).all() and (table["ndcg_at_5"] <= table["high"] + 1e-12).all()


def test_tables_have_their_rows(first):
    weights, seeds = pd.read_csv(first.out / "weights.csv"), pd.read_csv(first.out / "seeds.csv")
    assert {"layer", "kind", "weight", "kept_share", "kept_neurons"} <= set(weights.columns)
    assert sorted(set(weights["layer"])) == first.fusion["layers"] and set(weights["seed"]) == {0, 1}
    assert seeds.groupby("system")["seed"].nunique()["fusion"] == 2
    grid = pd.read_csv(first.out / "sensitivity.csv")
    assert {"kept_share", "n_layers", "threshold"} <= set(grid.columns) and len(grid) == 2
    folds = pd.read_csv(first.out / "folds.csv")
    assert set(folds["fold"]) == {0, 1} and (folds.groupby("fold")["role"].value_counts() == 1).all()
    pooled = pd.read_csv(first.out / "pooled.csv").set_index("system")
    assert (
        list(pooled.index) == ["backbone", "head", "fusion"] and (pooled["n_queries"] >= folds["n_queries"].max()).all()
    )
    assert "2 document splits together" in first.told


def test_means_are_those_of_the_records(first):
    records = pd.DataFrame([vars(record) for record in read_records(first.out / "per_query.jsonl")])
    means = records.groupby(["split", "measure"])["value"].mean()
    for row in first.table.itertuples():
        assert means[row.split, f"{row.system}_ndcg_at_5"] == pytest.approx(row.ndcg_at_5, abs=1e-9)


def test_test_is_read_once_for_each_document_split_and_that_is_noted(first):
    assert first.parts == ["train", "validation", "test"] * 2
    assert [read["fold"] for read in first.run["test_reads"]] == [0, 1]
    assert first.run["corpus_part"] == "test" and first.run["train"]["corpus_part"] == "train"


def test_the_fusion_that_is_saved_embeds_this_backbones_layers_and_no_others(first):
    backbone = load_backbone(str(first.checkpoint), pooling="mean", reader="text-layer", device="cpu")
    fusion = Fusion.load(first.out, backbone.key())
    pages = open_store(first.out / "embeddings" / "pages").layer_embeddings
    vectors = fusion.apply_to(pages)
    assert vectors.shape == (len(pages), backbone.width)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    other = load_backbone(str(first.checkpoint), pooling="cls", reader="text-layer", device="cpu")
    with pytest.raises(FusionError, match=r"another backbone. Fields that differ: pooling: 'mean' there, 'cls' asked"):
        Fusion.load(first.out, other.key())


def test_fusion_json_says_how_it_came_about(first):
    told = first.fusion
    assert told["layers"] == first.run["selected_layers"] and told["layers"][-1] == 3
    assert {"backbone", "kept_shares", "layer_weights", "training", "shape", "mask"} <= set(told)
    seeds = pd.read_csv(first.out / "seeds.csv")
    mine = seeds[seeds["system"] == "fusion"].set_index("seed")["validation_ndcg_at_5"]
    assert told["validation_ndcg_at_5"] == pytest.approx(mine.max()) and mine.idxmax() == told["seed"]


def test_the_terminal_says_what_counts(first):
    for part in ("Beyond final_layer_", "Target (at least +4.5%", "An oracle that", "document split 1", "p (Holm)"):
        assert part in first.told, part


def test_a_second_run_reuses_stores_and_probes_and_gives_the_same_numbers(first, documents, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["miner_diag.embeddings.extract"], "embed_halving", None)  # a forward would fail
    monkeypatch.setattr("miner_diag.fusion.job.study_for_fusion", None)  # and so would fitting probes
    given = ["--embeddings", str(first.out / "embeddings"), "--probes", str(first.out / "probes")]
    out = tmp_path / "again"
    with contextlib.redirect_stdout(io.StringIO()):
        main(arguments(first.checkpoint, documents, out, *given, "--memory-gb", "1e-9"))
    for name in ("fusion.safetensors", "per_query.jsonl", "weights.csv", "sensitivity.csv"):
        assert (out / name).read_bytes() == (first.out / name).read_bytes(), name


def test_probes_of_other_documents_are_refused(first, documents, tmp_path, capsys):
    given = ["--embeddings", str(first.out / "embeddings"), "--probes", str(first.out / "probes")]
    kept = first.out / "probes" / "run.json"
    text = kept.read_text()
    try:
        run = json.loads(text)
        run["train"]["corpus_revision"] = "0" * 64
        kept.write_text(json.dumps(run))
        with pytest.raises(SystemExit, match=r"have another train split than this run \(000000000000… there, "):
            main(arguments(first.checkpoint, documents, tmp_path / "other", *given))
    finally:
        kept.write_text(text)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text(text)
    with pytest.raises(SystemExit, match=r"holds no whole probe run \(probes.safetensors, probes.csv, salience"):
        main(arguments(first.checkpoint, documents, tmp_path / "other", *given[:2], "--probes", str(tmp_path / "half")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--memory-gb", "0"], "memory_gb must be above 0"),
        (["--training.temperature", "0"], "temperature must be above 0; got 0.0"),
        (["--mask.share", "1.5"], "share must be above 0 and at most 1; got 1.5"),
        (["--layers", "3"], "the selected layers are the final one, 3, only: there is nothing to fuse"),
        (["--layers", "0", "1"], "up to the final layer 3; got [0, 1]"),
        (["--layers", "0", "1", "2", "3", "3"], "layers must be at most 4, as many as the backbone has; got 5"),
        (["--ablation.systems", "magic"], "systems must be of backbone, "),
        (["--shape.final", "magic"], "final must be as_is, gate or projection; got 'magic'"),
    ],
)
def test_bad_options_end_with_a_sentence(first, documents, tmp_path, more, message, capsys):
    given = ["--embeddings", str(first.out / "embeddings"), "--probes", str(first.out / "probes")]
    with pytest.raises((SystemExit, ValueError)) as ended:
        main(arguments(first.checkpoint, documents, tmp_path / "bad", *given, *more))
    assert message in str(ended.value) + capsys.readouterr().err
