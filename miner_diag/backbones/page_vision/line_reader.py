"""A small convolutional reader of text lines: a line's pixels -> the characters in it.

Half a million numbers, trained by ``python -m tools.train_line_reader`` on lines of the training documents; no language
model and no dictionary: a character is read by what stands some eight characters around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from miner_diag.backbones.page_vision.alphabet import N_CLASSES, decode
from miner_diag.backbones.page_vision.lines import HEIGHT

COLUMNS_PER_FRAME = 2
"""The number of columns of a line that become one frame; no character is narrower."""

COLUMNS_AT_ONCE = 4_000
"""The number of columns, padding included, of one forward: what fits a core's cache is read twice as fast as 24,000."""


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

    def read(self, lines: Sequence[np.ndarray]) -> list[str]:
        """Return the text of lines [HEIGHT, W] uint8, in their order."""
        texts = [""] * len(lines)
        device = next(self.parameters()).device
        for rows in batches([line.shape[1] for line in lines], COLUMNS_AT_ONCE):
            pixels = pad([lines[i] for i in rows]).to(device)
            with torch.inference_mode():
                best = self(pixels).argmax(1).cpu().numpy()  # [B, T]
            for i, frames in zip(rows, best, strict=True):
                texts[i] = decode(frames[: lines[i].shape[1] // COLUMNS_PER_FRAME])
        return texts


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


def batches(widths: Sequence[int], columns: int) -> list[list[int]]:
    """Group lines of like width so that no group holds more than `columns` columns, unless it is one line."""
    groups: list[list[int]] = []
    for i in sorted(range(len(widths)), key=lambda i: (widths[i], i)):
        if not groups or (len(groups[-1]) + 1) * widths[i] > columns:
            groups.append([])
        groups[-1].append(i)
    return groups


def pad(lines: Sequence[np.ndarray]) -> torch.Tensor:
    """Return lines [HEIGHT, W_i] uint8 as one batch [B, 1, HEIGHT, W], ground on the right, in 0 … 1; W is even."""
    widest = max(line.shape[1] for line in lines)
    batch = np.zeros((len(lines), 1, HEIGHT, widest + widest % 2), dtype=np.float32)
    for row, line in enumerate(lines):
        batch[row, 0, :, : line.shape[1]] = line
    return torch.from_numpy(batch / 255)
