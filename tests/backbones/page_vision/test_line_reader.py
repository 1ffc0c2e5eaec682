import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.backbones.page_vision.alphabet import CHARACTERS, N_CLASSES, OTHER, classes, decode
from miner_diag.backbones.page_vision.line_engines import FoldedReader, torch_engine
from miner_diag.backbones.page_vision.line_reader import pad, read_lines
from miner_diag.backbones.page_vision.lines import HEIGHT
from miner_diag.backbones.page_vision.trained import load_line_reader


@pytest.fixture(scope="module")
def reader():
    return load_line_reader()


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


def test_a_line_reads_the_same_alone_and_in_any_company(reader):
    """Negative control: what stands right of a line's end changes its scores."""
    some = lines(*(int(width) for width in np.random.default_rng(2).integers(8, 400, 20)))
    engine = torch_engine(FoldedReader(reader))
    together = read_lines(some, engine)
    assert together == [read_lines([line], engine)[0] for line in some]
    assert read_lines(some[::-1], engine) == together[::-1]
    assert read_lines([], engine) == []
    folded, (line,) = FoldedReader(reader), lines(250)
    narrow, wide = (folded(torch.from_numpy(pad([line], width)))[0, :125] for width in (256, 512))
    assert (narrow - wide).abs().max() > 0.1


def test_lines_are_read_together_up_to_a_number_of_columns(reader):
    seen = []

    def engine(batch):
        seen.append(batch.shape)
        return np.zeros((len(batch), batch.shape[3] // 2), dtype=np.int64)

    read_lines(lines(*[500] * 9, 33, 64, 3000), engine)
    assert seen == [
        (2, 1, HEIGHT, 64),
        (3, 1, HEIGHT, 512),
        (3, 1, HEIGHT, 512),
        (3, 1, HEIGHT, 512),
        (1, 1, HEIGHT, 3008),
    ]


def test_padding_is_ground():
    batch = pad(lines(9, 5), 10)
    assert batch.shape == (2, 1, HEIGHT, 10)
    assert np.abs(batch[1, 0, :, 5:]).max() == 0
    assert 0 <= batch.min() and batch.max() <= 1
