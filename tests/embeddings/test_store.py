import json

import numpy as np
import pytest

from miner_diag.embeddings.shards import DamagedStoreError, ForeignStoreError, StoreError, UnfinishedStoreError
from miner_diag.embeddings.store import StoreWriter, open_store
from miner_diag.files import sha256_bytes

KEY = {"backbone": "pretend", "pooling": "mean"}
IDS = ["a", "b", "c", "d", "e"]
SHARDS = [[4, 0], [2, 1, 3]]


@pytest.fixture
def vectors(rng):
    return rng.normal(size=(5, 3, 2)).astype(np.float32)


def fill(folder, vectors, key=KEY, ids=IDS):
    writer = StoreWriter(folder, key, ids, vectors.shape, {"empty": 1})
    for number, positions in enumerate(SHARDS):
        if not writer.has(number, positions):
            writer.write(number, positions, vectors[positions])
    return writer.finish(len(SHARDS))


@pytest.fixture
def folder(tmp_path, vectors):
    return fill(tmp_path / "store", vectors).folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def damage(path, at=-3):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_gives_back_what_was_written_in_the_items_order(folder, vectors):
    store = open_store(folder, KEY)
    assert (store.ids, store.shape, store.key, len(store)) == (tuple(IDS), (5, 3, 2), KEY, 5)
    assert store.counts == {"empty": 1}
    np.testing.assert_array_equal(store.layer_embeddings, vectors)
    for layer in range(3):
        np.testing.assert_array_equal(store.layer(layer), vectors[:, layer])
    assert store.layer_embeddings.dtype == np.float32
    with pytest.raises(ValueError, match="layer must be 0 … 2; got 3"):
        store.layer(3)
    with pytest.raises(ValueError, match="read-only"):
        store.layer_embeddings[0] = 0


def test_shards_are_mapped_not_read(folder):
    assert all(isinstance(vectors, np.memmap) for _, vectors in open_store(folder)._shards)


def test_equal_content_gives_equal_bytes(folder, tmp_path, vectors):
    fill(tmp_path / "again", vectors)
    assert content(tmp_path / "again") == content(folder)


def test_leaves_no_temporary_file(folder):
    assert sorted(content(folder)) == [
        "key.json",
        "shard-00000.safetensors",
        "shard-00001.safetensors",
        "shards.json",
    ]


def test_a_foreign_store_is_refused_with_the_fields_that_differ(folder, tmp_path, vectors):
    before = content(folder)
    asked = {"backbone": "other", "pooling": "mean", "reader": "ocr"}
    for refused in (lambda: open_store(folder, asked), lambda: StoreWriter(folder, asked, IDS, vectors.shape)):
        with pytest.raises(ForeignStoreError) as caught:
            refused()
        assert caught.value.fields == ("backbone", "reader")
        assert "backbone: 'pretend' there, 'other' asked for" in str(caught.value)
        assert "reader: '(absent)' there, 'ocr' asked for" in str(caught.value)
        assert "pooling" not in str(caught.value)
    assert content(folder) == before


def test_other_items_under_the_same_key_are_refused(folder, vectors):
    with pytest.raises(StoreError, match="the same key but other items or another shape"):
        StoreWriter(folder, KEY, ["a", "b", "c", "d", "f"], vectors.shape)


@pytest.mark.parametrize("at", [9, -3, 200])
def test_a_damaged_shard_is_refused_by_name(folder, at):
    damage(folder / "shard-00001.safetensors", at)
    with pytest.raises(
        DamagedStoreError, match=r"shard-00001\.safetensors is damaged: its sha256 is [0-9a-f]{64}, noted"
    ):
        open_store(folder)


@pytest.mark.parametrize("at", [0, 3, 9, 30, 60, 100, 150, 200, 260, -30, -1])
def test_a_damaged_shard_of_an_unfinished_store_is_refused_by_name(folder, vectors, at):
    (folder / "shards.json").unlink()
    damage(folder / "shard-00000.safetensors", at)
    with pytest.raises(DamagedStoreError, match=r"shard-00000\.safetensors is damaged"):
        fill(folder, vectors)


def test_a_cut_or_missing_shard_is_refused_by_name(folder):
    path = folder / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DamagedStoreError, match=r"shard-00000\.safetensors is damaged: its sha256"):
        open_store(folder)
    path.unlink()
    with pytest.raises(DamagedStoreError, match=r"shard-00000\.safetensors is damaged: it is missing"):
        open_store(folder)


def test_a_damaged_key_or_index_is_refused_by_name(folder):
    key = (folder / "key.json").read_text()
    (folder / "key.json").write_text(key.replace('"c"', '"x"'))
    with pytest.raises(DamagedStoreError, match=r"key\.json is damaged: its sha256"):
        open_store(folder)
    (folder / "key.json").write_text("{}")
    with pytest.raises(DamagedStoreError, match=r"key\.json is damaged: fields are missing"):
        open_store(folder)
    (folder / "key.json").write_text(key)
    (folder / "shards.json").write_text("[")
    with pytest.raises(DamagedStoreError, match=r"shards\.json is damaged"):
        open_store(folder)


def test_shards_of_another_plan_are_refused(folder, vectors):
    (folder / "shards.json").unlink()
    writer = StoreWriter(folder, KEY, IDS, vectors.shape, {"empty": 1})
    with pytest.raises(DamagedStoreError, match="it holds other items than this store's"):
        writer.has(0, [0, 4])


def test_an_unfinished_or_absent_store_is_told(folder, tmp_path):
    (folder / "shards.json").unlink()
    with pytest.raises(UnfinishedStoreError, match="has not finished; start it again, it resumes"):
        open_store(folder)
    with pytest.raises(UnfinishedStoreError, match="holds no embeddings"):
        open_store(tmp_path / "nowhere")


def test_shards_without_a_key_are_refused(folder, vectors):
    (folder / "key.json").unlink()
    with pytest.raises(StoreError, match=r"holds shards but no key\.json"):
        fill(folder, vectors)


def test_another_format_is_told(folder):
    header = json.loads((folder / "key.json").read_text())
    (folder / "key.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(StoreError, match="store format 99, this version reads 1"):
        open_store(folder)


def test_half_files_of_a_killed_run_are_cleared_and_no_other_file(folder, vectors):
    (folder / "shards.json").unlink()
    (folder / ".shard-00001-abc123.safetensors").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    fill(folder, vectors)
    assert not list(folder.glob(".shard*"))
    assert (folder / "notes.txt").exists()


def test_vectors_of_another_shape_or_dtype_are_refused(tmp_path, vectors):
    writer = StoreWriter(tmp_path / "store", KEY, IDS, vectors.shape)
    with pytest.raises(ValueError, match=r"vectors must be float32 \(2, 3, 2\); got float64 \(2, 3, 2\)"):
        writer.write(0, [0, 1], vectors[:2].astype(np.float64))
    with pytest.raises(ValueError, match=r"got float32 \(1, 3, 2\)"):
        writer.write(0, [0, 1], vectors[:1])


def test_the_bytes_of_format_1_do_not_change(tmp_path):
    """Stores that people have must still be resumed and opened: the same key and vectors give these very files."""
    fill(tmp_path / "store", np.arange(30, dtype=np.float32).reshape(5, 3, 2))
    found = {name: sha256_bytes(data)[:16] for name, data in content(tmp_path / "store").items()}
    assert found == {
        "key.json": "a16bbabfac6366d2",
        "shard-00000.safetensors": "ce8cc8cc62e0130c",
        "shard-00001.safetensors": "6d14d43ad7df83a6",
        "shards.json": "f5fe712e5f86c851",
    }
