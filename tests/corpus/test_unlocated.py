"""A query whose words the page may show, though its text layer does not have them, is never passed as hidden."""

from __future__ import annotations

import io

import numpy as np
import pypdfium2 as pdfium
import pytest

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.assemble import NOT_LOCATED
from miner_diag.corpus.elsewhere import words_elsewhere
from tests.corpus.raw_files import RawPage, field, line, note, raw_pdf, song, strokes

TITLE = "Heights of tides in harbours"
BODY = line("Running text that has nothing to do with the title.", y=500)


def load(folder, pages, outline=((TITLE, 0),), queries="hidden"):
    """A document under test beside a sound one, which gives two queries."""
    other = raw_pdf([RawPage(line("Lengths of piers in winter", y=700))], [("Lengths of piers in winter", 0)])
    return load_corpus(folder({"a.pdf": raw_pdf(pages, outline), "b.pdf": other}), queries=queries)


def asked(corpus):
    return [query.text for query in corpus.queries if query.doc_id == "a"]


def unlocated(corpus):
    return [item.name for item in corpus.skipped if item.reason == NOT_LOCATED]


def scans(content, resolution=100):
    """Draw the pages of a PDF: what a scanner makes of them."""
    with pdfium.PdfDocument(io.BytesIO(content)) as document:
        return [page.render(scale=resolution / 72).to_pil() for page in document]


def ink(picture):
    return np.asarray(picture).min(axis=2) < 200


def test_scans_of_the_same_pages_ask_nothing_hidden_and_everything_verbatim(make, folder):
    titles = [f"Heights of {about} in the harbour" for about in ("tides", "waves", "walls", "boats")]
    digital = [RawPage(line(title, y=700, size=18) + BODY) for title in titles]
    outline = [(title, number) for number, title in enumerate(titles)]
    born = load(folder, digital, outline)
    assert asked(born) == titles and unlocated(born) == []
    scanned = [RawPage(scan=picture) for picture in scans(raw_pdf(digital))]
    hidden = load(folder, scanned, outline)
    assert asked(hidden) == [] and len(unlocated(hidden)) == 4
    assert all(any(title in name for name in unlocated(hidden)) for title in titles)
    assert asked(load(folder, scanned, outline, "verbatim")) == titles
    assert len(hidden.pages) == 5, "the pages stay: they are what the right one is told from"


SHOWN = {
    "letters drawn as paths": RawPage(strokes(24) + BODY),
    "a picture beside a text layer": RawPage(BODY, scan=None),
    "a stamp": RawPage(BODY, (note("", subtype="Stamp", more="{look}"),)),
    "a misread text layer behind a scan": RawPage(line("Heiqhts cf t1des ln harbcurs", y=700, size=18, mode=3)),
    "a free text that looks otherwise than it reads": RawPage(BODY, (note("A remark", more="{look}"),)),
    "a field that looks otherwise than it reads": RawPage(BODY, (field("A remark", more="{look}"),)),
}


@pytest.mark.parametrize("shown", SHOWN)
def test_a_title_that_the_page_may_show_otherwise_is_left_out_by_name(folder, shown):
    page = SHOWN[shown]
    if "scan" in shown or "picture" in shown:
        picture = scans(raw_pdf([RawPage(line(TITLE, y=700, size=18))]))[0]
        page = RawPage(page.content, scan=picture)
    corpus = load(folder, [page])
    assert asked(corpus) == []
    (name,) = unlocated(corpus)
    assert TITLE in name
    assert asked(load(folder, [page], queries="verbatim")) == [TITLE]


NOT_SHOWN = {
    "text alone": RawPage(BODY),
    "text, a rule and a frame": RawPage(f"{BODY} 1 w 72 490 m 520 490 l S 60 300 460 150 re S"),
    "text on a tint": RawPage(f"0.9 g 60 480 480 40 re f 0 g {BODY}"),
    "nothing at all": RawPage(),
    "a link's frame": RawPage(BODY, ("<< /Type /Annot /Subtype /Link /Rect [72 495 200 510] /Border [0 0 1] >>",)),
    "bullets": RawPage(BODY + "".join(f"72 {y} 3 3 re f " for y in (400, 380, 360))),
}


@pytest.mark.parametrize("page", NOT_SHOWN)
def test_a_title_that_is_simply_not_printed_stays_a_query(folder, page):
    corpus = load(folder, [NOT_SHOWN[page]])
    assert asked(corpus) == [TITLE] and unlocated(corpus) == []


