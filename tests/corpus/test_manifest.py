"""Manifests are checked: hashes, counts, names and paths; whatever differs is a sentence."""

from __future__ import annotations

import copy
import functools
import shutil
from pathlib import Path

import pytest
import yaml

from miner_diag.corpus import CorpusError, fields_file, load_corpus, manifest, manifest_names, read_manifest
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


def sound_manifest():
    """A small manifest of a fetched data set, which is sound until a test changes it."""
    document = {
        "id": "a-manual",
        "sha256": "0" * 64,
        "package": "docs-a",
        "version": "1:1.0+dfsg-1~deb12u1",
        "path": "usr/share/doc/docs-a/a.pdf.gz",
    }
    package = {"name": "docs-a", "version": "1.0", "bytes": 7}
    return {"name": "mine", "source": "debian", "description": "x", "documents": [document], "packages": [package]}


def written(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_small_sound_manifest_is_read(tmp_path):
    assert read_manifest(written(tmp_path, sound_manifest())).packages[0].name == "docs-a"


@pytest.mark.parametrize(
    "value",
    ["-oDir::Bin::dpkg=/tmp/x", "--help", "./x.deb", "/tmp/x.deb", "a b", "docs-a:amd64", "docs-a/sid", "A", ""],
)
@pytest.mark.parametrize("place", ["packages", "documents"])
def test_a_package_name_that_a_program_could_take_for_something_else_is_refused(tmp_path, place, value):
    content = sound_manifest()
    content[place][0]["name" if place == "packages" else "package"] = value
    with pytest.raises(CorpusError, match=r"mine\.yaml: .*must match \[a-z0-9\]"):
        read_manifest(written(tmp_path, content))


@pytest.mark.parametrize("value", ["-o", "1.0 --x", "x1", "../1", "1/2", "1;ls", "1\n", "", "1" * 500])
@pytest.mark.parametrize("place", ["packages", "documents"])
def test_a_version_that_is_none_is_refused(tmp_path, place, value):
    content = sound_manifest()
    content[place][0]["version"] = value
    with pytest.raises(CorpusError, match=r"mine\.yaml: version of .* must match"):
        read_manifest(written(tmp_path, content))


WRONG_VALUES = [7, 1.5, None, True, [], ["x"], {}, {"a": 1}, "\x00", "\x1b[2J"]


@pytest.mark.parametrize("value", WRONG_VALUES, ids=repr)
@pytest.mark.parametrize("name", ["id", "sha256", "package", "version", "path", "title", "licence"])
def test_a_document_field_of_another_kind_is_a_sentence(tmp_path, name, value):
    content = sound_manifest()
    content["documents"][0][name] = value
    with pytest.raises(CorpusError, match=rf"mine\.yaml: .*{name}"):
        read_manifest(written(tmp_path, content))


@pytest.mark.parametrize("value", [-1, 1.5, True, "7", None, [], {}, 10**400], ids=lambda value: repr(value)[:9])
def test_a_size_that_is_none_is_a_sentence(tmp_path, value):
    content = sound_manifest()
    content["packages"][0]["bytes"] = value
    with pytest.raises(CorpusError, match=r"mine\.yaml: packages, number 1: bytes must be a whole number"):
        read_manifest(written(tmp_path, content))


@pytest.mark.parametrize("value", [7, "text", {"a": 1}, [7], ["text"], [[]], [None]], ids=repr)
@pytest.mark.parametrize("name", ["documents", "packages"])
def test_rows_that_are_no_rows_are_sentences(tmp_path, name, value):
    with pytest.raises(
        CorpusError, match=rf"mine\.yaml: ({name} must be a list|{name}, number 1: expected a Manifest)"
    ):
        read_manifest(written(tmp_path, sound_manifest() | {name: value}))


@pytest.mark.parametrize("value", [7, "text", ["x"], {"documents": "7"}, {"documents": -1}, {7: 7}], ids=repr)
def test_counts_that_are_none_are_sentences(tmp_path, value):
    with pytest.raises(CorpusError, match=r"mine\.yaml: .*counts"):
        read_manifest(written(tmp_path, sound_manifest() | {"counts": value}))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500,
        "{a: " * 500,
        "name: " + "9" * 5_000,
        "name: 2001-99-99",
        "name: !!bool x",
        "name: !!timestamp x",
        "name: !!python/object/apply:os.system [ls]",
        "? [a, list]\n: x",
        "7: seven",
        "? !!null x\n: y\n1: z",
        "a: &a [x, x, x]\n" + "".join(f"b{n}: &b{n} [*{'a' if not n else f'b{n - 1}'}, *a]\n" for n in range(50)),
    ],
    ids=lambda text: text[:12],
)
def test_yaml_that_breaks_the_parser_or_grows_without_end_is_a_short_sentence(tmp_path, text):
    with pytest.raises(CorpusError, match=r"mine\.yaml") as raised:
        read_manifest(written(tmp_path, text))
    assert len(str(raised.value)) < 1_000 and "\n" not in str(raised.value)


def test_a_row_that_refers_to_itself_many_times_is_shown_shortened(tmp_path):
    links = "".join(f"- &b{n} [*b{n - 1}, *b{n - 1}]\n" for n in range(1, 60))
    text = f"name: x\nsource: debian\ndescription: x\ndocuments:\n- &b0 [x]\n{links}"
    with pytest.raises(CorpusError, match="expected a ManifestDocument") as raised:
        read_manifest(written(tmp_path, text))
    assert len(str(raised.value)) < 1_000


def test_a_huge_file_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(fields_file, "MAX_FILE_BYTES", 100)
    with pytest.raises(CorpusError, match=r"mine\.yaml has 200 bytes; expected at most 100"):
        read_manifest(written(tmp_path, "#" * 200))


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
