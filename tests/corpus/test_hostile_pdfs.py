"""PDFs made to cost a reader everything: each is left out by name within its bounds, and the rest is read."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from miner_diag.corpus import CorpusError, load_corpus, manifest
from miner_diag.corpus.document import read_document
from miner_diag.corpus.limits import DEFAULT_LIMITS, MAX_RENDER_SIDE, PdfLimits
from miner_diag.corpus.pdf import open_page, open_pdf, render_page
from miner_diag.corpus.pdf_reader import OverLimitError, close_reader, draw_page, reader
from tests.corpus import hostile_pdfs
from tests.corpus.files import handbook

ROOT = Path(__file__).parents[2]
LITTLE = PdfLimits(memory_mb=300, page_seconds=1.0)
"""Bounds that a good page keeps by far, and a test of seconds."""
bounded_memory = pytest.mark.skipif(sys.platform != "linux", reason="this system has no bound of a process's memory")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What is read with one test's bounds is no other test's."""
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def usual_reader():
    yield
    close_reader()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (hostile_pdfs.self_drawing_form, "1 seconds of processor time|300 MB of memory"),
        (hostile_pdfs.nested_forms, "1 seconds of processor time|300 MB of memory"),
        (hostile_pdfs.long_text, "1 seconds of processor time|300 MB of memory"),
        (hostile_pdfs.slow_page, "more than the 1 seconds of processor time that it may take"),
        (hostile_pdfs.shadings, "more than the 1 seconds of processor time that it may take"),
        pytest.param(hostile_pdfs.memory_bomb, "300 MB of memory that it may take", marks=bounded_memory),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_good_documents_beside_a_bad_one_are_all_read_and_the_bad_one_is_named(folder, bad, reason):
    path = folder({"a.pdf": handbook(), "bad.pdf": bad(), "c.pdf": handbook("storms")})
    corpus = load_corpus(path, limits=LITTLE)
    assert {page.doc_id for page in corpus.pages} == {"a", "c"}
    assert len(corpus.queries) == 12
    (item,) = corpus.skipped
    assert item.name == "bad"
    assert item.reason.startswith("bad.pdf has no readable page: it ")
    assert re.search(reason, item.reason), item.reason


@pytest.mark.parametrize("bad", [hostile_pdfs.self_drawing_form, hostile_pdfs.slow_page])
def test_drawing_keeps_the_bounds_and_names_document_and_page(tmp_path, bad):
    (tmp_path / "bad.pdf").write_bytes(bad())
    (tmp_path / "good.pdf").write_bytes(handbook())
    with pytest.raises(OverLimitError, match=r"bad\.pdf, page 1 (takes|is .*needs) more than the (1 second|300 MB)"):
        draw_page(tmp_path / "bad.pdf", 1, 1000, limits=LITTLE)
    assert draw_page(tmp_path / "good.pdf", 1, 200, limits=LITTLE).size == (142, 200)


def test_one_slow_page_costs_its_document_that_page_alone(folder):
    corpus = load_corpus(folder({"a.pdf": hostile_pdfs.slow_among_good([1])}), limits=LITTLE)
    assert [page.page_number for page in corpus.pages] == [1, 3, 4]
    (item,) = corpus.skipped
    assert item.name == "a, page 2"
    assert item.reason == "it takes more than the 1 seconds of processor time that it may take"


def test_after_some_slow_pages_the_rest_of_a_document_is_not_tried(folder):
    limits = PdfLimits(page_seconds=0.3, broken_pages=2)
    corpus = load_corpus(folder({"a.pdf": hostile_pdfs.slow_among_good([1, 2, 3, 4])}), limits=limits)
    assert [page.page_number for page in corpus.pages] == [1]
    assert {item.name: item.reason for item in corpus.skipped}["a, pages 4 to 7"] == (
        "2 pages before went over what they may take, so the rest is not tried"
    )


