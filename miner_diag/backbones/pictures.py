"""Pages as pictures: how large they are, and drawing them when they are needed, not before."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from miner_diag.backbones.base import BackboneError
from miner_diag.backbones.reader import Render
from miner_diag.corpus.images import on_white
from miner_diag.corpus.limits import MAX_RENDER_SIDE

PROBE_SIDE = 512
"""A page is drawn this large, once, to learn its proportions: they are at most 0.2 % wrong."""
MIN_SIDE = 16
"""The longer side, in pixels, of the smallest picture that is drawn."""


class PagePictures:
    """Draws pages. Only proportions are kept: a corpus's pictures never lie in memory together.

    Parameters
    ----------
    render : callable, optional
        ``corpus.render``; what it draws is what is seen, so words that a corpus has whited out stay unseen.
    """

    def __init__(self, render: Render | None) -> None:
        self.render = render
        self._proportions: dict[str, float] = {}

    def proportion(self, page_id: str) -> float:
        """Return width / height of a page.

        Raises
        ------
        BackboneError
            If nothing draws pages.
        """
        if page_id not in self._proportions:
            width, height = self._drawn(page_id, PROBE_SIDE).size
            self._proportions[page_id] = width / height
        return self._proportions[page_id]

    def draw(self, page_id: str, size: tuple[int, int]) -> Image.Image:
        """Return a page in RGB, `size` (width, height) pixels: drawn at its longer side, then fitted."""
        picture = self._drawn(page_id, min(max(*size, MIN_SIDE), MAX_RENDER_SIDE))
        return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)

    def _drawn(self, page_id: str, longest_side: int) -> Image.Image:
        if self.render is None:
            raise BackboneError(
                f"page {page_id} must be looked at, but nothing draws it; give load_backbone(..., render=corpus.render)"
            )
        return on_white(self.render(page_id, longest_side))


def size_of_area(proportion: float, area: float) -> tuple[int, int]:
    """Return the (width, height) of a picture of this proportion and about this area, in pixels."""
    height = math.sqrt(area / proportion)
    return max(1, round(height * proportion)), max(1, round(height))


def size_of_longest(proportion: float, longest: int) -> tuple[int, int]:
    """Return the (width, height) of a picture of this proportion whose longer side is `longest` pixels."""
    if proportion >= 1:
        return longest, max(1, round(longest / proportion))
    return max(1, round(longest * proportion)), longest


def closest_tiling(size: tuple[int, int], tile: int, tilings: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return which (columns, rows) of square tiles a picture is cut into: close in shape, and of at least 60 % of it.

    The rule of InternVL and its descendants; the first of equals wins.
    """
    width, height = size
    shape = width / height

    def fit(tiling: tuple[int, int]) -> float:
        columns, rows = tiling
        covered = columns * rows * tile * tile / (width * height)
        return min(covered, 0.6) * min(columns / rows / shape, shape * rows / columns)

    return max(tilings, key=fit)
