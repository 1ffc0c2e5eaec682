"""What is read out of a PDF: only what is shown, and only bookmarks of its own pages."""

from __future__ import annotations

import pytest

from miner_diag.corpus import load_corpus
from miner_diag.corpus.pdf import open_page, open_pdf, outline, read_characters
from tests.corpus.raw_files import RawPage, line, raw_pdf

CAPTION = "Figure 1: Average level of tides in harbours"


@pytest.fixture
def read(tmp_path):
    def text_of(page):
        (tmp_path / "a.pdf").write_bytes(raw_pdf([page]))
        with open_pdf(tmp_path / "a.pdf") as document, open_page(document, 1) as opened:
            return read_characters(opened)

    return text_of


CROPPED = {"crop": (50, 400, 545, 800)}


@pytest.mark.parametrize(
    ("place", "page"),
    [
        ({"x": 72, "y": 300}, CROPPED),
        ({"x": 72, "y": 820}, CROPPED),
        ({"x": 560, "y": 600}, CROPPED),
        ({"x": 72, "y": 900}, {}),
        ({"x": 700, "y": 600}, {}),
        ({"x": 72, "y": 300}, {"box": (0, 400, 595, 842)}),
    ],
)
def test_text_outside_the_page_is_neither_read_nor_asked(read, folder, place, page):
    inside = line("Words that are shown.", y=600)
    outside = line(CAPTION, **place)
    assert read(RawPage(inside + outside, **page)).split() == ["Words", "that", "are", "shown."]
    sound = raw_pdf([RawPage(line("Figure 2: Average speed of tides in harbours"))])
    path = folder({"a.pdf": raw_pdf([RawPage(inside + outside, **page)]), "b.pdf": sound})
    assert [query.text for query in load_corpus(path, queries="verbatim").queries] == [
        "Average speed of tides in harbours"
    ]


@pytest.mark.parametrize("page", [CROPPED, {}])
def test_text_inside_stays_where_other_text_is_outside(read, page):
    text = read(RawPage(line(CAPTION, y=600) + line("gone", y=-50), **page))
    assert text.replace("\r\n", " ").split() == CAPTION.split()


def test_a_word_that_is_cut_by_the_edge_stays_whole(read):
    """Its visible half must be found, so that it can be whitened."""
    assert read(RawPage(line("tides in harbours", x=555), box=(0, 0, 595, 842))).split() == ["tides", "in"]
    assert read(RawPage(line("harbours", x=570))).split() == ["harbours"]


def test_text_in_a_cropped_page_is_whitened_where_it_stands(folder):
    import numpy as np

    page = RawPage(line(CAPTION, y=600), **CROPPED)
    corpus = load_corpus(folder({"a.pdf": raw_pdf([page])}))
    verbatim = load_corpus(folder({"a.pdf": raw_pdf([page])}), queries="verbatim")
    dark = [(np.asarray(c.render("a/1")).min(axis=2) < 200).sum() for c in (verbatim, corpus)]
    assert 0 < dark[1] < 0.4 * dark[0], "the label stays"


ELSEWHERE = {
    "another file": "/A << /S /GoToR /F (other.pdf) /D [0 /Fit] >>",
    "another file, opened anew": "/A << /S /GoToR /F (other.pdf) /D [0 /Fit] /NewWindow true >>",
    "an embedded file": "/A << /S /GoToE /D [0 /Fit] /T << /R /C /N (inner.pdf) >> >>",
    "a page of the web": "/A << /S /URI /URI (https://example.org) >>",
    "a program": "/A << /S /Launch /F (other.pdf) >>",
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_bookmark_that_leads_away_is_no_label_of_this_document(tmp_path, kind):
    titles = [("Heights of tides in harbours", 0), ("Speeds of tides in harbours", ELSEWHERE[kind])]
    titles += [("Lengths of piers in winter", "/A << /S /GoTo /D [1 /Fit] >>")]
    (tmp_path / "a.pdf").write_bytes(raw_pdf([RawPage(), RawPage()], titles))
    with open_pdf(tmp_path / "a.pdf") as document:
        labels = [(1, "Heights of tides in harbours"), (2, "Lengths of piers in winter")]
        assert outline(document, n_bookmarks=10) == (labels, False)
