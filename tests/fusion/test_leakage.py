"""The command sees train and validation: test documents are neither embedded nor read, and change nothing."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from miner_diag.corpus import CorpusError
from miner_diag.corpus.splits import resplit
from miner_diag.fusion import LeakageError, load_systems, read_fitted_to
from miner_diag.probes import ProbeError
from tests.fusion.helpers import QUICK, pretend_embedded, run_on

PACKAGE = Path(__file__).parents[2] / "miner_diag"
BELOW_EVALUATION = ("backbones", "embeddings", "cka", "probes", "fusion")


def items_of(corpus, *splits):
    """Ids of the queries and pages of some splits."""
    parts = [corpus.split(split) for split in splits]
    return {item for part in parts for item in (*(q.query_id for q in part.queries), *(p.page_id for p in part.pages))}


def fitted_files(folder):
    """Content of every file that holds what was fitted, chosen or measured; times and versions are left out."""
    names = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".jsonl")]
    names += [folder / name for name in ("selection.json", "masks.csv", "weights.csv")]
    names += [folder / "training.csv", folder / "fusion.json", folder / "fitted_to.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


@pytest.fixture(scope="module")
def fitted(one_thread, tmp_path_factory):
    """The whole ablation of a corpus that notes what is asked for."""
    embedded = pretend_embedded()
    with pytest.MonkeyPatch.context() as patch:
        out = run_on(embedded, tmp_path_factory.mktemp("leakage") / "fusion", patch, systems=("all",))
    return embedded, out


def test_test_documents_are_neither_embedded_nor_read(fitted):
    embedded, _ = fitted
    assert embedded.taken == [("train", 0), ("validation", 0)]
    assert embedded.embedded == items_of(embedded.corpus, "train", "validation")
    assert len(items_of(embedded.corpus, "test")) == 80 and not embedded.embedded & items_of(embedded.corpus, "test")


def test_each_further_fold_takes_its_own_train_and_validation(one_thread, tmp_path, monkeypatch):
    embedded = pretend_embedded()
    run_on(embedded, tmp_path, monkeypatch, folds=(4,))
    assert embedded.taken == [("train", 0), ("validation", 0), ("train", 4), ("validation", 4)]
    other = resplit(embedded.corpus, 4)
    expected = items_of(embedded.corpus, "train", "validation") | items_of(other, "train", "validation")
    assert embedded.embedded == expected


def test_test_labels_change_nothing_that_is_fitted_chosen_or_written(fitted, tmp_path, monkeypatch):
    other = run_on(pretend_embedded(swap="test"), tmp_path, monkeypatch, systems=("all",))
    before, after = fitted_files(fitted[1]), fitted_files(other)
    assert len(before) > 40 and before == after


def test_test_vectors_change_nothing(fitted, tmp_path, monkeypatch):
    embedded = pretend_embedded()
    for name in items_of(embedded.corpus, "test"):
        embedded._vectors[name] = np.full_like(embedded._vectors[name], np.nan)
    other = run_on(embedded, tmp_path, monkeypatch, systems=("all",))
    assert fitted_files(fitted[1]) == fitted_files(other)


@pytest.mark.parametrize("swap", ["train", "validation"])
def test_other_labels_do(fitted, tmp_path, monkeypatch, swap):
    """The negative control: what is fitted does depend on what it is fitted to."""
    other = fitted_files(run_on(pretend_embedded(swap=swap), tmp_path, monkeypatch))
    before = fitted_files(fitted[1])
    different = {name for name in other if before[name] != other[name]}
    assert {"training.csv", "records.jsonl"} <= different
    if swap == "train":
        assert {
            "selection.json",
            "masks.csv",
            "systems/miner-0.safetensors",
            "systems/trained_maps-0.safetensors",
            "probes/probes.safetensors",
        } <= different


def test_what_is_saved_knows_what_it_must_not_be_measured_on(fitted):
    embedded, out = fitted
    fitted_to = read_fitted_to(out)
    fitted_to.check(embedded.corpus.split("test"))
    for split in ("train", "validation", "all"):
        with pytest.raises(LeakageError):
            fitted_to.check(embedded.corpus.split(split))
    assert load_systems(out)


def test_no_stage_below_evaluation_names_the_test_split():
    takers = []
    for folder in BELOW_EVALUATION:
        for path in (PACKAGE / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(call, ast.Call) and called(call) in ("split", "take_split", "fitting_splits", "load"):
                    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
                    if "test" in {value.value for value in arguments if isinstance(value, ast.Constant)}:
                        takers.append(path.relative_to(PACKAGE).as_posix())
    assert takers == []


def called(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_the_options_have_no_split():
    assert "split" not in json.dumps(sorted(vars(QUICK))) and not hasattr(QUICK.data, "split")


def test_no_validation_split_is_a_sentence(tmp_path, monkeypatch):
    embedded = pretend_embedded()
    without = {doc: "train" if name == "validation" else name for doc, name in embedded.corpus.splits.items()}
    with pytest.raises(CorpusError, match=r"validation split of planted \(fold 0\) holds no query: .*another --fold"):
        run_on(embedded.with_corpus(splits=without), tmp_path, monkeypatch)


def test_a_page_in_train_and_validation_is_refused_before_anything_is_embedded(tmp_path, monkeypatch):
    embedded, (first, *_) = pretend_embedded(), pretend_embedded().corpus.pages
    pages = tuple(
        page if page.page_id != "p010" else type(page)(**(vars(page) | {"page_hash": first.page_hash}))
        for page in embedded.corpus.pages
    )
    embedded = embedded.with_corpus(pages=pages)
    with pytest.raises(ProbeError, match="1 page pictures stand in train and in validation"):
        run_on(embedded, tmp_path, monkeypatch)
    assert embedded.taken == []
