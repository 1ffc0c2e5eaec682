"""Hidden queries: nothing of them is left in the page's text, nor in its picture, and all else stays."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from miner_diag import corpus as corpus_package
from miner_diag.corpus import load_corpus, manifest_names
from miner_diag.corpus.pdf_worker import _paint

TITLE = "Heights of tides in harbours"
LEFT_MARGIN = 72


def both(path):
    return load_corpus(path, queries="hidden"), load_corpus(path, queries="verbatim")


def ink(picture):
    """[height, width] bool: what is not white."""
    return np.asarray(picture).min(axis=2) < 250


def band(picture, page, low, high):
    """Rows of a picture between two heights of an upright page, in points."""
    scale = picture.size[1] / page.box[3]
    top, bottom = round((page.box[3] - high) * scale), round((page.box[3] - low) * scale)
    return ink(picture)[top:bottom]


def nothing_left(make, corpus):
    """Check every query against the text of its pages, by an own folding of letters."""
    text = {page.page_id: make.squeezed(page.text) for page in corpus.pages}
    for query in corpus.queries:
        for page_id in corpus.qrels[query.query_id]:
            assert make.squeezed(query.text) not in text[page_id]
    return len(corpus.queries)


# --- text


def test_nothing_is_left_in_the_text_and_the_rest_stays(make, folder):
    hidden, verbatim = both(folder({"a.pdf": make.handbook(), "b.pdf": make.handbook("storms", n_pages=8)}))
    assert nothing_left(make, hidden) == 22
    for query in verbatim.queries:
        (page_id,) = verbatim.qrels[query.query_id]
        (text,) = [page.text for page in verbatim.pages if page.page_id == page_id]
        assert query.text in text  # the control: they do stand there
    for page in hidden.pages:
        assert "running text about" in page.text and "which stays where it is" in page.text


@pytest.mark.parametrize(
    "lines",
    [
        ["HEIGHTS OF TIDES IN HARBOURS"],
        ["3.1 Heights of tides in harbours"],
        ["Heights of tides", "in harbours"],
        ["Heights of ti-", "des in harbours"],
        ["H e i g h t s  of tides in harbours"],
        ["Heights of tides in harbours, and again: heights of tides in harbours."],
        ["Heights, of 'tides' in (harbours)"],
    ],
)
def test_a_title_is_cut_however_it_is_set(make, folder, lines):
    texts = [make.Text(line, y=760 - 14 * number) for number, line in enumerate(lines)]
    texts += [make.Text("Running text that stays.", y=500)]
    hidden, verbatim = both(folder({"a.pdf": make.pdf([make.PdfPage(tuple(texts))], [(TITLE, 0)])}))
    assert make.squeezed(TITLE) in make.squeezed(verbatim.pages[0].text)
    assert nothing_left(make, hidden) == 1
    assert "Running text that stays." in hidden.pages[0].text


def test_a_ligature_on_the_page_is_cut_too(make, folder):
    page = make.PdfPage((make.Text("Ef\x01cient tides in harbours"), make.Text("Running text.", y=500)))
    hidden, verbatim = both(folder({"a.pdf": make.pdf([page], [("Efficient tides in harbours", 0)])}))
    assert make.squeezed("Efficient tides in harbours") in make.squeezed(verbatim.pages[0].text)
    assert nothing_left(make, hidden) == 1


def test_a_query_that_stands_inside_another_is_cut_too(make, folder):
    texts = (make.Text("Heights of tides in harbours of the north"), make.Text("Heights of tides", y=600))
    outline = [("Heights of tides in harbours of the north", 0), ("Heights of tides", 0)]
    hidden, _ = both(folder({"a.pdf": make.pdf([make.PdfPage(texts)], outline)}))
    assert nothing_left(make, hidden) == 2
    assert "north" not in hidden.pages[0].text


def test_a_caption_of_several_lines_is_cut(make, folder):
    wide = "Running text about as wide as the block of text of this whole page, line number"
    lines = [f"{wide} {n}." for n in range(10, 16)]
    lines += ["Figure 4: Average level of tides measured at all the gauges of all the harb-", "ours in the north"]
    texts = tuple(make.Text(line, y=760 - 14 * number) for number, line in enumerate(lines))
    hidden, verbatim = both(folder({"a.pdf": make.pdf([make.PdfPage(texts)])}))
    (query,) = hidden.queries
    assert query.text.startswith("Average level of tides measured at all the gauges of all the harbours")
    assert query.text in verbatim.pages[0].text
    assert nothing_left(make, hidden) == 1
    assert hidden.pages[0].text.count("Running text") == 6


# --- picture


@pytest.mark.parametrize("side", [100, 512, 1024, 2000])
def test_the_title_is_white_and_everything_else_is_untouched(make, folder, side):
    texts = (make.Text(TITLE, y=700, size=18), make.Text("Running text that stays.", y=500))
    page = make.PdfPage(texts, drawing="0.2 0.4 0.6 rg 72 200 150 150 re f 0 g")
    hidden, verbatim = both(folder({"a.pdf": make.pdf([page], [(TITLE, 0)])}))
    before, after = verbatim.render("a/1", side), hidden.render("a/1", side)
    assert before.size == after.size
    assert band(before, page, 690, 720).any()  # the control: it does stand there
    assert not band(after, page, 680, 730).any()
    np.testing.assert_array_equal(band(after, page, 100, 650), band(before, page, 100, 650))


def test_only_the_words_of_a_caption_are_white(make, folder):
    page = make.PdfPage((make.Text("Figure 12: Average level of tides in harbours", y=400),))
    hidden, verbatim = both(folder({"a.pdf": make.pdf([page])}))
    before, after = (band(corpus.render("a/1"), page, 390, 415) for corpus in (verbatim, hidden))
    columns = np.flatnonzero(before.any(axis=0))
    end_of_label = columns[0] + 65  # "Figure 12:" is 58 points wide, 70 pixels; its first 65 are safe
    np.testing.assert_array_equal(after[:, :end_of_label], before[:, :end_of_label])
    assert not after[:, end_of_label + 15 :].any()


@given(st.lists(st.tuples(*[st.integers(-8, 40)] * 4), max_size=4))
def test_boxes_are_painted_with_their_edges_and_a_margin_and_cut_off_at_the_picture(corners):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]).reshape(-1, 4)
    wanted = Image.new("RGB", (30, 20))
    for left, top, right, bottom in boxes:
        ImageDraw.Draw(wanted).rectangle((left - 1, top - 1, right + 1, bottom + 1), fill="white")
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    _paint(picture, boxes)
    np.testing.assert_array_equal(picture, np.asarray(wanted))


PLACES = {
    "plain": {},
    "rotated 90": {"rotate": 90},
    "rotated 180": {"rotate": 180},
    "rotated 270": {"rotate": 270},
    "box away from the origin": {"box": (100, 200, 695, 1042)},
    "box below zero": {"box": (-100, -50, 495, 792)},
    "cropped": {"crop": (50, 400, 500, 800)},
    "cropped and rotated": {"crop": (50, 400, 500, 800), "rotate": 90},
    "tiny": {"box": (60, 690, 300, 720)},
    "wide": {"box": (0, 600, 3000, 800)},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("font", ["Helvetica", "Times-Italic", "Courier-BoldOblique"])
def test_a_page_with_nothing_but_the_query_becomes_white(make, folder, place, font):
    page = make.PdfPage((make.Text(TITLE, x=110, y=700, font=font),), **PLACES[place])
    hidden, verbatim = both(folder({"a.pdf": make.pdf([page], [(TITLE, 0)])}))
    for side in (200, 900):
        assert ink(verbatim.render("a/1", side)).any()
        assert not ink(hidden.render("a/1", side)).any()


@pytest.mark.parametrize(
    "text",
    [
        {"size": 40, "font": "Times-Italic"},
        {"size": 40, "font": "Times-BoldItalic"},
        {"size": 4},
        {"upright": True, "y": 300},
    ],
)
def test_large_small_slanted_and_upright_letters_become_white(make, folder, text):
    title = "Jiffy of gjpq fjord Qf"  # letters that stand out of their boxes
    page = make.PdfPage((make.Text(title, **text),))
    hidden, verbatim = both(folder({"a.pdf": make.pdf([page], [(title, 0)])}))
    for side in (300, 1024, 3000):
        assert ink(verbatim.render("a/1", side)).any()
        assert not ink(hidden.render("a/1", side)).any()


def test_letters_made_bold_by_printing_twice_become_white(make, folder):
    texts = tuple(make.Text(TITLE, x=72 + shift, size=20) for shift in (0, 0.3))
    hidden, verbatim = both(folder({"a.pdf": make.pdf([make.PdfPage(texts)], [(TITLE, 0)])}))
    assert ink(verbatim.render("a/1")).any()
    assert not ink(hidden.render("a/1")).any()


def test_both_lines_of_a_broken_title_become_white(make, folder):
    texts = (make.Text("Heights of ti-", y=700), make.Text("des in harbours", y=686))
    hidden, _ = both(folder({"a.pdf": make.pdf([make.PdfPage(texts)], [(TITLE, 0)])}))
    left = ink(hidden.render("a/1"))
    assert left.sum() == 0 or left.any(axis=1).sum() <= 3, "at most a hyphen may be left"


def test_the_page_hash_is_that_of_the_page_before_anything_was_hidden(make, folder):
    page = make.PdfPage((make.Text(TITLE),))
    blank = make.PdfPage()
    hidden, verbatim = both(folder({"a.pdf": make.pdf([page, blank], [(TITLE, 0)])}))
    assert hidden.pages[0].page_hash == verbatim.pages[0].page_hash != hidden.pages[1].page_hash


@pytest.mark.skipif("sample" not in manifest_names(), reason="the shipped sample is not built yet")
def test_on_real_pages_every_place_pdfium_finds_the_query_at_is_white():
    """An own way to the words: pdfium's search, not the package's; every tenth query of the shipped sample."""
    hidden = load_corpus("sample")
    files = Path(corpus_package.__file__).parent / "sample"
    n_places = 0
    for query in hidden.queries[::10]:
        (page_id,) = hidden.qrels[query.query_id]
        doc_id, _, number = page_id.rpartition("/")
        picture = ink(hidden.render(page_id, 1000))
        with pdfium.PdfDocument(files / f"{doc_id}.pdf") as document:
            page = document[int(number) - 1]
            words = re.sub(r"^\W+|\W+$", "", query.text)  # a quotation mark may stay
            for box in places(page, words):
                left, top, right, bottom = to_pixels(page, box, picture.shape)
                assert not picture[top:bottom, left:right].any(), f"{query.text!r} is not white on {page_id}"
                n_places += 1
            page.close()
    assert n_places >= 0.7 * len(hidden.queries[::10]), "the test must find the words of most queries"


def places(page, text):
    """Yield the boxes, in points, of each place at which pdfium's search finds a text."""
    text_page = page.get_textpage()
    search = text_page.search(text, match_case=False)
    while (found := search.get_next()) is not None:
        for index in range(text_page.count_rects(*found)):
            yield text_page.get_rect(index)
    search.close()
    text_page.close()


def to_pixels(page, box, shape):
    """Left, top, right, bottom of a box in a picture [height, width]."""
    corners = []
    for x, y in ((box[0], box[1]), (box[2], box[3])):
        device = ctypes.c_int(), ctypes.c_int()
        pdfium_c.FPDF_PageToDevice(page, 0, 0, shape[1], shape[0], 0, x, y, *(ctypes.byref(value) for value in device))
        corners.append([value.value for value in device])
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1
