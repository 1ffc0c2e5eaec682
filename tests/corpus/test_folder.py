"""A folder of PDFs becomes a benchmark: which queries, of which kind, on which page, and the same every time."""

from __future__ import annotations

import io
import os
import shutil
import sys

import pytest

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.__main__ import main
from miner_diag.corpus.folder import find_documents
from miner_diag.corpus.pdf_reader import read_sections


def test_titles_and_captions_become_queries_with_their_page_and_kind(make, folder):
    corpus = load_corpus(folder({"book.pdf": make.handbook()}))
    found = [(query.kind, query.text, *corpus.qrels[query.query_id].items()) for query in corpus.queries]
    assert sorted(found) == sorted(
        [
            ("outline", "Heights of tides in harbour b", ("book/1", 1)),
            ("figure", "Average level of tides measured at gauge b", ("book/1", 1)),
            ("outline", "Heights of tides in harbour c", ("book/2", 1)),
            ("table", "Average level of tides measured at gauge c", ("book/2", 1)),
            ("outline", "Heights of tides in harbour d", ("book/3", 1)),
            ("figure", "Average level of tides measured at gauge d", ("book/3", 1)),
        ]
    )
    assert [page.page_number for page in corpus.pages] == [1, 2, 3]
    assert corpus.name == "documents" and corpus.form == "hidden" and corpus.skipped == ()


def test_every_query_has_one_right_page_and_pages_without_query_stay(make, folder):
    pages = [make.PdfPage((make.Text(f"Page {n} has only running text."),)) for n in range(3)]
    pages[1] = make.PdfPage((make.Text("Table 1. Average level of tides in all harbours"),))
    corpus = load_corpus(folder({"book.pdf": make.pdf(pages)}))
    assert [list(judged.values()) for judged in corpus.qrels.values()] == [[1]]
    assert len(corpus.pages) == 3


@pytest.mark.parametrize("other", ["Heights of tides in harbours", "HEIGHTS of tides  in harbours"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_text_that_stands_on_two_pages_is_dropped(make, folder, other, apart):
    pages = [make.PdfPage((make.Text(f"Page {n}"),)) for n in range(3)]
    titles = [("Heights of tides in harbours", 0), (other, 1), ("Speeds of tides in harbours", 2)]
    if apart:
        others = [make.PdfPage((make.Text(f"Another page {n}"),)) for n in range(3)]
        files = {"a.pdf": make.pdf(pages, titles[:1]), "b.pdf": make.pdf(others, titles[1:])}
    else:
        files = {"a.pdf": make.pdf(pages, titles)}
    assert [query.text for query in load_corpus(folder(files)).queries] == ["Speeds of tides in harbours"]


def test_a_text_that_stands_twice_on_one_page_is_asked_once(make, folder):
    texts = (
        make.Text("Average level of tides in harbours"),
        make.Text("Figure 1: Average level of tides in harbours", y=300),
    )
    content = make.pdf([make.PdfPage(texts)], [("Average level of tides in harbours", 0)] * 2)
    assert [query.text for query in load_corpus(folder({"a.pdf": content})).queries] == [
        "Average level of tides in harbours"
    ]


def test_both_forms_ask_the_same_and_differ_in_their_pages(make, folder):
    path = folder({"a.pdf": make.handbook(), "b.pdf": make.handbook("storms")})
    hidden, verbatim = load_corpus(path, queries="hidden"), load_corpus(path, queries="verbatim")
    assert load_corpus(path).form == "hidden"
    assert (hidden.queries, hidden.qrels, hidden.splits) == (verbatim.queries, verbatim.qrels, verbatim.splits)
    assert [page.page_hash for page in hidden.pages] == [page.page_hash for page in verbatim.pages]
    assert all(h.text != v.text for h, v in zip(hidden.pages, verbatim.pages, strict=True))
    assert hidden.revision != verbatim.revision


def test_the_same_files_give_the_same_corpus_anywhere_and_without_the_cache(make, folder, tmp_path, monkeypatch):
    path = folder({"a.pdf": make.handbook(), "deeper/b.pdf": make.handbook("storms")})
    first = load_corpus(path)
    shutil.copytree(path, tmp_path / "elsewhere" / "documents")
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "fresh cache"))
    again = load_corpus(tmp_path / "elsewhere" / "documents")
    assert again.revision == first.revision
    assert (again.pages, again.queries, again.qrels) == (first.pages, first.queries, first.qrels)


