"""The command from end to end, on a folder of PDFs and a small checkpoint."""

from __future__ import annotations

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from miner_diag.backbones import load_backbone
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions, open_corpus
from miner_diag.fusion import (
    FusionError,
    LeakageError,
    apply,
    encode,
    load_systems,
    ndcg_of,
    read_fitted_to,
    read_load_options,
)
from miner_diag.fusion.__main__ import main
from miner_diag.fusion.miner import MinerFusion
from miner_diag.probes import take_split
from miner_diag.records import read_records
from tests.handbooks import save_retriever, write_handbooks

PROBES = ["--probe.epochs", "1", "--probe.batch-size", "16", "--probe.resamples", "2", "--probe.rule", "top_k"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small retriever of four hidden states."""
    return save_retriever(tmp_path_factory.mktemp("retrievers") / "small-bert")


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Twenty handbooks of five pages."""
    return write_handbooks(tmp_path_factory.mktemp("documents") / "handbooks")


@pytest.fixture(scope="module", autouse=True)
def no_correlations():
    """Of the probe stage, what costs most here and decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
        yield


def arguments(made, out, *more):
    where = ["--data", str(made.documents), "--queries", "verbatim", "--store", str(made.store), "--out", str(out)]
    fixed = ["--model", str(made.checkpoint), "--pooling", "mean", "--device", "cpu", "--reader", "text-layer"]
    quick = ["--training.epochs", "2", "--training.negatives", "30", "--n-seeds", "2", "--rate-scales", "1.0"]
    return [*where, *fixed, *quick, *more]


@pytest.fixture(scope="module")
def first(checkpoint, documents, tmp_path_factory, cache_of_session, one_thread):
    folder, text = tmp_path_factory.mktemp("runs"), io.StringIO()
    made = SimpleNamespace(checkpoint=checkpoint, documents=documents, store=folder / "store", out=folder / "fusion")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text):
        patch.setenv("MINER_DIAG_CACHE", str(cache_of_session))
        main(arguments(made, made.out, *PROBES, "--systems", "default", "shuffled_layers"))
    made.text, made.run = text.getvalue(), json.loads((made.out / "run.json").read_text())
    return made


@pytest.fixture
def embedded_corpus(first):
    """The corpus of the run, opened again with the options that the run holds."""
    load = read_load_options(first.out)
    return open_corpus(load, DataOptions(str(first.documents), "verbatim"), StoreOptions(first.store), progress=False)


def test_leaves_a_whole_run(first):
    names = {path.name for path in first.out.iterdir()}
    assert {"fusion.safetensors", "fusion.json", "systems.json", "systems", "fitted_to.json", "records.jsonl"} < names
    assert {"masks.csv", "selection.json"} < names
    assert json.loads((first.out / "fusion.json").read_text())["form"] == "miner"
    assert {"weights.csv", "seeds.csv", "training.csv", "run.json", "probes"} < names and "state" not in names
    assert not {"ablation.csv", "folds.csv", "widths.csv", "per_query.jsonl", "sensitivity.csv", "embeddings"} & names
    for picture in first.out.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20, picture
    assert {record.split for record in read_records(first.out / "records.jsonl")} == {"validation"}


def test_no_test_page_is_in_the_store(first, embedded_corpus):
    """What was embedded is train and validation: taking them needs no forward, taking the test split does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miner_diag.embeddings.embedded.embed_layers", None)  # a forward would fail
        for split in ("train", "validation"):
            embedded_corpus.take(embedded_corpus.corpus.split(split))
        with pytest.raises(TypeError):
            embedded_corpus.take(embedded_corpus.corpus.split("test"))


def test_saved_systems_give_the_recorded_scores_and_take_the_test_split_of_another_process(first, embedded_corpus):
    systems = load_systems(first.out, embedded_corpus.backbone.key())
    assert {system.name for system in systems} > {"backbone", "whitened", "miner", "trained_maps", "shuffled_layers"}
    validation = take_split(embedded_corpus, embedded_corpus.corpus, "validation", 4.0)
    for system in systems:
        for module, score in zip(system.modules, system.validation_ndcg_at_5, strict=True):
            assert ndcg_of(module, validation.data).mean() == pytest.approx(score, abs=1e-12), system.name
    read_fitted_to(first.out).check(embedded_corpus.corpus.split("test"))
    with pytest.raises(LeakageError, match="stand in the validation split that these systems were fitted to"):
        read_fitted_to(first.out).check(validation.corpus)


def test_a_store_read_row_by_row_gives_the_same_vectors(first, embedded_corpus):
    in_memory, on_disk = (
        take_split(embedded_corpus, embedded_corpus.corpus, "validation", memory_gb) for memory_gb in (4.0, 1e-9)
    )
    assert isinstance(in_memory.data.pages, np.ndarray) and not isinstance(on_disk.data.pages, np.ndarray)
    (fusion,) = load_systems(first.out, names=("miner",))
    for one, other in zip(
        encode(fusion.modules[0], in_memory.data), encode(fusion.modules[0], on_disk.data), strict=True
    ):
        assert one.tobytes() == other.tobytes()


def test_the_fusion_embeds_this_backbones_layers_and_no_others(first, embedded_corpus):
    backbone = embedded_corpus.backbone
    fusion = MinerFusion.load(first.out, backbone.key())
    pages = embedded_corpus.take(embedded_corpus.corpus.split("validation")).stores.pages.layer_embeddings
    vectors = apply(fusion, pages)
    assert vectors.shape == (len(pages), backbone.width)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    load = read_load_options(first.out)
    other = load_backbone(type(load)(**(vars(load) | {"pooling": "cls"})))
    for read in (MinerFusion.load, load_systems):
        with pytest.raises(FusionError, match=r"another backbone. Fields that differ: .*pooling: 'mean' there, 'cls' "):
            read(first.out, other.key())


def test_run_json_holds_what_was_used(first):
    options = first.run["options"]
    assert options["load"]["model"] == str(first.checkpoint) and options["load"]["pooling"] == "mean"
    assert options["probe"]["training"]["epochs"] == 1 and options["probe"]["selection"]["rule"] == "top_k"
    assert options["systems"] == ["default", "shuffled_layers"]
    assert first.run["corpus_part"] == "validation" and first.run["train"]["corpus_part"] == "train"


def test_the_terminal_says_what_counts(first):
    for part in ("the test documents were not read", "nDCG@5 of validation queries", "The head on the final layer"):
        assert part in first.text, part
    expected = (
        f"next: python -m miner_diag.evaluation --systems {first.out} --data {first.documents} --queries verbatim"
    )
    assert first.text.splitlines()[-1] == f"{expected} --store {first.store} --split test"


def test_a_second_run_reuses_store_and_probes_and_gives_the_same_numbers(first, tmp_path, monkeypatch):
    monkeypatch.setattr("miner_diag.embeddings.embedded.embed_layers", None)  # a forward would fail
    monkeypatch.setattr("miner_diag.fusion.run.fit_for_fusion", None)  # and so would fitting probes
    out = tmp_path / "again"
    more = ["--probes", str(first.out / "probes"), "--memory-gb", "1e-9", "--systems", "default", "shuffled_layers"]
    with contextlib.redirect_stdout(io.StringIO()):
        main(arguments(first, out, *more))
    names = ["fusion.safetensors", "records.jsonl", "weights.csv", "training.csv", "fitted_to.json"]
    names += [path.relative_to(out).as_posix() for path in (out / "systems").iterdir()]
    assert len(names) > 10
    for name in names:
        assert (out / name).read_bytes() == (first.out / name).read_bytes(), name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--memory-gb", "0"], "memory_gb must be above 0"),
        (["--training.temperature", "0"], "temperature must be above 0; got 0.0"),
        (["--mask.share", "1.5"], "share must be above 0 and at most 1; got 1.5"),
        (["--layers", "3"], "the selected layers are the final one, 3, only: there is nothing to fuse"),
        (["--miner.least-eta", "0"], "least_eta must be above 0 and at most 1; got 0.0"),
        (["--miner.least-cka", "2"], "no inner layer has a normalized CKA (plain) of at least 2 (run; the largest is "),
        (["--miner.probes.hard-negatives", "500"], "500 hard negatives a query need more than 500 training pages; "),
        (["--miner.probes.schedule", "prototype", "--miner.probes.l1", "2"], "schedule prototype sets all other"),
        (["--form", "magic"], "invalid choice 'magic'"),
        (["--layers", "0", "1"], "up to the final layer 3; got [0, 1]"),
        (["--layers", "0", "1", "2", "3", "3"], "layers must be at most 4, as many as the backbone has; got 5"),
        (["--systems", "magic"], "systems must be default, differences, all, or some of backbone, "),
        (["--config.final", "magic"], "invalid choice 'magic'"),
        (["--grid.shares", "0.5"], "--grid has no effect without --sensitivity"),
        (["--probe.epochs", "3"], "options of --probe have no effect; leave them out"),
        (["--folds", "0"], "folds must be other splits by document than --fold 0"),
        (["--probe.n-seeds", "7"], "--probe.n-seeds"),
        (["--probe.controls"], "--probe.controls"),
        (["--split", "test"], "--split"),
    ],
)
def test_bad_options_end_with_a_sentence(first, tmp_path, more, message, capsys):
    given = ["--probes", str(first.out / "probes")]
    with pytest.raises(SystemExit) as ended:
        main(arguments(first, tmp_path / "bad", *given, *more))
    text = " ".join((str(ended.value) + capsys.readouterr().err).replace("│", " ").split())
    assert message in text


def test_half_a_probe_run_is_refused(first, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text((first.out / "probes" / "run.json").read_text())
    with pytest.raises(SystemExit, match=r"holds no whole probe run \(records.jsonl, probes.safetensors, salience"):
        main(arguments(first, tmp_path / "other", "--probes", str(tmp_path / "half")))
