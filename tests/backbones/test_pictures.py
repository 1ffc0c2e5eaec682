import pytest
from PIL import Image

from miner_diag.backbones import BackboneError
from miner_diag.backbones.pictures import PagePictures, closest_tiling, size_of_area, size_of_longest


def test_a_page_is_measured_once_and_drawn_when_asked_for():
    asked = []

    def render(page_id, longest_side):
        asked.append(longest_side)
        return Image.new("L", (longest_side // 2, longest_side), 7)

    pictures = PagePictures(render)
    assert pictures.proportion("p") == pictures.proportion("p") == 0.5
    assert len(asked) == 1
    picture = pictures.draw("p", (50, 101))
    assert (picture.mode, picture.size, asked[1:]) == ("RGB", (50, 101), [101])
    assert pictures.draw("p", (8, 9)).size == (8, 9) and asked[-1] == 16
    assert pictures.draw("p", (10, 9000)).size == (10, 9000) and asked[-1] == 4096, "no larger than pages are drawn"


def test_without_a_renderer():
    with pytest.raises(BackboneError, match="nothing draws it"):
        PagePictures(None).proportion("p")


@pytest.mark.parametrize("proportion", [0.1, 0.707, 1.0, 1.5, 12.0])
def test_sizes_keep_the_proportion(proportion):
    width, height = size_of_area(proportion, 1_000_000)
    assert width * height == pytest.approx(1_000_000, rel=2e-3)
    assert width / height == pytest.approx(proportion, rel=5e-3)
    width, height = size_of_longest(proportion, 2000)
    assert max(width, height) == 2000 and width / height == pytest.approx(proportion, rel=5e-3)


def test_tilings():
    """Letter paper at 150 dpi, tiles of 512: 2 columns of 3 rows cover 0.75 of it and are nearest to its shape."""
    tilings = sorted(((c, r) for c in range(1, 7) for r in range(1, 7) if c * r <= 6), key=lambda t: (t[0] * t[1], t))
    assert closest_tiling((1275, 1650), 512, tilings) == (2, 3)
    assert closest_tiling((1650, 1275), 512, tilings) == (3, 2)
    assert closest_tiling((500, 500), 512, tilings) == (1, 1)
    assert closest_tiling((300, 1500), 512, tilings) == (1, 5)
