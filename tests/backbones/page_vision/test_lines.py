import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from miner_diag.backbones.page_vision.lines import HEIGHT, LONGEST_SIDE, MAX_WIDTH, find_lines, reading_order

FONT = ImageFont.load_default(size=18)


def paper(width=900, height=LONGEST_SIDE, ground="white"):
    picture = Image.new("RGB", (width, height), ground)
    return picture, ImageDraw.Draw(picture)


def test_finds_each_line_once_top_to_bottom():
    picture, draw = paper()
    for number in range(20):
        draw.text((80, 60 + 40 * number), f"line number {number} of a page", fill="black", font=FONT)
    lines = find_lines(picture)
    assert len(lines) == 20
    assert [line.top for line in lines] == sorted(line.top for line in lines)
    for number, line in enumerate(lines):
        assert 60 + 40 * number <= line.top < line.bottom <= 60 + 40 * number + 30
        assert line.pixels.shape[0] == HEIGHT
        assert line.pixels.dtype == np.uint8
        assert line.pixels.max() > 200
        assert np.median(line.pixels) < 50


def test_columns_are_read_one_after_the_other():
    picture, draw = paper()
    for number in range(6):
        draw.text((60, 100 + 30 * number), "left column text here", fill="black", font=FONT)
        draw.text((500, 100 + 30 * number), "right column text here", fill="black", font=FONT)
    lefts = [line.left for line in find_lines(picture)]
    assert len(lefts) == 12
    assert max(lefts[:6]) < 400 < min(lefts[6:])


def test_rules_and_frames_are_no_lines():
    picture, draw = paper()
    draw.text((120, 300), "inside a frame", fill="black", font=FONT)
    draw.rectangle((100, 280, 500, 340), outline="black", width=2)
    draw.line((50, 900, 850, 900), fill="black", width=2)
    (line,) = find_lines(picture)
    assert 290 < line.top < line.bottom < 335


def test_white_on_a_dark_box_looks_like_black_on_white():
    picture, draw = paper()
    draw.text((100, 100), "the same words", fill="black", font=FONT)
    draw.rectangle((60, 400, 800, 560), fill=(20, 30, 90))
    draw.text((100, 470), "the same words", fill="white", font=FONT)
    black, white = find_lines(picture)
    assert abs(black.pixels.shape[1] - white.pixels.shape[1]) <= 12
    assert np.median(white.pixels) < 60 < 200 < white.pixels.max()


def test_an_empty_page_has_no_line():
    assert find_lines(paper()[0]) == []
    assert find_lines(paper(ground="black")[0]) == []


@pytest.mark.parametrize("size", [(16, 16), (1200, 16), (3, 1200), (1200, 700)])
def test_any_size_of_picture(size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    for line in find_lines(picture):
        assert line.pixels.shape[0] == HEIGHT
        assert 8 <= line.pixels.shape[1] <= MAX_WIDTH


def test_scale_changes_the_picture_of_a_line_little():
    shapes = []
    for size in (16, 32):
        picture, draw = paper()
        draw.text((50, 100), "Chapter head", fill="black", font=ImageFont.load_default(size=size))
        (line,) = find_lines(picture)
        shapes.append(line.pixels.shape[1])
    assert shapes[0] == pytest.approx(shapes[1], rel=0.15)


def test_reading_order_by_hand():
    title, left_1, left_2 = (10, 10, 500, 30), (10, 50, 240, 60), (10, 70, 240, 80)
    right_1, right_2 = (260, 50, 500, 60), (260, 72, 500, 82)
    boxes = [right_2, left_2, title, right_1, left_1]
    assert reading_order(boxes) == [title, left_1, left_2, right_1, right_2]
    assert reading_order([]) == []
