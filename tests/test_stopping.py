"""A command that gets SIGINT or SIGTERM ends with one sentence and the shell's status, wherever it is."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from miner_diag.stopping import Stopped, is_command_being_imported, stopped_with_a_sentence

ROOT = Path(__file__).parents[1]
SENTENCES = {
    number: f"stopped by {number.name}; what was finished is kept, and the same command again takes up the run"
    for number in (signal.SIGINT, signal.SIGTERM)
}
WAITING = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from miner_diag.command import run_command
from miner_diag.files import atomic_path
from miner_diag.runs import RunFolder

@dataclass(frozen=True)
class Options:
    \"\"\"Wait.\"\"\"
    out: Path

def run(options):
    folder = RunFolder(options.out, "tests.waiting", options)
    with atomic_path(options.out / "half.csv") as path:
        path.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

run_command(Options, run, "tests.waiting", ["--out", sys.argv[1]])
"""


def waiting(out):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(out)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SENTENCES, ids=lambda number: number.name)
def test_a_running_command_ends_with_a_sentence_and_leaves_nothing_half_written(tmp_path, number):
    process = waiting(tmp_path / "run")
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert (err, process.returncode) == (SENTENCES[number] + "\n", 128 + number)
    assert not (tmp_path / "run").exists()  # the lock and the half-written file are gone, and so is the empty folder


@pytest.mark.parametrize("number", SENTENCES, ids=lambda number: number.name)
def test_a_command_that_still_imports_its_libraries_ends_with_a_sentence(tmp_path, number):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this platform does not say which libraries a process has loaded")
    words = ["-m", "miner_diag.cka"] if number == signal.SIGINT else ["-m", "miner_diag", "cka"]
    process = subprocess.Popen(
        [sys.executable, *words, "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert (err, process.returncode) == (SENTENCES[number] + "\n", 128 + number)


def test_handlers_come_back_and_other_endings_stay(capsys):
    before = [signal.getsignal(number) for number in SENTENCES]
    for ending in (ValueError("a"), SystemExit(3), Stopped(signal.SIGTERM), KeyboardInterrupt()):
        stopped = isinstance(ending, KeyboardInterrupt)
        with pytest.raises(SystemExit if stopped else type(ending)) as ended, stopped_with_a_sentence():
            raise ending
        if stopped:
            assert ended.value.code == (143 if isinstance(ending, Stopped) else 130)
            assert "the same command again takes up the run" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in SENTENCES] == before


def test_a_thread_that_is_not_the_main_one_leaves_the_handlers_alone():
    before, done = [signal.getsignal(number) for number in SENTENCES], []

    def work():
        with stopped_with_a_sentence():
            done.append([signal.getsignal(number) for number in SENTENCES])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [before]


def test_a_program_that_imports_the_package_keeps_its_own_handlers():
    code = "import signal, miner_diag; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n" and not is_command_being_imported()
