"""One command in one folder: the second is told, and nothing that a dead process left behind is in the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from miner_diag.files import atomic_path, remove_leftovers
from miner_diag.locks import LOCK_FILE, FolderInUseError, lock_folder, release_folders
from miner_diag.runs import RunFolder, begin_run
from tests.test_stopping import waiting


def test_a_second_command_in_a_folder_is_told_and_a_dead_one_blocks_nobody(tmp_path, capsys):
    process = waiting(tmp_path / "run")
    half = [path.name for path in (tmp_path / "run").iterdir() if "-partial-" in path.name]
    message = rf"run is in use by another command \(python -m tests.waiting, process {process.pid}\); wait until it "
    for begin in (RunFolder, begin_run):
        with pytest.raises(FolderInUseError, match=message + "has ended, or choose another --out"):
            begin(tmp_path / "run", "miner_diag.cka", {})
    assert remove_leftovers(tmp_path) == []  # a living process writes it
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "run" / LOCK_FILE).exists() and len(half) == 1 and (tmp_path / "run" / half[0]).exists()
    run = begin_run(tmp_path / "run", "miner_diag.cka", {})
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE]
    run.finish(facts={})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_one_process_may_use_a_folder_twice_and_others_stay_free(tmp_path):
    first, second = lock_folder(tmp_path / "a", "x"), lock_folder(tmp_path / "b" / ".." / "a", "y")
    assert first is second and lock_folder(tmp_path / "c", "x") is not first
    release_folders()
    assert not any((tmp_path / name).exists() for name in "ac")
    assert lock_folder(tmp_path / "a", "x") is not first


def test_a_lock_that_nobody_refers_to_is_released(tmp_path):
    lock_folder(tmp_path, "x")
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_the_lock_is_the_parents_alone(tmp_path):
    code = f"""
import os, time
from pathlib import Path
from miner_diag.locks import lock_folder
lock = lock_folder(Path({str(tmp_path)!r}), "x")
if os.fork() == 0:
    print("forked", flush=True)
    time.sleep(5)
os._exit(0)
"""
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert done.stdout.readline() == b"forked\n"
    done.stdout.close()
    done.wait()
    lock_folder(tmp_path, "y")  # the child lives on


def test_only_the_first_process_of_a_launcher_takes_the_lock(tmp_path, monkeypatch):
    process = waiting(tmp_path / "run")
    monkeypatch.setenv("RANK", "1")
    RunFolder(tmp_path / "run", "miner_diag.embeddings", {})
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(FolderInUseError):
        RunFolder(tmp_path / "run", "miner_diag.embeddings", {})
    process.kill()
    process.communicate()


def test_leftovers_are_known_by_their_name(tmp_path):
    ours = [tmp_path / ".layers-partial-abc_1234.csv", tmp_path / "a" / "b" / ".run-partial-abcdefgh.json"]
    others = [tmp_path / name for name in (".my-settings.yaml", "x-partial-abc_1234.csv", ".a-partial-ABC.csv", ".git")]
    deep = tmp_path / "a" / "b" / "c" / ".run-partial-abcdefgh.json"
    for path in (*ours, *others, deep):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with atomic_path(tmp_path / "new.csv") as path:
        path.write_text("new")
        assert remove_leftovers(tmp_path, seconds=60) == []
        assert sorted(remove_leftovers(tmp_path)) == sorted(ours)
    assert (tmp_path / "new.csv").read_text() == "new"
    assert all(path.exists() for path in (*others, deep)) and not any(path.exists() for path in ours)
