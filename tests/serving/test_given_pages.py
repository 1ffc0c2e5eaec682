"""PDFs, pictures, texts and pages of a corpus become pages; what is not read is refused, not embedded as nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miner_diag.backbones import LoadOptions
from miner_diag.corpus.core import CorpusError, Page
from miner_diag.serving import FusedRetriever, ServingError
from miner_diag.serving.given_pages import GivenPages, Reads
from tests.backbones.tiny import save_dual_encoder
from tests.corpus.files import handbook

BOTH = Reads(texts=True, pictures=True)


@pytest.fixture
def pdf(tmp_path):
    path = tmp_path / "tides.pdf"
    path.write_bytes(handbook("tides", 3))
    return path


@pytest.fixture
def picture(rng):
    return Image.fromarray(rng.integers(0, 255, (60, 40, 3)).astype(np.uint8))


def test_every_page_of_a_pdf_is_taken(pdf, load):
    retriever = FusedRetriever.from_model(load())
    pages = retriever.encode_pages([pdf])
    assert pages.ids == [f"{pdf}/{number}" for number in (1, 2, 3)]
    assert [page.page_number for page in pages.pages] == [1, 2, 3]
    texts = retriever.encode_pages([page.text for page in pages.pages])
    np.testing.assert_array_equal(pages.vectors, texts.vectors)


def test_pictures_are_the_same_from_memory_and_from_a_file(picture, tmp_path):
    picture.save(tmp_path / "page.png")
    folder = save_dual_encoder(tmp_path / "clip", "clip")
    retriever = FusedRetriever.from_model(LoadOptions(str(folder), device="cpu"))
    pages = retriever.encode_pages([picture, tmp_path / "page.png"])
    assert pages.ids == ["picture 0", str(tmp_path / "page.png")]
    np.testing.assert_array_equal(pages.vectors[0], pages.vectors[1])


def test_a_page_that_changed_is_looked_at_anew(picture, tmp_path):
    """Retrievers remember the proportions of a page by its id, and a file can hold another picture the next time."""
    path = tmp_path / "page.png"
    folder = save_dual_encoder(tmp_path / "clip", "siglip")
    retriever = FusedRetriever.from_model(LoadOptions(str(folder), device="cpu"))
    picture.save(path)
    retriever.encode_pages([path])
    turned = picture.resize((120, 30))
    turned.save(path)
    np.testing.assert_array_equal(retriever.encode_pages([path]).vectors, retriever.encode_pages([turned]).vectors)


def test_pages_of_a_corpus_are_drawn_by_its_renderer(picture):
    page, given, drawn = Page("d/1", "d", 1, "", "hash"), GivenPages(), []
    taken = given.take([page], BOTH, "it", lambda page_id, side: drawn.append((page_id, side)) or picture)
    assert taken.pages == [page] and taken.seen[0].page_id != page.page_id
    assert given.render(taken.seen[0].page_id, 64) is picture and drawn == [("d/1", 64)]
    (seen,) = given.take([page], BOTH, "it").seen
    with pytest.raises(CorpusError, match="page d/1 comes without a picture, and the retriever wants to look at it"):
        given.render(seen.page_id, 64)


def test_a_picture_is_drawn_no_larger_than_asked_and_stays_as_it_was(picture):
    given = GivenPages()
    (seen,) = given.take([picture], BOTH, "it").seen
    assert given.render(seen.page_id, 30).size == (20, 30) and picture.size == (40, 60)


@pytest.mark.parametrize(
    ("pages", "reads", "message"),
    [
        ("a text", BOTH, "pages must be a list, also of one page; got a single str"),
        ([b"x"], BOTH, r"pages\[0\] must be a Path to a PDF or a picture, .*; got a bytes"),
        (["ok", "a text"], Reads(False, True), r"pages\[0\] is a text, and it reads pictures of pages; give PDFs"),
        ([Image.new("RGB", (8, 8))], Reads(True, False), r"pages\[0\] is a picture, and it reads texts; give PDFs or"),
        ([Path("x.png")], Reads(True, False), r"pages\[0\] is a picture, and it reads texts"),
        ([Path(".")], BOTH, r"pages\[0\] is the folder \.; list its files"),
    ],
)
def test_what_is_not_read_is_refused(pages, reads, message):
    with pytest.raises(ServingError, match=message):
        GivenPages().take(pages, reads, "it")


def test_the_name_of_a_file_is_no_text(pdf):
    with pytest.raises(
        ServingError, match=r"pages\[0\] is the name of a file, .*; give Path\('.*tides.pdf'\) for the file"
    ):
        GivenPages().take([str(pdf)], BOTH, "it")
    assert GivenPages().take(["see tides.pdf"], BOTH, "it").pages[0].text == "see tides.pdf"


@pytest.mark.parametrize("name", ["gone.pdf", "gone.png", "broken.pdf", "broken.png"])
def test_a_file_that_cannot_be_read_is_named(name, tmp_path):
    if name.startswith("broken"):
        (tmp_path / name).write_bytes(b"not what its name says")
    with pytest.raises(CorpusError, match=name):
        GivenPages().take([tmp_path / name], BOTH, "it")
