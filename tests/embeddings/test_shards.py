"""A shard: given back as it was written, and refused where anything in it is not what was written."""

import json
import struct

import numpy as np
import pytest
from safetensors import safe_open

from miner_diag.embeddings import shards
from miner_diag.embeddings.shards import DamagedStoreError, described_items, open_shard, write_shard
from miner_diag.embeddings.store import LAYERS
from miner_diag.embeddings.tokens import TOKENS
from miner_diag.files import sha256_bytes
from tests.embeddings.helpers import damage

IDS = ["a", "b", "ä"]
NAME = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def nothing_verified(monkeypatch):
    """Files are checked as by a new process, not as by the one that wrote them."""
    monkeypatch.setattr(shards, "_verified", set())


def tensors_of(kind):
    noted = {"notes": np.array([0, 1, 2]), "characters": np.array([[7, 7], [0, 0], [5, 9]])}
    if kind is LAYERS:
        layers = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
        return {"layer_embeddings": layers, **noted, "inputs": np.array([7, -3, 7])}
    return {
        "lengths": np.array([1, 3, 2]),
        **noted,
        "token_vectors": np.arange(12).reshape(6, 2).astype(np.float16),
    }


def write(folder, kind=LAYERS, digest="store", name=NAME):
    path = folder / f"{name}.safetensors"
    write_shard(path, kind, digest, IDS, tensors_of(kind))
    shards._verified.clear()
    return path


@pytest.mark.parametrize("kind", [LAYERS, TOKENS])
def test_gives_back_what_was_written_mapped(tmp_path, kind):
    path = write(tmp_path, kind)
    shard = open_shard(path, kind, "store")
    assert (shard.path, shard.name, shard.ids) == (path, NAME, tuple(IDS))
    assert set(shard.tensors) == set(kind.tensors)
    for name, expected in tensors_of(kind).items():
        np.testing.assert_array_equal(shard.tensors[name], expected)
        assert shard.tensors[name].dtype == expected.dtype
        assert isinstance(shard.tensors[name], np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            shard.tensors[name][...] = 0
    assert described_items(path) == 3


def test_other_programs_can_read_it(tmp_path):
    with safe_open(write(tmp_path), "np") as file:
        np.testing.assert_array_equal(file.get_tensor("layer_embeddings"), tensors_of(LAYERS)["layer_embeddings"])
        assert json.loads(file.metadata()["miner_diag"])["ids"] == IDS


def test_equal_content_gives_equal_bytes_and_no_other_file(tmp_path):
    first, second = write(tmp_path / "one"), write(tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize("kind", [LAYERS, TOKENS])
def test_every_flipped_bit_is_noticed(tmp_path, kind):
    path = write(tmp_path, kind)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    for at in [*range(8 + length), *range(8 + length, len(content), 7), len(content) - 1]:
        path.write_bytes(content)
        damage(path, at)
        with pytest.raises(DamagedStoreError, match=rf"{NAME}\.safetensors is damaged: .*Delete this file"):
            open_shard(path, kind, "store")


@pytest.mark.parametrize("size", [0, 5, 50, 400, -1, -30])
def test_a_cut_file_is_refused_by_name(tmp_path, size):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedStoreError, match=rf"{NAME}\.safetensors is damaged"):
        open_shard(path, LAYERS, "store")


def test_a_file_with_something_behind_it_is_refused(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + b"1234")
    with pytest.raises(DamagedStoreError, match="bytes of vectors are not those that its header describes"):
        open_shard(path, LAYERS, "store")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DamagedStoreError, match=r"x\.safetensors is damaged: .*No such file"):
        open_shard(tmp_path / "x.safetensors", LAYERS, "store")


def test_a_shard_of_another_store_kind_or_name_is_refused(tmp_path):
    path = write(tmp_path)
    with pytest.raises(DamagedStoreError, match="other items than its name says, or those of another store"):
        open_shard(path, LAYERS, "another")
    with pytest.raises(DamagedStoreError, match=r"it is no shard of token vectors \(KeyError\('lengths'\)\)"):
        open_shard(path, TOKENS, "store")
    renamed = path.rename(tmp_path / f"{'f' * 32}.safetensors")
    with pytest.raises(DamagedStoreError, match="other items than its name says"):
        open_shard(renamed, LAYERS, "store")


def test_the_hash_is_computed_once_in_a_process_and_again_after_a_change(tmp_path, monkeypatch):
    path, hashed = write(tmp_path), []
    start = shards._start_hash
    monkeypatch.setattr(shards, "_start_hash", lambda *given: hashed.append(1) or start(*given))
    for _ in range(3):
        open_shard(path, LAYERS, "store")
    assert len(hashed) == 1
    damage(path)
    with pytest.raises(DamagedStoreError, match="its sha256 is [0-9a-f]{64}, noted was"):
        open_shard(path, LAYERS, "store")


def test_the_bytes_of_format_4_do_not_change(tmp_path):
    """Stores that people have must be read on: the same vectors give these very files."""
    files = {kind.name: write(tmp_path / kind.label, kind) for kind in (LAYERS, TOKENS)}
    hashes = {name: sha256_bytes(path.read_bytes())[:16] for name, path in files.items()}
    assert hashes == {"pooled layers": "6e3a9c67acf0676b", "token vectors": "96022033fa821fc1"}