@pytest.mark.parametrize("change", ["text", "pixels", "file"])
def test_the_revision_moves_with_whatever_changes_a_number(make, folder, change):
    def document(word="one", shade="0.5"):
        texts = (make.Text("Figure 1: Average level of tides in harbours"), make.Text(f"Running {word}", y=200))
        return make.pdf([make.PdfPage(texts, drawing=f"{shade} g 100 400 50 50 re f")])

    before = load_corpus(folder({"a.pdf": document()})).revision
    files = {
        "text": {"a.pdf": document(word="two")},
        "pixels": {"a.pdf": document(shade="0.2")},
        "file": {"b.pdf": make.handbook()},
    }
    assert load_corpus(folder(files[change])).revision != before


def test_a_damaged_cache_is_read_anew(make, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "cache"))
    path = folder({"a.pdf": make.handbook()})
    first = load_corpus(path)
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"sha256": 1}'):
        for file in files:
            file.write_bytes(content)
        assert load_corpus(path).revision == first.revision


def test_drawing_keeps_the_page_shape(make, folder):
    wide = make.PdfPage((make.Text("Figure 1: Average level of tides in harbours", y=300),), box=(0, 0, 800, 400))
    corpus = load_corpus(folder({"a.pdf": make.pdf([wide])}))
    picture = corpus.render("a/1", longest_side=500)
    assert (picture.mode, picture.size) == ("RGB", (500, 250))


def test_limit_keeps_queries_whose_pages_stay(make, folder):
    corpus = load_corpus(folder({f"{n}.pdf": make.handbook(f"tides{n}") for n in range(6)}))
    few = corpus.sample_pages(10)
    kept = {page.page_id for page in few.pages}
    assert len(kept) == 10
    assert {query.query_id for query in few.queries} == {
        query.query_id for query in corpus.queries if set(corpus.qrels[query.query_id]) <= kept
    }
    assert few.pages == corpus.sample_pages(10).pages
    assert few.revision != corpus.revision


# --- names and links


def test_names_that_are_not_utf8_are_used_and_written_out(make, folder):
    path = folder({f"{n}.pdf": make.handbook(f"tides{n}") for n in range(3)})
    for name, about in ((b"caf\xe9.pdf", "storms"), (b"caf\\xe9.pdf", "winds"), (b"deep\xff/r\xfc.pdf", "rains")):
        target = os.path.join(os.fsencode(path), name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            with open(target, "wb") as file:
                file.write(make.handbook(about))
        except OSError:
            pytest.skip("this file system takes only names in UTF-8")
    with open(os.path.join(os.fsencode(path), b"bro\xe9.pdf"), "wb") as file:
        file.write(b"no PDF")
    corpus = load_corpus(path)
    assert len({page.doc_id for page in corpus.pages}) == 6
    assert {"caf\\xe9", "deep\\xff/r\\xfc"} < {page.doc_id for page in corpus.pages}
    assert [item.name for item in corpus.skipped] == ["bro\\xe9"]
    text = repr((corpus.pages, corpus.queries, corpus.qrels, corpus.skipped, corpus.revision))
    assert text.encode("utf-8"), "everything can be written"
    assert corpus.render("caf\\xe9/1", 64).size[1] == 64


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_command_prints_names_that_the_terminal_cannot_show(make, folder, tmp_path, monkeypatch, encoding):
    path = folder({"häfen.pdf": make.handbook(), "bad–.pdf": b"no PDF"})
    odd = os.fsencode(tmp_path) + b"/m\xfcller"
    try:
        os.rename(path, odd)
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding, errors="strict"))
    main(["--data", os.fsdecode(odd), "--out", str(tmp_path / "out")])
    sys.stdout.flush()
    assert b"m\\xfcller: hidden queries" in shown.getvalue()
    assert (tmp_path / "out" / "run.json").is_file()


