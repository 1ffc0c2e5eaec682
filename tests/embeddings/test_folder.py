"""The folder of a store: begun once, refused when foreign, of another format or damaged."""

import json
import os
import time

import pytest

from miner_diag.embeddings import DamagedStoreError, ForeignStoreError, StoreError
from miner_diag.embeddings.folder import StoreFolder
from miner_diag.embeddings.store import LAYERS
from miner_diag.embeddings.tokens import TOKENS
from tests.embeddings.helpers import kept_bytes

KEY = {"backbone": "pretend", "pooling": "mean"}
FIELDS = {"layers": 3, "width": 2, "dtype": "float32"}


def folder_of(root, kind=LAYERS, side="page", model="org/a model", key=KEY, fields=FIELDS):
    return StoreFolder(root, kind, side, model, key, fields)


def change_key(folder, **changed):
    path = folder.path / "key.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.fixture
def folder(tmp_path):
    folder = folder_of(tmp_path / "store")
    folder.open()
    return folder


def test_its_name_is_readable_and_differs_where_a_number_may(tmp_path, folder):
    assert folder.path.parent == tmp_path / "store"
    assert folder.path.name.startswith("org-a-model-page-layers-")
    others = (
        folder_of(folder.path.parent, kind=TOKENS),
        folder_of(folder.path.parent, side="query"),
        folder_of(folder.path.parent, key={**KEY, "dtype": "bfloat16"}),
    )
    assert len({folder.path.name, *(other.path.name for other in others)}) == 4
    assert folder_of(folder.path.parent).path == folder.path
    header = json.loads((folder.path / "key.json").read_text())
    assert header["key"]["kind"] == "pooled layers" and header["key"]["side"] == "page"
    assert (header["format"], header["model"], header["layers"], header["width"]) == (4, "org/a model", 3, 2)


def test_opening_again_changes_nothing(folder):
    before = kept_bytes(folder.path)
    folder_of(folder.path.parent).open()
    assert kept_bytes(folder.path) == before


def test_a_foreign_store_is_refused_with_the_fields_that_differ(folder):
    change_key(
        folder, key={**{n: v for n, v in folder.key.items() if n != "pooling"}, "backbone": "x", "reader": "ocr"}
    )
    before = kept_bytes(folder.path)
    with pytest.raises(ForeignStoreError) as caught:
        folder.open()
    assert caught.value.fields == ("backbone", "pooling", "reader")
    assert "backbone: 'x' there, 'pretend' needed" in str(caught.value)
    assert "pooling: '(absent)' there, 'mean' needed" in str(caught.value)
    assert "reader: 'ocr' there, '(absent)' needed" in str(caught.value)
    assert "package_version" not in str(caught.value)
    assert kept_bytes(folder.path) == before


def test_another_shape_under_the_same_key_is_refused(folder):
    with pytest.raises(StoreError, match="the same key but vectors of another shape"):
        folder_of(folder.path.parent, fields={**FIELDS, "width": 3}).open()


def test_another_format_is_told(folder):
    change_key(folder, format=1)
    with pytest.raises(
        StoreError, match=r"store format 1, this version reads 4; delete that folder \(miner-diag store"
    ):
        folder.open()


def test_a_damaged_key_is_refused_by_name(folder):
    path = folder.path / "key.json"
    for content, why in (("[", "key.json is damaged"), ("[]", "no JSON object"), ("{}", "fields are missing")):
        path.write_text(content)
        with pytest.raises(DamagedStoreError, match=why):
            folder.open()


def test_shards_without_a_key_are_refused(folder):
    (folder.path / "key.json").unlink()
    (folder.path / "shards").mkdir()
    (folder.path / "shards" / "ab.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match=r"holds shards but no key\.json"):
        folder.open()


def test_a_store_is_no_folder_of_stores(folder):
    with pytest.raises(StoreError, match="is one store, not the folder that holds all of them; name another folder"):
        folder_of(folder.path).open()


def test_half_files_of_a_killed_run_are_cleared_in_time_and_no_other_file(folder):
    shards = folder.path / "shards"
    shards.mkdir()
    old, fresh = shards / ".0123-abc.safetensors", shards / ".4567-def.safetensors"
    for path in (old, fresh, folder.path / "notes.txt"):
        path.write_text("half")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    os.utime(folder.path / "notes.txt", (hours_ago, hours_ago))
    folder.open()
    assert not old.exists() and fresh.exists(), "another process may be writing the fresh one"
    assert (folder.path / "notes.txt").exists()
    assert folder.present() == set()
