"""A saved retriever is the same one when it is read back; what was changed on the way is refused."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest

from miner_diag.backbones import LoadOptions, UnknownBackboneError
from miner_diag.fusion import FusionError
from miner_diag.fusion.saved_systems import read_fitted_to
from miner_diag.serving import FusedRetriever, ServingError
from miner_diag.serving.folder import FACTS, TENSORS
from tests.damage import seal_again
from tests.serving.made import QUERIES, SYSTEMS, TEXTS, fusion, served


def rewritten(folder, change):
    """Change the facts of a folder and seal them again, as somebody could who wants to."""
    facts = json.loads((folder / FACTS).read_text())
    change(facts)
    seal_again(folder / FACTS, facts)


def flip_byte(path):
    """Change one letter or bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def same(one, other):
    np.testing.assert_array_equal(one.encode_queries(QUERIES), other.encode_queries(QUERIES))
    np.testing.assert_array_equal(one.encode_pages(TEXTS).vectors, other.encode_pages(TEXTS).vectors)
    assert (one.name, one.fingerprint, one.layers) == (other.name, other.fingerprint, other.layers)


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_was_saved_is_read_back_bit_for_bit(name, load, tmp_path):
    retriever = served(load(query_prompt="salt ", max_tokens=20), SYSTEMS[name]())
    retriever.save_pretrained(tmp_path / "saved")
    same(retriever, FusedRetriever.from_pretrained(tmp_path / "saved", device="cpu"))


def test_a_folder_needs_nothing_of_the_machine_that_wrote_it(load, checkpoint, tmp_path):
    gone = shutil.copytree(checkpoint, tmp_path / "here" / "small-bert")
    options = LoadOptions(str(gone), pooling="mean", reader="text-layer")
    retriever = served(options, fusion())
    retriever.save_pretrained(tmp_path / "here" / "saved")
    shutil.rmtree(gone)
    (tmp_path / "here").rename(tmp_path / "there")
    same(retriever, FusedRetriever.from_pretrained(tmp_path / "there" / "saved"))


def test_an_embedded_backbone_is_named_or_comes_along(tmp_path, one_thread):
    retriever = FusedRetriever.from_model("page-text", 4)
    for folder, with_backbone in ((tmp_path / "named", None), (tmp_path / "whole", True)):
        retriever.save_pretrained(folder, with_backbone=with_backbone)
        assert (folder / "page-text").is_dir() == bool(with_backbone)
        same(retriever, FusedRetriever.from_pretrained(folder))
    assert json.loads((tmp_path / "named" / FACTS).read_text())["backbone"]["load"] == {"model": "page-text"}


def test_a_local_backbone_that_is_left_out_is_warned_of(load, tmp_path, caplog):
    retriever = served(load(), fusion())
    with caplog.at_level(logging.WARNING):
        retriever.save_pretrained(tmp_path / "saved", with_backbone=False)
    assert "which no other machine has; with_backbone=True copies it" in caplog.text
    same(retriever, FusedRetriever.from_pretrained(tmp_path / "saved"))


def test_what_it_was_fitted_to_travels_along(retriever, fitted, tmp_path):
    retriever.save_pretrained(tmp_path / "saved")
    again = FusedRetriever.from_pretrained(tmp_path / "saved")
    assert again.fitted_to == retriever.fitted_to == read_fitted_to(fitted.fusion)


@pytest.mark.parametrize("name", [FACTS, TENSORS])
def test_a_damaged_file_is_refused(name, load, tmp_path):
    served(load(), fusion()).save_pretrained(tmp_path)
    flip_byte(tmp_path / name)
    with pytest.raises(ServingError, match=f"{name} is not (what|the file)"):
        FusedRetriever.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", [FACTS, TENSORS])
def test_a_missing_file_is_named(name, load, tmp_path):
    served(load(), fusion()).save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ServingError, match=f"{name} cannot be read"):
        FusedRetriever.from_pretrained(tmp_path)


def test_other_weights_of_the_backbone_are_refused(load, tmp_path):
    served(load(), fusion()).save_pretrained(tmp_path)
    flip_byte(tmp_path / "small-bert" / "model.safetensors")
    with pytest.raises(FusionError, match="was saved of another backbone. Fields that differ: backbone_revision"):
        FusedRetriever.from_pretrained(tmp_path)


def test_a_folder_cannot_allow_code_or_reach_outside(load, tmp_path):
    served(load(), fusion()).save_pretrained(tmp_path / "saved")
    rewritten(tmp_path / "saved", lambda facts: facts["backbone"]["load"].update(trust_remote_code=True))
    with pytest.raises(ServingError, match="brings its own Python code; trust_remote_code=True runs that code"):
        FusedRetriever.from_pretrained(tmp_path / "saved")
    shutil.copytree(tmp_path / "saved" / "small-bert", tmp_path / "outside")
    rewritten(tmp_path / "saved", lambda facts: facts["backbone"].update(load={"model": "x"}, folder="../outside"))
    with pytest.raises(UnknownBackboneError, match="saved/outside"):
        FusedRetriever.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(format=99), "has format 99, this version reads 1"),
        (lambda facts: facts["system"].update(kind="later"), "lists the unknown kind 'later'"),
        (
            lambda facts: facts["backbone"]["load"].update(later=1),
            r"loading options that this version does not know: \['later'\]",
        ),
        (lambda facts: facts.pop("backbone"), "holds no retriever that can be made again"),
    ],
)
def test_facts_of_another_version_are_refused(change, message, load, tmp_path):
    served(load(), fusion()).save_pretrained(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(ServingError, match=message):
        FusedRetriever.from_pretrained(tmp_path)


def test_what_is_no_folder_and_no_hub_id_is_refused(tmp_path):
    with pytest.raises(ServingError, match="is neither a folder here nor a hub id"):
        FusedRetriever.from_pretrained(tmp_path / "gone")


def test_a_revision_of_a_folder_is_refused(load, tmp_path):
    served(load(), fusion()).save_pretrained(tmp_path)
    with pytest.raises(ServingError, match="revision has no effect on the local folder"):
        FusedRetriever.from_pretrained(tmp_path, "a" * 40)


def test_a_place_with_other_files_is_refused(load, tmp_path):
    (tmp_path / "small-bert").mkdir()
    (tmp_path / "small-bert" / "notes.txt").write_text("mine")
    with pytest.raises(ServingError, match="small-bert holds other files, as notes.txt"):
        served(load(), fusion()).save_pretrained(tmp_path)


def test_page_vision_cannot_come_along(tmp_path, one_thread):
    with pytest.raises(ServingError, match="the files of page-vision cannot come along"):
        FusedRetriever.from_model("page-vision").save_pretrained(tmp_path, with_backbone=True)