def test_linked_folders_are_named_and_not_entered(make, folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "diary.pdf").write_bytes(make.handbook("secrets"))
    path = folder({"good.pdf": make.handbook(), "inner/more.pdf": make.handbook("storms")})
    (path / "away").symlink_to(tmp_path / "outside")
    (path / "again").symlink_to("inner")
    (path / "inner" / "loop").symlink_to(path)
    corpus = load_corpus(path)
    assert {page.doc_id for page in corpus.pages} == {"good", "inner/more"}
    reasons = {item.name: item.reason for item in corpus.skipped}
    assert set(reasons) == {"away", "again", "inner/loop"}
    assert "outside" in reasons["away"] and "where it is" in reasons["again"] and "where it is" in reasons["inner/loop"]


def test_nothing_but_a_linked_folder_is_an_error_that_names_it(make, folder, tmp_path):
    path = folder({"readme.txt": b"nothing"})
    (tmp_path / "outside").mkdir()
    (path / "away").symlink_to(tmp_path / "outside")
    with pytest.raises(CorpusError, match=r"holds no PDF.*away: is a link to .*outside"):
        load_corpus(path)


# --- titles that documents share


def test_two_editions_of_one_manual_say_why_nothing_is_asked(make, folder):
    titles = [(f"Heights of {about} in harbours", n) for n, about in enumerate(("tides", "waves"))]
    editions = {
        f"{year}.pdf": make.pdf([make.PdfPage((make.Text(f"{title} {year}"),)) for title, _ in titles], titles)
        for year in (2020, 2021)
    }
    with pytest.raises(CorpusError, match=r"Heights of tides in harbours.*two editions of one manual") as raised:
        load_corpus(folder(editions))
    assert "no document" not in str(raised.value)


def test_titles_that_lead_to_several_pages_are_counted_and_named(make, folder):
    pages = [make.PdfPage((make.Text(f"Page {n} of its own"),)) for n in range(4)]
    shared = [("Heights of tides in harbours", 0), ("Speeds of tides in harbours", 1)]
    twice = [("Notes on this chapter", 0), ("NOTES on this chapter", 2), ("Lengths of piers in winter", 3)]
    others = [make.PdfPage((make.Text(f"Other page {n}"),)) for n in range(2)]
    corpus = load_corpus(folder({"a.pdf": make.pdf(pages, shared + twice), "b.pdf": make.pdf(others, shared)}))
    assert [query.text for query in corpus.queries] == ["Lengths of piers in winter"]
    reasons = {item.name: item.reason for item in corpus.skipped if item.name.startswith("query")}
    assert len(reasons) == 3
    assert "two editions" in reasons["query 'Heights of tides in harbours'"]
    assert "its document" in reasons["query 'Notes on this chapter'"]


def test_sections_are_all_titles_also_those_that_make_no_query(make, folder):
    """ "Contents" names no page in particular and a title of one word is no question, but both are sections."""
    pages = [make.PdfPage((make.Text(f"page {number}"),)) for number in range(3)]
    titles = [("Contents", 0), ("Tides", 1), ("Heights of tides in harbours", 1), ("nowhere", None)]
    path = folder({"book.pdf": make.pdf(pages, titles)}) / "book.pdf"
    assert read_sections(path) == [(1, "Contents"), (2, "Tides"), (2, "Heights of tides in harbours")]


def test_a_document_that_cannot_be_opened_has_no_sections(folder):
    with pytest.raises(CorpusError, match="bad.pdf is not a readable PDF"):
        read_sections(folder({"bad.pdf": b"%PDF-1.7 nothing"}) / "bad.pdf")


def test_documents_are_found_by_the_names_that_the_corpus_gives_them(make, folder):
    path = folder({"a.pdf": make.handbook(), "below/b.PDF": make.handbook(), "notes.txt": b""})
    (path / "loop").symlink_to(path, target_is_directory=True)
    files, not_entered = find_documents(path)
    assert files == {"a": path / "a.pdf", "below/b": path / "below" / "b.PDF"}
    assert [item.name for item in not_entered] == ["loop"]
    with pytest.raises(CorpusError, match="is not a folder"):
        find_documents(path / "a.pdf")
