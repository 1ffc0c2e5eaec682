"""Pictures of pages look as a viewer shows them: on white, upright, with their depth and colours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from miner_diag.backbones.pictures import PagePictures
from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.images import on_white, open_image

WIDTH, HEIGHT = 60, 40


def clear_page(shift=0):
    """A transparent page with a black box; what is transparent is black underneath."""
    picture = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rectangle((5 + shift, 5, 20 + shift, 20), fill=(0, 0, 0, 255))
    return picture


def palette_page():
    picture = Image.new("P", (WIDTH, HEIGHT), 0)
    picture.putpalette([9, 9, 9, 0, 0, 0])
    ImageDraw.Draw(picture).rectangle((5, 5, 20, 20), fill=1)
    return picture


def grey_16():
    values = np.full((HEIGHT, WIDTH), 65_535, dtype=np.uint16)
    values[5:21, 5:21] = 0
    return Image.fromarray(values)


PICTURES = {
    "RGBA.png": (clear_page(), {}),
    "RGBA.webp": (clear_page(), {"lossless": True}),
    "LA.png": (clear_page().convert("LA"), {}),
    "palette.png": (palette_page(), {"transparency": 0}),
    "palette with shares.png": (palette_page(), {"transparency": bytes([0, 255])}),
    "palette.gif": (palette_page(), {"transparency": 0}),
    "grey with one clear value.png": (palette_page().convert("L"), {"transparency": 9}),
    "colour with one clear value.png": (palette_page().convert("RGB"), {"transparency": (9, 9, 9)}),
    "grey of 16 bits.png": (grey_16(), {}),
    "grey of 16 bits.tif": (grey_16(), {}),
    "grey of 32 bits.tif": (Image.fromarray(np.asarray(grey_16()).astype(np.int32)), {}),
    "shares of white.tif": (Image.fromarray((np.asarray(grey_16()) / 65_535).astype(np.float32)), {}),
    "numbers to 255.tif": (Image.fromarray((np.asarray(grey_16()) / 257).astype(np.float32)), {}),
    "CMYK.tif": (on_white(clear_page()).convert("CMYK"), {}),
    "CMYK.jpg": (on_white(clear_page()).convert("CMYK"), {"quality": 100}),
    "one bit.png": (on_white(clear_page()).convert("1"), {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_shows_black_on_white(tmp_path, name):
    picture, how = PICTURES[name]
    picture.save(tmp_path / name, **how)
    seen = open_image(tmp_path / name)
    assert (seen.mode, seen.size) == ("RGB", (WIDTH, HEIGHT))
    values = np.asarray(seen).astype(int)
    assert values[30, 50].min() >= 250, "the paper is white"
    assert values[12, 12].max() <= 5, "the box is black"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_a_picture_stands_upright(tmp_path, orientation, ending):
    """What a camera stores on its side is turned: the black corner comes to the upper left."""
    upright = Image.new("L", (WIDTH, HEIGHT), 255)
    ImageDraw.Draw(upright).rectangle((0, 0, 15, 15), fill=0)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes the viewer's turn
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"photo.{ending}", exif=exif)
    seen = open_image(tmp_path / f"photo.{ending}")
    assert seen.size == (WIDTH, HEIGHT)
    corner = np.asarray(seen.convert("L"))
    assert corner[4, 4] < 30 and corner[4, -4] > 220 and corner[-4, 4] > 220


@given(st.integers(0, 255), st.integers(0, 255))
def test_half_clear_ink_is_mixed_with_white(ink, opacity):
    seen = on_white(Image.new("LA", (2, 2), (ink, opacity)))
    expected = 255 + (ink - 255) * opacity / 255
    assert abs(np.asarray(seen).astype(float) - expected).max() <= 2


@given(st.integers(0, 65_535))
def test_grey_of_16_bits_is_scaled(value):
    seen = on_white(Image.fromarray(np.full((2, 2), value, dtype=np.uint16)))
    assert np.abs(np.asarray(seen) - value / 257).max() <= 0.5


def test_a_plain_picture_stays_bit_for_bit(rng, tmp_path):
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "plain.png")), pixels)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_grey_values_that_are_none_are_refused_by_name(tmp_path, value):
    Image.fromarray(np.full((4, 4), value, dtype=np.float32)).save(tmp_path / "odd.tif")
    with pytest.raises(CorpusError, match="negative or no numbers"):
        open_image(tmp_path / "odd.tif")


def test_transparent_pages_of_a_table_are_told_apart(small_table):
    folder = small_table()
    for number in range(4):
        clear_page(shift=8 * number).save(folder / f"{number}.png")
    corpus = load_corpus(folder)
    assert len({page.page_hash for page in corpus.pages}) == 4 and corpus.skipped == ()
    assert np.asarray(corpus.render("p1", 60))[30, 50].min() == 255


def test_what_a_caller_draws_is_seen_on_white_too():
    pictures = PagePictures(lambda page_id, side: clear_page())
    assert np.asarray(pictures.draw("p", (WIDTH, HEIGHT)))[30, 50].tolist() == [255, 255, 255]
