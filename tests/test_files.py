import errno
import os
from pathlib import Path

import pytest

from miner_diag.files import (
    PlaceError,
    atomic_path,
    cache_folder,
    canonical_json,
    sha256_bytes,
    sha256_file,
    write_atomic,
)


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "layers.csv"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["layers.csv"]


def test_write_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["b.txt"]


def test_temporary_name_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "figure.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")


def test_written_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == sha256_bytes(content)
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_canonical_json_does_not_depend_on_order_and_refuses_nan():
    assert canonical_json({"b": 1, "a": [1, "ä"]}) == canonical_json({"a": [1, "ä"], "b": 1}) == '{"a":[1,"ä"],"b":1}'
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


def test_cache_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            errno.ENOSPC,
            r"a.json cannot be written \(No space left on device\); free space there, or name another folder",
        ),
        (
            errno.EROFS,
            r"a.json cannot be written \(Read-only file system\); make that folder writable, or name another",
        ),
        (errno.EACCES, r"a.json cannot be written \(Permission denied\); make that folder writable"),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "write_bytes", "replace"])
def test_the_place_is_blamed_if_it_cannot_be_written(tmp_path, monkeypatch, number, message, call):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    write_atomic(tmp_path / "a.json", "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, call, fail)
        with pytest.raises(PlaceError, match=message) as raised:
            write_atomic(tmp_path / "a.json", "new")
    assert raised.value.errno == number and isinstance(raised.value, OSError)
    assert (tmp_path / "a.json").read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_the_cache_folders_variable_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "file"))
    with pytest.raises(PlaceError, match=r"set MINER_DIAG_CACHE to another folder"):
        write_atomic(cache_folder() / "documents" / "a.json", "x")


def test_an_error_of_the_content_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.png"):
        (tmp_path / "none.pdf").read_bytes()
    with pytest.raises(PlaceError, match="a.png cannot be written"), atomic_path(tmp_path / "a.png"):
        raise OSError(errno.ENOSPC, "No space left on device")
