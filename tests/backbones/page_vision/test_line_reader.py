import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.backbones.page_vision.alphabet import CHARACTERS, N_CLASSES, OTHER, classes, decode
from miner_diag.backbones.page_vision.line_reader import LineReader, batches, pad
from miner_diag.backbones.page_vision.lines import HEIGHT


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    return LineReader().eval()


def lines(*widths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (HEIGHT, width), dtype=np.uint8) for width in widths]


@settings(deadline=None)
@given(st.text(alphabet=CHARACTERS, max_size=40))
def test_what_is_written_is_read_back(text):
    frames = [frame for character in text for frame in (*classes(character), 0)]
    assert decode(np.array(frames, dtype=np.int64)) == " ".join(text.split())


def test_repeats_are_merged_unless_a_blank_parts_them():
    a, b = classes("a") + classes("b")
    assert decode(np.array([0, a, a, 0, a, b, b, 0])) == "aab"
    assert decode(np.array([0, 0])) == ""
    assert decode(np.array([a, OTHER, OTHER, b])) == "a b"


@pytest.mark.parametrize(
    ("character", "text"), [("É", "e"), ("ﬁ", "fi"), ("—", "-"), ("“", '"'), ("ß", "ss"), ("²", "2")]
)
def test_case_accents_and_ligatures_fold(character, text):
    assert [CHARACTERS[c - 1] for c in classes(character)] == list(text)


def test_what_has_no_class_is_other_and_what_has_no_ink_is_nothing():
    assert classes("Ω") == [OTHER]
    assert classes("\x00") == []
    assert OTHER == N_CLASSES - 1 == len(CHARACTERS) + 1


def test_one_frame_for_two_columns(reader):
    assert reader(torch.zeros(2, 1, HEIGHT, 40)).shape == (2, N_CLASSES, 20)


def test_order_and_company_do_not_matter(reader):
    """A line reads the same alone and among others, up to the padding's edge, which one line of a kind shows."""
    some = lines(120, 120, 120)
    together = reader.read(some)
    assert together == [reader.read([line])[0] for line in some]
    assert reader.read(some[::-1]) == together[::-1]
    assert reader.read([]) == []


def test_batches_hold_every_line_once_and_no_more_columns_than_asked():
    widths = [int(w) for w in np.random.default_rng(1).integers(8, 900, 200)]
    groups = batches(widths, 5000)
    assert sorted(i for group in groups for i in group) == list(range(200))
    assert all(len(group) * max(widths[i] for i in group) <= 5000 for group in groups if len(group) > 1)
    assert batches([90_000, 10], 5000) == [[1], [0]]


def test_padding_is_ground_and_the_width_even():
    batch = pad(lines(9, 5))
    assert batch.shape == (2, 1, HEIGHT, 10)
    assert batch[1, 0, :, 5:].abs().max() == 0
    assert 0 <= batch.min() and batch.max() <= 1