def test_a_document_has_a_time_of_its_own(folder):
    path = folder({"a.pdf": hostile_pdfs.slow_among_good([1], times=200_000), "b.pdf": handbook("storms")})
    told = {item.name: item.reason for item in load_corpus(path, limits=PdfLimits(document_seconds=0.3)).skipped}
    assert set(told) == {"a, page 2", "a, pages 3 to 4"}
    assert told["a, pages 3 to 4"] == "its document takes more than the 0.3 seconds that it may take"


def test_what_time_left_out_is_read_again_and_what_the_file_left_out_is_kept(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(hostile_pdfs.slow_among_good([1], times=2_000))
    short = read_document(path, "a", PdfLimits(page_seconds=0.05))
    assert [number for number, _ in short.skipped] == [2]
    whole = read_document(path, "a")
    assert [page.number for page in whole.pages] == [1, 2, 3, 4]
    close_reader()
    assert read_document(path, "a", PdfLimits(page_seconds=0.05)) == whole
    assert reader(DEFAULT_LIMITS).process is None, "a document in the cache needs no reader"


def test_a_claim_of_a_million_pages_is_two_sentences(folder):
    limits = PdfLimits(pages=50)
    corpus = load_corpus(folder({"a.pdf": handbook(), "b.pdf": hostile_pdfs.page_count()}), limits=limits)
    assert {page.doc_id for page in corpus.pages} == {"a", "b"}
    told = {item.name: item.reason for item in corpus.skipped}
    assert set(told) == {"b, 49 pages", "b, pages 51 to 1,000,000"}
    assert told["b, pages 51 to 1,000,000"] == "at most 50 pages of a document are read"
    assert told["b, 49 pages"].startswith("page 2 is not readable")


def test_a_flood_of_bookmarks_is_read_up_to_its_bound_and_named(folder):
    content = hostile_pdfs.bookmark_flood(n_pages=3)
    corpus = load_corpus(folder({"a.pdf": content}), limits=PdfLimits(bookmarks=100))
    assert sum(query.kind == "outline" for query in corpus.queries) == 100
    assert [item.reason for item in corpus.skipped if item.name == "a, bookmarks"] == [
        "at most 100 bookmarks of a document are read, and it has more"
    ]


def test_titles_without_end_are_no_queries_and_are_counted(folder):
    content = hostile_pdfs.bookmark_flood(5, title=b"Heights of tides " * 100)
    corpus = load_corpus(folder({"a.pdf": content, "b.pdf": handbook()}))
    assert not any(len(query.text) > 1_000 for query in corpus.queries)
    assert "a, 5 titles and captions" in [item.name for item in corpus.skipped]


def test_bounds_of_ones_own_have_their_own_place_in_the_cache(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(handbook(n_pages=5))
    assert len(read_document(path, "a").pages) == 5
    assert len(read_document(path, "a", PdfLimits(pages=2)).pages) == 2
    assert len(read_document(path, "a").pages) == 5


@pytest.mark.parametrize("name", ["page_seconds", "document_seconds", "pages", "bookmarks", "notes", "memory_mb"])
def test_bounds_that_are_none_are_sentences(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0; got 0"):
        PdfLimits(**{name: 0})
    with pytest.raises(ValueError, match="memory_mb must be at least 256; got 100"):
        PdfLimits(memory_mb=100)


def test_forty_damaged_files_are_read_or_named(folder):
    """Whatever bytes of a real document are changed, it is used or named, and the run goes on."""
    sound = (Path(manifest.__file__).parent / "sample" / "xace-spec.pdf").read_bytes()
    draw, files = random.Random(7), {"good.pdf": handbook()}
    for number in range(40):
        content = bytearray(sound)
        for at in draw.sample(range(len(content)), 300 if number % 2 else 30):
            content[at] = draw.randrange(256)
        files[f"damaged-{number}.pdf"] = bytes(content[: draw.randrange(len(content) // 2, len(content) + 1)])
    corpus = load_corpus(folder(files), limits=PdfLimits(pages=2, page_seconds=2))
    used, named = {page.doc_id for page in corpus.pages}, {item.name.split(",")[0] for item in corpus.skipped}
    assert used | named >= {name.removesuffix(".pdf") for name in files}
    assert sum(query.doc_id == "good" for query in corpus.queries) == 4


# --- the process


def test_several_threads_draw_what_one_draws(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.pdf").write_bytes(handbook(name * 5))
    wanted = {(name, n): draw_page(tmp_path / f"{name}.pdf", n, 300).tobytes() for name in "ab" for n in (1, 2, 3)}
    found = {}

    def draw(name):
        for n in (1, 2, 3):
            found[name, n] = draw_page(tmp_path / f"{name}.pdf", n, 300).tobytes()

    threads = [threading.Thread(target=draw, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


def test_a_reader_that_was_ended_from_outside_is_started_again(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(handbook())
    first = draw_page(path, 1, 300).tobytes()
    process = reader(DEFAULT_LIMITS).process
    process.kill()
    process.wait()
    assert draw_page(path, 1, 300).tobytes() == first


def test_what_is_drawn_is_the_callers_own_and_of_its_page_alone(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(handbook(n_pages=2))
    wanted = {}
    with open_pdf(path) as document:
        for number, side in ((1, MAX_RENDER_SIDE), (2, 300), (1, 16)):
            with open_page(document, number) as page:
                wanted[number, side] = render_page(page, side)
    assert {asked: draw_page(path, *asked) for asked in wanted} == wanted


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system does not list its processes")
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_shared_memory_has_no_name_and_is_gone_with_its_reader(tmp_path, monkeypatch, kind):
    """What has no name can't stay behind, whichever of the two processes is killed."""
    path = tmp_path / "a.pdf"
    path.write_bytes(handbook())
    first = draw_page(path, 1, 300)
    close_reader()
    if kind == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    opened = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert draw_page(path, 1, 300) == first
        process = reader(DEFAULT_LIMITS).process
        lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        (shared,) = (line.split(maxsplit=5)[5] for line in lines if " rw-s " in line)
        assert shared.endswith("(deleted)") and shared in Path("/proc/self/maps").read_text()
        process.kill()
        process.wait()
    close_reader()
    assert shared not in Path("/proc/self/maps").read_text()
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_file_that_changes_between_two_drawings_is_opened_again(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(handbook())
    first = draw_page(path, 1, 300).tobytes()
    path.write_bytes(handbook("storms"))
    assert draw_page(path, 1, 300).tobytes() != first


def test_an_error_inside_the_library_is_named(tmp_path, caplog):
    path = tmp_path / "a.pdf"
    path.write_bytes(handbook())
    with pytest.raises(CorpusError, match=r"it can't be read \(TypeError: "):
        draw_page(path, 1, "wide")
    assert "Traceback" in caplog.text


FORKED = """
import os, sys
from pathlib import Path
from miner_diag.corpus.pdf_reader import draw_page
path = Path(sys.argv[1])
first = draw_page(path, 1, 300).tobytes()
child = os.fork()
if child == 0:
    os._exit(0 if draw_page(path, 1, 300).tobytes() == first else 1)
assert os.waitpid(child, 0)[1] == 0
assert draw_page(path, 1, 300).tobytes() == first
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_reader_of_its_own(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(handbook())
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, str(path)], check=True, cwd=ROOT, timeout=120)


STOPPED = """
import signal, sys, threading, time
from pathlib import Path
from miner_diag.corpus.limits import PdfLimits
from miner_diag.corpus.pdf_reader import draw_page, reader
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background is started without it
limits = PdfLimits(page_seconds=60)
threading.Thread(target=draw_page, args=(Path(sys.argv[1]), 1, 2000), kwargs={"limits": limits}, daemon=True).start()
while reader(limits).process is None:
    time.sleep(0.01)
print(reader(limits).process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system does not list its processes")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_reader_outlives_the_process_that_started_it(tmp_path, ending):
    path = tmp_path / "slow.pdf"
    path.write_bytes(hostile_pdfs.slow_page(200_000))
    command = [sys.executable, "-c", STOPPED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True) as parent:
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.is_dir()
        parent.send_signal(ending)
        parent.wait(30)
    for _ in range(300):
        if not worker.is_dir() or "zombie" in (worker / "status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the reader is still there")
