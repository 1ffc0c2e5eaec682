"""Bad documents of a folder: each is left out by name with its reason, the rest is used; nothing left is an error."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.__main__ import main

BAD = {
    "empty": "empty|0 bytes",
    "no-pdf": "not a .*PDF",
    "cut-short": "not a .*PDF",
    "encrypted": "encrypted|password",
    "no-queries": "outline.*caption",
    "huge-page": "1000000 x 1000000",
    "long-page": "1000000 x 300",
    "bomb": "50000 x 50000",
    "wrapped-bomb": "50000 x 50000",
}
"""Documents that give nothing, and what the reason must say."""


@pytest.fixture
def bad(make):
    """Bytes of each bad document."""
    caption = make.Text("Figure 1: Average level of tides in all harbours")

    def document(drawing="", **page):
        texts = page.pop("texts", (caption,))
        if drawing:
            page |= {"drawing": f"q 400 0 0 400 50 50 cm {drawing} Q", "picture": (50_000, 50_000)}
        return make.pdf([make.PdfPage(texts, **page)])

    return {
        "empty": lambda: b"",
        "no-pdf": lambda: b"This is a letter, not a PDF.\n" * 50,
        "cut-short": lambda: make.handbook()[:300],
        "no-page": lambda: make.pdf([]),
        "encrypted": lambda: make.pdf([make.PdfPage((caption,))], password="secret"),
        "no-queries": lambda: document(texts=(make.Text("Only running text, neither title nor caption."),)),
        "huge-page": lambda: document(box=(0, 0, 10**6, 10**6)),
        "long-page": lambda: document(box=(0, 0, 10**6, 300)),
        "bomb": lambda: document("/Pic Do"),
        "wrapped-bomb": lambda: document("/Wrap Do"),
    }


@pytest.mark.parametrize("name", BAD)
def test_one_bad_document_is_left_out_by_name_and_the_rest_is_used(make, folder, bad, name):
    alone = load_corpus(folder({"good.pdf": make.handbook()}))
    both = load_corpus(folder({f"{name}.pdf": bad[name]()}))
    assert both.queries == alone.queries
    assert both.pages == alone.pages
    (item,) = both.skipped
    assert item.name == name
    assert re.search(BAD[name], item.reason), item.reason


def test_every_bad_document_is_named_with_its_own_reason(make, folder, bad, capsys, tmp_path):
    names = [name for name in BAD if "bomb" not in name]
    path = folder({"good.pdf": make.handbook()} | {f"deeper/{name}.pdf": bad[name]() for name in names})
    main(["--data", str(path), "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "run.json").read_text())["skipped"]
    assert set(written) == {f"deeper/{name}" for name in names}
    for name in names:
        assert re.search(BAD[name], written[f"deeper/{name}"])
        assert re.search(f"{name}.*({BAD[name]})", shown), f"the summary lacks {name}"


def test_a_document_without_pages_is_named(make, folder, bad):
    corpus = load_corpus(folder({"good.pdf": make.handbook(), "no-page.pdf": bad["no-page"]()}))
    assert [item.name for item in corpus.skipped] == ["no-page"]


def test_the_reason_does_not_depend_on_the_document_before(make, folder, bad):
    """pdfium keeps its last error: a document without pages must not inherit that of an encrypted one."""
    names = {"a-encrypted": "encrypted", "b-no-page": "no-page"}
    path = folder({"good.pdf": make.handbook()} | {f"{name}.pdf": bad[kind]() for name, kind in names.items()})
    reasons = {item.name: item.reason for item in load_corpus(path).skipped}
    assert "encrypted" in reasons["a-encrypted"]
    assert "encrypted" not in reasons["b-no-page"]


def test_nothing_usable_at_all_is_an_error_with_the_reasons(folder, bad):
    path = folder({f"{name}.pdf": bad[name]() for name in ("empty", "no-pdf", "no-queries")})
    with pytest.raises(CorpusError) as raised:
        load_corpus(path)
    for name in ("empty", "no-pdf", "no-queries"):
        assert name in str(raised.value)
        assert re.search(BAD[name], str(raised.value))


def test_a_folder_without_pdf_and_a_name_that_is_nothing_are_errors(folder):
    with pytest.raises(CorpusError, match=r"no PDF"):
        load_corpus(folder({"readme.txt": b"nothing"}))
    with pytest.raises(CorpusError, match=r"'no-such-data' .*sample"):
        load_corpus("no-such-data")


@pytest.mark.parametrize("options", [{"queries": "visible"}, {"fold": -1}])
def test_options_that_are_none_are_sentences(make, folder, options):
    name = next(iter(options))
    with pytest.raises(CorpusError, match=name):
        load_corpus(folder({"good.pdf": make.handbook()}), **options)


# --- bad pages in good documents


def test_one_bad_page_is_left_out_by_name_and_the_others_are_used(make, folder):
    page, text = make.PdfPage, make.Text
    pages = [
        page((text("Figure 1: Average level of tides in all harbours"),)),
        page((text("Figure 2: Average speed of tides in all harbours"),), box=(0, 0, 10**6, 10**6)),
        page((text("Figure 3: Average length of tides in all harbours"),)),
    ]
    corpus = load_corpus(folder({"mixed.pdf": make.pdf(pages)}))
    assert [page.page_number for page in corpus.pages] == [1, 3]
    assert [query.text for query in corpus.queries] == [
        "Average level of tides in all harbours",
        "Average length of tides in all harbours",
    ]
    (item,) = corpus.skipped
    assert "mixed" in item.name and "2" in item.name
    assert "1000000" in item.reason


def test_a_page_without_text_stays_and_can_be_drawn(make, folder):
    caption = make.Text("Figure 1: Average level of tides in all harbours")
    scan = make.PdfPage(drawing="0.5 g 100 100 300 300 re f")
    corpus = load_corpus(folder({"scan.pdf": make.pdf([make.PdfPage((caption,)), scan])}))
    page = corpus.pages[1]
    assert (page.page_number, page.text) == (2, "")
    assert len(corpus.queries) == 1 and corpus.skipped == ()
    assert np.asarray(corpus.render(page.page_id)).min() < 200


@pytest.mark.parametrize("page", [None, 99])
def test_a_title_without_a_page_is_no_query(make, folder, page):
    sound = [("Heights of tides in harbours", 0), ("Speeds of tides in harbours", 1)]
    pages = [make.PdfPage((make.Text(title),)) for title, _ in sound]
    outline = [sound[0], ("A bookmark that leads nowhere", page), sound[1]]
    corpus = load_corpus(folder({"lost.pdf": make.pdf(pages, outline)}))
    assert [query.text for query in corpus.queries] == [title for title, _ in sound]


def test_an_outline_that_runs_in_a_circle_ends(make, folder):
    content = make.handbook()
    next_of = [match for match in re.finditer(rb"/Next (\d+) 0 R", content)]
    circle = (
        content[: next_of[1].start()] + content[next_of[0].start() : next_of[0].end()] + content[next_of[1].end() :]
    )
    assert circle != content and len(circle) == len(content)
    corpus = load_corpus(folder({"circle.pdf": circle, "good.pdf": make.handbook("storms")}))
    assert any(query.doc_id == "good" for query in corpus.queries)


def test_a_title_that_is_no_text_stops_nothing(make, folder):
    page = make.PdfPage((make.Text("Figure 1: Average level of tides in all harbours"),))
    half_a_pair = b"\xfe\xff\xd8\x00" + "eights of tides".encode("utf-16-be")
    corpus = load_corpus(folder({"odd.pdf": make.pdf([page], [(half_a_pair, 0)]), "good.pdf": make.handbook("storms")}))
    assert sum(query.doc_id == "good" for query in corpus.queries) == 6
    assert any(query.doc_id == "odd" for query in corpus.queries) or [item.name for item in corpus.skipped] == ["odd"]


# --- files that are broken somewhere


@pytest.mark.parametrize("damage", ["cut", "flip", "zero"])
def test_no_damage_to_one_file_stops_the_others(make, folder, rng, damage):
    """Whatever a damaged file is read as, it is used or named, and the good one is untouched."""
    good, sound = make.handbook(), make.handbook("storms")
    expected = load_corpus(folder({"good.pdf": good})).queries
    files = {}
    for number in range(12):
        content = bytearray(sound)
        place = int(rng.integers(10, len(content)))
        if damage == "cut":
            del content[place:]
        elif damage == "flip":
            for at in rng.integers(0, len(content), 20):
                content[at] ^= int(rng.integers(1, 256))
        else:
            content[place : place + 200] = bytes(len(content[place : place + 200]))
        files[f"damaged-{number}.pdf"] = bytes(content)
    corpus = load_corpus(folder(files), queries="verbatim")
    named = {item.name for item in corpus.skipped}
    used = {page.doc_id for page in corpus.pages}
    for name in files:
        doc_id = name.removesuffix(".pdf")
        assert doc_id in used or any(item.startswith(doc_id) for item in named), f"{doc_id} vanished without a word"
    assert "good" in used and "good" not in named
    found = {query.text for query in expected}
    assert found <= {query.text for query in corpus.queries if query.doc_id == "good"}


# --- paths


def test_a_link_out_of_the_folder_is_left_out_by_name(make, folder, tmp_path):
    (tmp_path / "private.pdf").write_bytes(make.handbook("secrets"))
    path = folder({"good.pdf": make.handbook()})
    (path / "link.pdf").symlink_to(tmp_path / "private.pdf")
    (path / "up.pdf").symlink_to("../private.pdf")
    (path / "broken.pdf").symlink_to("nowhere.pdf")
    corpus = load_corpus(path)
    assert {query.doc_id for query in corpus.queries} == {"good"}
    assert {item.name for item in corpus.skipped} == {"link", "up", "broken"}
    assert not any("secrets" in query.text for query in corpus.queries)


def test_a_linked_folder_outside_is_not_entered(make, folder, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "diary.pdf").write_bytes(make.handbook("secrets"))
    path = folder({"good.pdf": make.handbook()})
    (path / "more").symlink_to(tmp_path / "private")
    assert {page.doc_id for page in load_corpus(path).pages} == {"good"}


def test_the_folder_itself_may_be_a_link_and_names_may_be_odd(make, folder, tmp_path):
    path = folder({"Gezeiten & Häfen/rapport no 1.v2.PDF": make.handbook()})
    (tmp_path / "shortcut").symlink_to(path)
    corpus = load_corpus(tmp_path / "shortcut")
    assert len(corpus.pages) == 3 and corpus.skipped == ()
    corpus.render(corpus.pages[0].page_id, 64)


def test_two_files_that_differ_in_the_case_of_their_ending_are_both_there(make, folder):
    path = folder({"a.pdf": make.handbook(), "a.PDF": make.handbook("storms")})
    if len(os.listdir(path)) < 2:
        pytest.skip("this file system does not tell the two names apart")
    corpus = load_corpus(path)
    used = {page.text for page in corpus.pages}
    both = any("tides" in text for text in used) and any("storms" in text for text in used)
    assert both or corpus.skipped, "one of the two vanished without a word"


def test_a_copy_is_named_and_does_not_spoil_the_first(make, folder):
    corpus = load_corpus(folder({"a.pdf": make.handbook(), "b.pdf": make.handbook()}))
    assert {query.doc_id for query in corpus.queries} == {"a"}
    assert [item.name for item in corpus.skipped] == ["b"]


def test_a_file_that_may_not_be_read_is_named(make, folder, monkeypatch):
    path = folder({"good.pdf": make.handbook(), "locked.pdf": make.handbook("storms")})
    if os.geteuid() != 0:
        (path / "locked.pdf").chmod(0)
    else:  # root may read anything: stand in for the system's refusal
        open_of = type(path).open

        def refuse(self, *args, **options):
            if self.name == "locked.pdf":
                raise PermissionError(13, "Permission denied", str(self))
            return open_of(self, *args, **options)

        monkeypatch.setattr(type(path), "open", refuse)
    corpus = load_corpus(path)
    assert {query.doc_id for query in corpus.queries} == {"good"}
    assert [item.name for item in corpus.skipped] == ["locked"]


# --- pictures that were asked for wrongly


@pytest.mark.parametrize("page_id", ["good/99", "good/0", "good", "other/1", "../good/1", "good/1/1", ""])
def test_an_unknown_page_is_a_sentence(make, folder, page_id):
    corpus = load_corpus(folder({"good.pdf": make.handbook()}))
    with pytest.raises(CorpusError):
        corpus.render(page_id)


@pytest.mark.parametrize("side", [0, -5, 10**6])
def test_an_unreasonable_picture_size_is_a_sentence(make, folder, side):
    corpus = load_corpus(folder({"good.pdf": make.handbook()}))
    with pytest.raises(CorpusError, match=str(side)):
        corpus.render("good/1", longest_side=side)
