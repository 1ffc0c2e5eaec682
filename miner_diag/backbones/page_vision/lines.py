"""Finding the lines of text in a page's picture: ink, smeared sideways until the words of a line touch.

Nothing here is learned. Columns stay apart because the smear is shorter than the space between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from miner_diag.corpus.ink import unbroken_runs

LONGEST_SIDE = 1200
"""The pixels on a page's longer side: letters of 10 points are 14 pixels high, an "l" is 3 wide."""

VERSION = "lines 1"
"""It is raised whenever the same picture gives other lines, because it is part of the key of what was read."""

HEIGHT = 16
"""The number of rows of a line that the reader sees."""

STRETCH = 1.25
"""Lines are drawn this much wider than high: narrow letters need columns, not rows."""

MAX_WIDTH = 1200
"""The largest number of columns of a line that the reader sees; a longer line is squeezed."""

INK = 0.25
"""The share of full contrast from which a pixel counts as ink."""

SMEAR = 15
"""The pixels of white that are bridged inside a line, at `LONGEST_SIDE`: more than the spaces of a justified line."""

SMALLEST, TALLEST = 6, 64
"""The least and the greatest height of what can be a line, in pixels."""

COLUMN_GAP = 12
"""The pixels of white, all the way down, that part two columns."""

RULE = 90
"""A thin run of ink this long, in pixels, is a rule or a frame, not letters."""


@dataclass(frozen=True)
class Line:
    """One line of text, found by its ink."""

    left: int
    """The first column of its box, in pixels of the page's picture."""
    top: int
    """The first row of its box."""
    right: int
    """The column behind its box."""
    bottom: int
    """The row below its box."""
    pixels: np.ndarray
    """[HEIGHT, W] uint8, ink is high: darkness against the line's own ground."""


def find_lines(picture: Image.Image) -> list[Line]:
    """Return the lines of a picture in reading order: left column before right, top before bottom.

    Parameters
    ----------
    picture : Image
        A page at `LONGEST_SIDE`; boxes are in pixels of it.
    """
    grey = np.asarray(picture.convert("L"))
    ink = _ink(grey)
    text = _without_rules(ink)
    boxes = [box for box in _boxes(text) if _is_line(box, text)]
    return [Line(*box, pixels=_normalised(grey, box)) for box in reading_order(boxes)]


def reading_order(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Sort boxes (left, top, right, bottom): cut between columns, else where rows are furthest apart; repeat."""
    if len(boxes) < 2:
        return list(boxes)
    array = np.array(boxes)
    parts = _cut(array, 0, 2, COLUMN_GAP)
    if len(parts) == 1:
        parts = _cut(array, 1, 3, max(0, _widest_gap(array[:, 1], array[:, 3]) - 3))
    if len(parts) == 1:
        return sorted(boxes, key=lambda box: (box[1], box[0]))
    return [box for part in parts for box in reading_order([boxes[i] for i in part])]


def _widest_gap(low: np.ndarray, high: np.ndarray) -> int:
    order = np.argsort(low, kind="stable")
    return int((low[order][1:] - np.maximum.accumulate(high[order])[:-1]).max())


def _cut(boxes: np.ndarray, low: int, high: int, widest: int) -> list[list[int]]:
    """Group boxes by the gaps of more than `widest` pixels between them along one axis."""
    order = np.argsort(boxes[:, low], kind="stable")
    parts: list[list[int]] = [[int(order[0])]]
    reach = boxes[order[0], high]
    for index in order[1:]:
        if boxes[index, low] - reach > widest:
            parts.append([])
        parts[-1].append(int(index))
        reach = max(reach, boxes[index, high])
    return parts


def _ink(grey: np.ndarray) -> np.ndarray:
    """Pixels that stand out of their surroundings: dark on light, or light on a dark box."""
    small = Image.fromarray(grey).reduce(8)
    ground = np.asarray(small.resize((grey.shape[1], grey.shape[0]), Image.Resampling.BILINEAR), dtype=np.int16)
    dark_box = ground < 110
    difference = np.where(dark_box, grey.astype(np.int16) - ground, np.maximum(ground, 200) - grey)
    return difference > INK * 255


def _without_rules(ink: np.ndarray) -> np.ndarray:
    """Drop long thin runs: rules of tables, frames, axes."""
    across = unbroken_runs(ink, RULE, axis=1)
    down = unbroken_runs(ink, RULE // 2, axis=0)
    return ink & ~across & ~down


def _boxes(text: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes of what touches after the smear; what is too tall is cut where little ink runs across."""
    padded = np.pad(text, ((0, 0), (SMEAR, SMEAR)))
    smeared = ~unbroken_runs(~padded, SMEAR, axis=1)[:, SMEAR:-SMEAR]  # white that is too narrow to part two words
    labels, _ = ndimage.label(smeared, np.ones((3, 3)))
    boxes = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height = rows.stop - rows.start
        if height <= 22:
            boxes.append((columns.start, rows.start, columns.stop, rows.stop))
            continue
        own = (labels[rows, columns] == number) & text[rows, columns]
        for top, bottom in _bands(own):
            part = np.flatnonzero(own[top:bottom].any(axis=0))
            if len(part):
                boxes.append(
                    (columns.start + part[0], rows.start + top, columns.start + part[-1] + 1, rows.start + bottom)
                )
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in boxes]


def _bands(own: np.ndarray) -> list[tuple[int, int]]:
    """Rows of lines inside a tall component: split at rows with almost no ink, if that gives lines."""
    profile = own.sum(axis=1)
    full = profile > max(2.0, 0.06 * np.percentile(profile, 90))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], full.astype(np.int8), [0]])))
    bands = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 5]
    if len(bands) < 2:
        return [(0, own.shape[0])]
    return [(max(0, a - 1), min(own.shape[0], b + 1)) for a, b in bands]


def _is_line(box: tuple[int, int, int, int], text: np.ndarray) -> bool:
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    if not (SMALLEST <= height <= TALLEST and width >= 0.5 * height and width >= 6):
        return False
    share = text[top:bottom, left:right].mean()
    return bool(0.04 <= share <= 0.75)


def _normalised(grey: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Cut a line out with a pixel around it, ink high, full contrast, `HEIGHT` rows."""
    left, top, right, bottom = box
    crop = grey[max(0, top - 1) : bottom + 1, max(0, left - 2) : right + 2].astype(np.float32)
    low, high = np.percentile(crop, (1, 99))
    ground = np.median(crop)
    level = (crop - low) / max(high - low, 1.0)
    if ground - low >= high - ground:  # dark letters on a light ground
        level = 1 - level
    level = (np.clip(level, 0, 1) * 255).astype(np.uint8)
    width = int(np.clip(round(crop.shape[1] * HEIGHT / crop.shape[0] * STRETCH), 8, MAX_WIDTH))
    return np.asarray(Image.fromarray(level).resize((width, HEIGHT), Image.Resampling.BILINEAR))
