import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from miner_diag.backbones import BackboneError, ocr, reader
from miner_diag.backbones.ocr import PictureReader
from miner_diag.backbones.reader import PageReader
from miner_diag.corpus.core import Page


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path))


def page(number, text):
    return Page(f"p{number}", "d", number, text, f"hash{number}")


class Eyes:
    """Stands in for the picture reader: reads the page's id off a picture and counts how often it looked."""

    longest_side = 10
    looks = 0

    def __init__(self, max_words=None):
        self.max_words = max_words

    def read_page(self, page, render, *, draw_again):
        type(self).looks += 1
        picture = render(page.page_id, self.longest_side)
        return "" if picture == "p9" else f"seen {picture}"


@pytest.fixture
def eyes(monkeypatch):
    monkeypatch.setattr(ocr, "PictureReader", Eyes)
    monkeypatch.setattr(reader, "_installed", lambda name: True)
    Eyes.looks = 0
    return Eyes


@pytest.fixture
def no_eyes(monkeypatch):
    monkeypatch.setattr(reader, "_installed", lambda name: False)


def render(page_id, longest_side):
    return page_id


def test_auto_looks_only_where_there_is_no_text(eyes):
    pages = PageReader("auto", render)
    assert pages.read([page(1, "one"), page(2, " \n"), page(3, ""), page(9, "")]) == ["one", "seen p2", "seen p3", ""]
    assert eyes.looks == 3
    assert dict(pages.counts) == {"ocr": 3, "text-layer": 1, "empty": 1}


def test_ocr_looks_everywhere_and_text_layer_nowhere(eyes):
    pages = [page(1, "one"), page(2, "")]
    assert PageReader("ocr", render).read(pages) == ["seen p1", "seen p2"]
    assert PageReader("text-layer", render).read(pages) == ["one", ""]
    assert eyes.looks == 2


def test_without_the_extra_ocr_is_refused_and_named(no_eyes):
    with pytest.raises(BackboneError, match=r'RapidOCR is not installed; .*pip install "miner-diag\[ocr\]"'):
        PageReader("ocr", render)


def test_without_the_extra_auto_leaves_pages_empty_and_says_so(no_eyes, caplog):
    pages = PageReader("auto", render)
    assert pages.read([page(1, "one"), page(2, "")]) == ["one", ""]
    assert re.search(r"pages without a text layer, as p2, stay empty; .*miner-diag\[ocr\]", caplog.text)
    assert pages.counts["empty"] == pages.counts["left empty"] == 1
    assert pages.describe() == "text-layer"
    assert pages.read([page(3, "")]) == [""]  # pages come in many calls, so blank ones may come alone
    assert caplog.text.count("stay empty") == 1 and pages.counts["left empty"] == 2


def test_nothing_that_draws_is_an_error(eyes):
    with pytest.raises(BackboneError, match=r"page p2 must be read from its picture .* render=corpus.render"):
        PageReader("auto").read([page(1, "one"), page(2, "")])


def test_the_description_tells_engine_and_settings():
    pytest.importorskip("rapidocr")
    assert PageReader("text-layer").describe() == "text-layer"
    assert PageReader("ocr").describe().startswith("ocr: rapidocr 3")
    assert PageReader("auto").describe() != PageReader("ocr").describe()


