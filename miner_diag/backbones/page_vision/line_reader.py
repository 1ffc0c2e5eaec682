"""A small convolutional reader of text lines: a line's pixels -> the characters in it.

Half a million numbers, trained by ``python -m tools.train_line_reader`` on lines of the training documents; no language
model and no dictionary: a character is read by what stands some eight characters around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from miner_diag.backbones.page_vision.alphabet import N_CLASSES, decode
from miner_diag.backbones.page_vision.lines import HEIGHT

COLUMNS_PER_FRAME = 2
"""The number of columns of a line that become one frame; no character is narrower."""

COLUMNS_AT_ONCE = 2_000
"""The number of columns, padding included, of one forward: what fits a core's cache is read fastest."""

PADDED_TO = 32
"""A line is padded with ground to the next multiple of so many columns, whatever lines it is read beside: what stands
right of a line's end can decide its last letter, so a padding by company would let company decide."""

BestClasses = Callable[[np.ndarray], np.ndarray]
"""Takes lines [B, 1, HEIGHT, W] float32, ink 1, ground 0; returns the best class [B, W / 2] of each frame."""


class LineReader(nn.Module):
    """Three convolutions that take all rows together, then residual convolutions along the line.

    Parameters
    ----------
    channels : tuple of int
        The channels of the three convolutions.
    width : int
        The width of the states along the line.
    depth : int
        The number of residual blocks along the line.
    """

    def __init__(self, channels: tuple[int, int, int] = (24, 48, 96), width: int = 192, depth: int = 4) -> None:
        super().__init__()
        one, two, three = channels
        self.fold = nn.Sequential(
            _convolution(1, one),
            nn.MaxPool2d(2),
            _convolution(one, two),
            nn.MaxPool2d((2, 1)),
            _convolution(two, three),
            nn.MaxPool2d((2, 1)),
            nn.Conv2d(three, width, (HEIGHT // 8, 3), padding=(0, 1), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.along = nn.Sequential(*(_Along(width) for _ in range(depth)))
        self.head = nn.Conv1d(width, N_CLASSES, 1)

    def forward(self, lines: torch.Tensor) -> torch.Tensor:
        """Return class scores [B, N_CLASSES, W / 2] of lines [B, 1, HEIGHT, W], ink 1, ground 0; W even."""
        return self.head(self.along(self.fold(lines).squeeze(2)))


class _Along(nn.Module):
    """A residual block: each channel along the line, then all channels of a frame."""

    def __init__(self, width: int, reach: int = 9) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv1d(width, width, reach, padding=reach // 2, groups=width, bias=False),
            nn.BatchNorm1d(width),
            nn.Conv1d(width, width, 1),
            nn.GELU(),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + self.mix(states)


def _convolution(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


def read_lines(lines: Sequence[np.ndarray], best_classes: BestClasses) -> list[str]:
    """Return the text of lines [HEIGHT, W] uint8, in their order; a line's text does not depend on the others.

    Parameters
    ----------
    lines : sequence of array
        The lines.
    best_classes : callable
        The reader; :func:`~miner_diag.backbones.page_vision.line_engines.line_engine` makes one.
    """
    by_width: dict[int, list[int]] = {}
    for number, line in enumerate(lines):
        by_width.setdefault(PADDED_TO * -(-line.shape[1] // PADDED_TO), []).append(number)
    texts = [""] * len(lines)
    for width, numbers in sorted(by_width.items()):
        at_once = max(1, COLUMNS_AT_ONCE // width)
        for start in range(0, len(numbers), at_once):
            together = numbers[start : start + at_once]
            best = best_classes(pad([lines[number] for number in together], width))
            for number, frames in zip(together, best, strict=True):
                texts[number] = decode(frames[: lines[number].shape[1] // COLUMNS_PER_FRAME])
    return texts


def pad(lines: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Return lines [HEIGHT, W_i] uint8 as one batch [B, 1, HEIGHT, width] float32, ground on the right, in 0 … 1."""
    batch = np.zeros((len(lines), 1, HEIGHT, width), dtype=np.float32)
    for row, line in enumerate(lines):
        batch[row, 0, :, : line.shape[1]] = line
    return batch / 255
