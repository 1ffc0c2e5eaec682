import os

import pytest

from miner_diag import file_hashes
from miner_diag.backbones.revision import folder_revision


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    return tmp_path


def test_changes_with_every_file_that_counts_and_with_no_other(folder):
    first = folder_revision(folder)
    assert first.startswith("sha256:") and len(first) == 71
    (folder / "README.md").write_text("a card")
    (folder / ".lock").write_text("")
    assert folder_revision(folder) == first
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    second = folder_revision(folder)
    (folder / "model.safetensors").write_bytes(b"Weights")
    os.utime(folder / "model.safetensors", ns=(1, 1))  # written within the clock's tick
    third = folder_revision(folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert len({first, second, third, folder_revision(folder)}) == 4


def test_does_not_depend_on_where_the_folder_is(folder, tmp_path_factory):
    import shutil

    elsewhere = shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "copy")
    assert folder_revision(elsewhere) == folder_revision(folder)


def test_a_file_is_hashed_once(folder, monkeypatch):
    first = folder_revision(folder)
    monkeypatch.setattr(file_hashes, "sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    assert folder_revision(folder) == first


def test_a_damaged_memory_is_no_memory(folder):
    first = folder_revision(folder)
    for path in (file_hashes.cache_folder() / "revisions").glob("*.json"):
        path.write_text("{")
    assert folder_revision(folder) == first


def test_an_empty_folder_has_none(tmp_path):
    with pytest.raises(ValueError, match="holds no weight or configuration file"):
        folder_revision(tmp_path)