def picture(*lines):
    image = Image.new("RGB", (620, 60 + 44 * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((24, 24 + 44 * number), line, "black", ImageFont.load_default(28))
    return image


def test_a_picture_is_read_once_and_white_is_empty(monkeypatch):
    pytest.importorskip("rapidocr")
    image = picture("Reaction time", "Figure 3: mosaic plot")
    text = PictureReader().read(image)
    assert text.splitlines() == ["Reaction time", "Figure 3: mosaic plot"]
    assert PictureReader().read(Image.new("RGB", (400, 300), "white")) == ""
    monkeypatch.setattr(PictureReader, "_recognise", lambda self, pixels: pytest.fail("read again"))
    assert PictureReader().read(image) == text


def lines_of(monkeypatch, lines):
    """Let every picture show these lines; return how often one was looked at."""
    looks = []

    def recognise(self, pixels):
        looks.append(1)
        for count in range(len(lines)):
            if self._enough(lines[:count]):
                return lines[:count], False
        return lines, True

    monkeypatch.setattr(PictureReader, "_recognise", recognise)
    monkeypatch.setattr(ocr, "describe_engine", lambda: "pretended")
    return looks


def test_the_text_does_not_depend_on_what_was_remembered(monkeypatch, rng):
    looks = lines_of(monkeypatch, ["a b", "c d", "e f", "g h"])
    one, two = (Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(2))
    assert PictureReader(3).read(one) == "a b\nc d"
    assert PictureReader(4).read(one) == "a b\nc d"
    assert len(looks) == 1
    assert PictureReader(5).read(one) == "a b\nc d\ne f"  # what was remembered is not enough
    assert PictureReader(None).read(one) == PictureReader(None).read(two) == "a b\nc d\ne f\ng h"
    assert len(looks) == 4
    assert PictureReader(3).read(two) == "a b\nc d"
    assert len(looks) == 4


def test_another_picture_of_the_same_page_is_another_picture(monkeypatch, rng):
    """Words that were whited out must not come back from what was read of the untouched page."""
    looks = lines_of(monkeypatch, ["a"])
    pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    PictureReader().read(Image.fromarray(pixels))
    pixels[2:4] = 255
    PictureReader().read(Image.fromarray(pixels))
    assert len(looks) == 2


def test_a_damaged_memory_is_read_again(monkeypatch, rng):
    looks = lines_of(monkeypatch, ["a"])
    image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    PictureReader().read(image)
    (memory,) = (ocr.cache_folder() / "ocr").rglob("*.json")
    memory.write_text('{"lines": ["a"')
    assert PictureReader().read(image) == "a"
    assert len(looks) == 2


def drawing(rng):
    """What draws another picture each time, and the list of what it drew."""
    drawn = []

    def draw(page_id, longest_side):
        drawn.append((page_id, longest_side))
        return Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))

    return draw, drawn


def test_a_page_whose_words_are_remembered_is_not_drawn_unless_asked(monkeypatch, rng):
    """Neither by another reader, nor where less of it is needed; what is not enough is drawn and read again."""
    lines_of(monkeypatch, ["a b", "c d", "e f"])
    draw, drawn = drawing(rng)

    def text(max_words, draw_again=False):
        return PictureReader(max_words).read_page(page(1, ""), draw, draw_again=draw_again)

    assert (text(3), text(2), text(3)) == ("a b\nc d", "a b", "a b\nc d")
    assert drawn == [("p1", PictureReader.longest_side)]
    assert text(None) == text(None) == "a b\nc d\ne f" and text(3) == "a b\nc d"
    assert len(drawn) == 2
    text(3, draw_again=True)
    assert len(drawn) == 3


@pytest.mark.parametrize(
    "change", [{"page_id": "p2"}, {"text": "less"}, {"page_hash": "other"}, {"words_hidden": True}, {}]
)
def test_another_page_or_another_form_of_it_is_drawn(monkeypatch, rng, change):
    """Words that were whited out must not come back from what was read of the untouched page."""
    lines_of(monkeypatch, ["a"])
    draw, drawn = drawing(rng)
    for shown in (page(1, "more"), replace(page(1, "more"), **change)):
        PictureReader().read_page(shown, draw, draw_again=False)
    assert len(drawn) == (2 if change else 1)


def test_the_last_drawing_counts(monkeypatch):
    """A caller that draws a page otherwise is told what was read of its own picture."""
    monkeypatch.setattr(PictureReader, "_recognise", lambda self, pixels: ([str(pixels.max())], True))
    monkeypatch.setattr(ocr, "describe_engine", lambda: "pretended")
    for value in (3, 9):
        PictureReader().read_page(page(1, ""), lambda *_, v=value: Image.new("RGB", (4, 4), (v,) * 3))
    assert PictureReader().read_page(page(1, ""), render, draw_again=False) == "9"


def test_a_damaged_note_of_a_page_is_made_again(monkeypatch, rng, caplog):
    looks = lines_of(monkeypatch, ["a"])
    image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    PictureReader().read_page(page(1, ""), lambda *_: image)
    (note,) = (ocr.cache_folder() / "ocr").glob("*/pages/*/*.json")
    note.write_text("{")
    assert PictureReader().read_page(page(1, ""), lambda *_: image, draw_again=False) == "a"
    assert len(looks) == 1 and "is damaged" in caplog.text  # the words themselves are still there
