"""Labelled lines on disk: shards that an interrupted run takes up, and that no other run mistakes for its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from miner_diag.backbones.page_vision.lines import VERSION
from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.sealed import DamagedError, read_tensors, write_tensors
from tools.train_line_reader.labelled_lines import LabelledLine, draw_pages

logger = logging.getLogger(__name__)

PAGES_PER_SHARD = 200
"""The number of pages in a shard: a minute's work on one core."""


def cut_pages(
    pages: Sequence[tuple[str, Path, int]], per_page: int, seed: int, folder: Path | None = None
) -> list[LabelledLine]:
    """Return at most `per_page` lines of each page, drawn at random; shards that `folder` holds are not cut again.

    Parameters
    ----------
    pages : sequence of (str, Path, int)
        The name of each page, the PDF that it stands in, and its number. The names decide which shards are read again.
    per_page : int
        The largest number of lines of a page.
    seed : int
        The seed of the draw, together with the page's number in the sequence.
    folder : path, optional
        Where shards are written, each named by what is in it; nothing is written without.
    """
    lines: list[LabelledLine] = []
    with tqdm(total=len(pages), desc="cutting lines", unit="page", delay=2) as bar:
        for start in range(0, len(pages), PAGES_PER_SHARD):
            part = pages[start : start + PAGES_PER_SHARD]
            content = [VERSION, [[name, number] for name, _, number in part], start, per_page, seed]
            digest = sha256_bytes(canonical_json(content).encode())[:16]
            path = folder / f"{digest}.safetensors" if folder is not None else None
            if (kept := _kept(path)) is not None:
                lines += kept
            else:
                in_files = [(file, number) for _, file, number in part]
                cut = [line for lines in draw_pages(in_files, per_page, seed, first=start) for line in lines]
                if path is not None:
                    write_lines(path, cut)
                lines += cut
            bar.update(len(part))
    return lines


def write_lines(path: Path, lines: Sequence[LabelledLine]) -> None:
    """Write lines as one file: pixels side by side, labels and their columns end to end, and how long each is."""
    arrays = {
        "pixels": _joined([line.pixels.T for line in lines], np.uint8),
        "widths": np.array([line.pixels.shape[1] for line in lines], dtype=np.int64),
        "labels": _joined([line.labels for line in lines], np.uint8),
        "places": _joined([line.columns for line in lines], np.float32),
        "lengths": np.array([len(line.labels) for line in lines], dtype=np.int64),
    }
    write_tensors(path, arrays, {})


def read_lines(path: Path) -> list[LabelledLine]:
    """Return the lines of a file of :func:`write_lines`.

    Raises
    ------
    DamagedError
        If it is not what was written.
    """
    _, arrays = read_tensors(path)
    pixels, labels, columns = arrays["pixels"].T, arrays["labels"], arrays["places"]
    rights, ends = np.cumsum(arrays["widths"]), np.cumsum(arrays["lengths"])
    return [
        LabelledLine(pixels[:, right - width : right], labels[end - length : end], columns[end - length : end])
        for right, width, end, length in zip(
            rights, np.diff(rights, prepend=0), ends, np.diff(ends, prepend=0), strict=True
        )
    ]


def _kept(path: Path | None) -> list[LabelledLine] | None:
    """Return the lines of a shard; None if there is none, or it is damaged, which a warning says."""
    if path is None or not path.is_file():
        return None
    try:
        return read_lines(path)
    except DamagedError as error:
        logger.warning("%s is damaged (%s); its lines are cut again", path, error)
        return None


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype=dtype)