def test_a_title_in_the_text_layer_stays_whatever_else_the_page_shows(folder):
    picture = scans(raw_pdf([RawPage(strokes(9, y=300))]))[0]
    corpus = load(folder, [RawPage(line(TITLE, y=700) + BODY, scan=picture)])
    assert asked(corpus) == [TITLE] and unlocated(corpus) == []


def test_a_searchable_scan_is_whitened_where_its_text_layer_says(folder):
    pages = [RawPage(line(TITLE, y=700, size=18))]
    page = RawPage(line(TITLE, y=700, size=18, mode=3), scan=scans(raw_pdf(pages))[0])
    assert ink(load(folder, [page], queries="verbatim").render("a/1")).any()
    corpus = load(folder, [page])
    assert asked(corpus) == [TITLE] and not ink(corpus.render("a/1")).any()


def test_the_forms_share_the_pages_that_nothing_is_taken_out_of(folder):
    """A left-out query takes no words out of other pages, in neither form."""
    pages = [RawPage(strokes(24)), RawPage(line(TITLE, y=700) + BODY)]
    for form in ("hidden", "verbatim"):
        corpus = load(folder, pages, queries=form)
        assert [page.words_hidden for page in corpus.pages] == [False, False, True]


def test_nothing_but_scans_is_an_error_that_says_what_to_do(folder):
    scanned = [RawPage(scan=picture) for picture in scans(raw_pdf([RawPage(line(TITLE, y=700, size=18))]))]
    with pytest.raises(CorpusError, match=r"Heights of tides.*pictures.*--queries verbatim"):
        load_corpus(folder({"a.pdf": raw_pdf(scanned, [(TITLE, 0)])}))


SHOWN_ON_TOP = {
    "text field": field(TITLE),
    "choice": field(TITLE, kind=f"/FT /Ch /Opt [(Other) ({TITLE})]", flags=1 << 17),
    "list": field("", kind=f"/FT /Ch /Opt [(Other) ({TITLE})]"),
    "free text": note(TITLE),
}


@pytest.mark.parametrize("kind", SHOWN_ON_TOP)
def test_form_fields_and_annotations_are_drawn_read_and_hidden(folder, kind):
    page = RawPage("", (SHOWN_ON_TOP[kind],))
    verbatim, hidden = (load(folder, [page], queries=form) for form in ("verbatim", "hidden"))
    assert TITLE in verbatim.pages[0].text
    assert ink(verbatim.render("a/1"))[:200].any()
    assert asked(hidden) == [TITLE]
    assert TITLE not in hidden.pages[0].text
    assert not ink(hidden.render("a/1")).any()


NOT_READ = {
    "hidden": note(TITLE, flags=2),
    "not for the screen": note(TITLE, flags=32),
    "a password": field(TITLE, flags=1 << 13),
    "above the page": note(TITLE, y=900),
    "a note that opens on a click": note(TITLE, subtype="Text"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_no_viewer_shows_is_not_read(folder, kind):
    corpus = load(folder, [RawPage(BODY, (NOT_READ[kind],))], queries="verbatim")
    assert TITLE not in corpus.pages[0].text


def test_a_caption_in_an_annotation_is_a_query(folder):
    page = RawPage(BODY, (note("Figure 1: Average level of tides in harbours"),))
    corpus = load(folder, [page], outline=())
    assert asked(corpus) == ["Average level of tides in harbours"]


def test_a_chinese_title_is_found_and_hidden_where_it_is_printed(folder):
    title = "软件包管理的基础知识"
    corpus = load(folder, [RawPage(song(title, y=700, size=18) + BODY)], [(title, 0)])
    assert asked(corpus) == [title] and unlocated(corpus) == []
    assert "软件包" not in corpus.pages[0].text and "Running text" in corpus.pages[0].text


def test_hidden_words_stand_on_no_page_of_their_document(make, folder):
    contents = RawPage(line(TITLE, y=700) + line("Speeds of tides in harbours", y=650))
    pages = [contents, *(RawPage(line(f"{what} of tides in harbours", y=700)) for what in ("Heights", "Speeds"))]
    outline = [(TITLE, 1), ("Speeds of tides in harbours", 2)]
    assert set(words_elsewhere(load(folder, pages, outline, "verbatim")).values()) == {("a/1",)}
    hidden = load(folder, pages, outline)
    assert len(asked(hidden)) == 2 and words_elsewhere(hidden) == {}
