"""A folder of PDFs becomes a benchmark: which queries, of which kind, on which page, and the same every time."""

from __future__ import annotations

import shutil

import pytest

from miner_diag.corpus import load_corpus


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
