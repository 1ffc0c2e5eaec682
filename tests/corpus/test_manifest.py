"""Manifests are checked: hashes, counts, names and paths; whatever differs is a sentence."""

from __future__ import annotations

import copy
import functools
import shutil
from pathlib import Path

import pytest
import yaml

from miner_diag.corpus import CorpusError, load_corpus, manifest, manifest_names
from miner_diag.corpus.manifest_file import manifest_folder

needs_sample = pytest.mark.skipif(
    not (manifest_folder() / "sample.yaml").is_file(), reason="the shipped sample is not built yet"
)


@functools.cache
def sample():
    return load_corpus("sample")


@pytest.fixture
def changed(tmp_path):
    """Write a changed copy of the sample's manifest and give its path."""
    content = yaml.safe_load((manifest_folder() / "sample.yaml").read_text(encoding="utf-8"))

    def write(change=lambda content: None):
        other = copy.deepcopy(content)
        change(other)
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(other, allow_unicode=True), encoding="utf-8")
        return path

    return write


@needs_sample
def test_the_sample_is_what_was_promised():
    """At least 400 pages, 350 queries and 12 documents in at most 10 MB, every document with licence and hash."""
    corpus = sample()
    content = yaml.safe_load((manifest_folder() / "sample.yaml").read_text(encoding="utf-8"))
    assert len(corpus.pages) >= 400
    assert len(corpus.queries) >= 350
    assert len(content["documents"]) >= 12
    for document in content["documents"]:
        assert document["licence"] and len(document["sha256"]) == 64
    files = (Path(manifest.__file__).parent / "sample").rglob("*.pdf")
    assert 0 < sum(path.stat().st_size for path in files) <= 10_000_000


@needs_sample
def test_the_samples_splits_hold_queries_and_share_no_picture():
    corpus = sample()
    parts = {name: corpus.split(name) for name in ("train", "validation", "test")}
    shares = {name: len(part.queries) / len(corpus.queries) for name, part in parts.items()}
    for name, share in {"train": 0.50, "validation": 0.15, "test": 0.35}.items():
        assert abs(shares[name] - share) < 0.15, shares
    hashes = [{page.page_hash for page in part.pages} for part in parts.values()]
    assert not (hashes[0] & hashes[1] or hashes[0] & hashes[2] or hashes[1] & hashes[2])


@needs_sample
def test_nothing_of_a_hidden_query_is_left_in_the_samples_texts(make):
    corpus = sample()
    text = {page.page_id: make.squeezed(page.text) for page in corpus.pages}
    left = [
        query.query_id
        for query in corpus.queries
        for page_id in corpus.qrels[query.query_id]
        if make.squeezed(query.text) in text[page_id]
    ]
    assert left == []


@needs_sample
def test_an_unchanged_copy_of_the_manifest_loads(changed):
    assert load_corpus(changed()).revision == sample().revision


def change_hash(content):
    content["documents"][0]["sha256"] = "0" * 64


def change_count(content):
    content["counts"]["queries"] += 1


def change_content(content):
    content["content_sha256"] = "0" * 64


def drop_document(content):
    del content["documents"][-1]


def double_document(content):
    content["documents"].append(content["documents"][0])


def climb_out(content):
    content["documents"][0]["id"] = "../../../etc/passwd"


def climb_out_by_path(content):
    content["documents"][0]["path"] = "usr/share/../../../etc/passwd"


def absolute_path(content):
    content["documents"][0]["path"] = "/etc/passwd"


def half_a_hash(content):
    content["documents"][0]["sha256"] = "abc"


def unknown_field(content):
    content["colour"] = "blue"


def no_documents(content):
    content["documents"] = []


def climb_out_by_name(content):
    content["name"] = "../../tests"


@needs_sample
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_hash, "sha256 .*000000"),
        (change_count, "counts"),
        (change_content, "content .*000000"),
        (drop_document, "counts|documents"),
        (double_document, "unique"),
        (climb_out, r"\.\./"),
        (climb_out_by_path, r"leaves .*\.\./"),
        (absolute_path, "leaves .*/etc/passwd"),
        (half_a_hash, "64"),
        (unknown_field, "colour"),
        (no_documents, "no document"),
        (climb_out_by_name, "name"),
    ],
)
def test_a_manifest_that_differs_is_refused(changed, change, message):
    with pytest.raises(CorpusError, match=message):
        load_corpus(changed(change))


@needs_sample
def test_a_changed_document_is_refused_by_name(monkeypatch, tmp_path):
    """The hash is taken of the file, not believed of it."""
    package = tmp_path / "miner_diag" / "corpus"
    shutil.copytree(manifest_folder(), tmp_path / "data_manifests")
    shutil.copytree(Path(manifest.__file__).parent / "sample", package / "sample")
    monkeypatch.setattr(manifest, "__file__", str(package / "manifest.py"))
    victim = sorted((package / "sample").glob("*.pdf"))[0]
    victim.write_bytes(victim.read_bytes() + b"\n")
    with pytest.raises(CorpusError, match=f"{victim.name} has sha256"):
        load_corpus("sample")


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n", "a: [", "name: x\n"])
def test_a_file_that_is_no_manifest_is_a_sentence(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(CorpusError, match=r"mine\.yaml"):
        load_corpus(path)


def test_names_are_those_of_the_manifests():
    assert set(manifest_names()) == {path.stem for path in manifest_folder().glob("*.yaml")}
