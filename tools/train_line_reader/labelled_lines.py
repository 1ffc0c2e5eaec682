"""Lines of text with what is written in them: pictures of pages cut into lines, labelled by the PDFs' text layers.

A label is exact: it says which character stands at which column. Lines whose ink the text layer does not explain
(pictures of text, formulas, merged lines) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miner_diag.backbones.page_vision.alphabet import OTHER, classes
from miner_diag.backbones.page_vision.lines import LONGEST_SIDE, Line, find_lines
from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.pdf import located_characters, open_page, open_pdf, render_page

MAX_OTHER = 0.2
"""The largest share of glyphs outside the alphabet in a line that is kept."""

MAX_UNEXPLAINED = 0.04
"""The largest share of a line's ink that may stand outside the boxes of the characters."""


@dataclass(frozen=True)
class LabelledLine:
    """A line and its characters."""

    pixels: np.ndarray
    """[HEIGHT, W] uint8."""
    labels: np.ndarray
    """[C] classes of the alphabet, spaces included, left to right."""
    columns: np.ndarray
    """[C] column of each character's middle in `pixels`."""


def page_lines(path: Path, number: int, longest_side: int = LONGEST_SIDE) -> list[LabelledLine]:
    """Return the lines of one page of a PDF whose text layer explains them; [] for a page that cannot be drawn."""
    try:
        with open_pdf(path) as document, open_page(document, number) as page:
            picture = render_page(page, longest_side)
            characters, boxes = located_characters(page, *picture.size)
    except CorpusError:
        return []
    lines = find_lines(picture)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2  # [C, 2]
    labelled = (_labelled(line, characters, boxes, middle) for line in lines)
    return [line for line in labelled if line is not None]


def _labelled(line: Line, characters: str, boxes: np.ndarray, middle: np.ndarray) -> LabelledLine | None:
    inside = (
        (boxes[:, 0] >= 0)
        & (middle[:, 0] > line.left - 1)
        & (middle[:, 0] < line.right + 1)
        & (middle[:, 1] > line.top - 3)
        & (middle[:, 1] < line.bottom + 3)
    )
    own = [i for i in np.flatnonzero(inside) if not characters[i].isspace()]
    if len(own) < 2:
        return None
    heights = middle[own, 1]
    if np.ptp(heights) > 0.8 * (line.bottom - line.top) or not _explained(line, boxes[own]):
        return None
    scale = line.pixels.shape[1] / (line.right - line.left + 4)
    labels: list[int] = []
    middles: list[float] = []
    for previous, index in zip([None, *own], own, strict=False):
        if previous is not None:
            if middle[index, 0] < middle[previous, 0] - 2:
                return None  # two lines in one box, or accents set apart
            if index != previous + 1:
                labels.append(1)
                middles.append((boxes[previous, 2] + boxes[index, 0]) / 2)
        parts = classes(characters[index])
        width = boxes[index, 2] - boxes[index, 0]
        for k, label in enumerate(parts):
            labels.append(label)
            middles.append(boxes[index, 0] + width * (k + 0.5) / len(parts))
    array = np.array(labels)
    if not len(array) or (array == OTHER).mean() > MAX_OTHER:
        return None
    columns = (np.array(middles) - line.left + 2) * scale
    return LabelledLine(line.pixels, array.astype(np.uint8), columns.astype(np.float32))


def _explained(line: Line, boxes: np.ndarray) -> bool:
    covered = np.zeros(line.right - line.left + 4, dtype=bool)
    for left, right in boxes[:, [0, 2]] - line.left + 2:
        covered[max(0, left - 2) : right + 3] = True
    scale = line.pixels.shape[1] / len(covered)
    ink = (line.pixels > 100).sum(axis=0)  # [W]
    columns = np.minimum((np.arange(len(ink)) / scale).astype(int), len(covered) - 1)
    total = ink.sum()
    return bool(total > 0 and ink[~covered[columns]].sum() <= MAX_UNEXPLAINED * total)


def draw_pages(
    pages: Sequence[tuple[Path, int]], per_page: int, seed: int, *, first: int = 0
) -> Iterator[list[LabelledLine]]:
    """Yield at most `per_page` lines of each page, drawn at random; `first` is the number of the first page."""
    for number, (path, page) in enumerate(pages, start=first):
        lines = page_lines(path, page)
        rng = np.random.default_rng([seed, number])
        chosen = np.sort(rng.permutation(len(lines))[:per_page])
        yield [lines[i] for i in chosen]
