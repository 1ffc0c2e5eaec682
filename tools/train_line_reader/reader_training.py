"""Training the line reader: labelled lines in, characters out, on the CPU, seeded."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from miner_diag.backbones.page_vision.alphabet import CHARACTERS, OTHER
from miner_diag.backbones.page_vision.line_engines import line_engine
from miner_diag.backbones.page_vision.line_reader import COLUMNS_PER_FRAME, LineReader, pad, read_lines
from miner_diag.backbones.page_vision.lines import HEIGHT
from miner_diag.files import canonical_json
from miner_diag.training_state import fill_optimizer, keep_state, part_of, take_state
from tools.train_line_reader.labelled_lines import LabelledLine

logger = logging.getLogger(__name__)

WARM_UP = 0.1
"""The share of the steps in which the learning rate rises."""

KEEP_EVERY = 100
"""The number of steps between two states on disk and two lines of the log."""

PLACED = 0.4
"""The share of the steps over which the loss moves from the labels' columns to CTC, which finds the columns itself."""


@dataclass(frozen=True)
class ReaderScores:
    """How well lines are read."""

    character_error: float
    """The edits per character of the truth."""
    words_read: float
    """The share of the truth's words of three letters and more that stand in what was read."""


def train_reader(
    lines: Sequence[LabelledLine],
    *,
    steps: int,
    seed: int,
    columns: int = 16_000,
    rate: float = 3e-3,
    bfloat16: bool = False,
    state: Path | None = None,
) -> LineReader:
    """Return a reader trained on `lines`.

    The loss is a cross-entropy per frame at first (each character at the frame of its middle, blank elsewhere: the
    text layer says where), and turns into CTC over the first `PLACED` of the steps.

    Parameters
    ----------
    lines : sequence of LabelledLine
        The lines to learn from.
    steps : int
        The number of batches of about `columns` columns.
    seed : int
        The seed of weights, order and noise.
    columns : int
        The number of columns of pixels in a batch.
    rate : float
        The peak of the learning rate.
    bfloat16 : bool
        Run the forward in bfloat16: half the time on a CPU that has it, many times that on one that has not.
    state : path, optional
        A file that is written every `KEEP_EVERY` steps; a training that was stopped goes on from it. One that is
        damaged or of another training is put aside.
    """
    torch.manual_seed(seed)
    reader = LineReader().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(reader.parameters(), lr=rate, weight_decay=1e-3)
    key = canonical_json(
        {
            "lines": _digest(lines),
            "steps": steps,
            "seed": seed,
            "columns": columns,
            "rate": rate,
            "bfloat16": bfloat16,
        }
    )
    done = 0
    if (kept_state := take_state(state, key)) is not None:
        noted, tensors = kept_state
        reader.load_state_dict(part_of(tensors, "reader."))
        fill_optimizer(optimizer, tensors)
        done = int(noted["step"])
    for step, rows in _steps(lines, steps, columns, seed):
        if step < done:
            continue
        batch = [lines[i] for i in rows]
        pixels, lengths, frames = _worn(batch, np.random.default_rng([seed, 1, step]))
        for group in optimizer.param_groups:
            group["lr"] = rate * _share_of_rate(step / steps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            scores = reader(pixels.to(memory_format=torch.channels_last))
        share = max(0.1, 1 - step / max(1.0, PLACED * steps))
        loss = _loss(scores.float(), batch, lengths, frames, share)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 2.0)
        optimizer.step()
        if (step + 1) % KEEP_EVERY == 0:
            logger.info("step %d of %d: loss %.3f", step + 1, steps, loss.item())
            if state is not None:
                kept = {f"reader.{name}": value for name, value in reader.state_dict().items()}
                keep_state(state, key, {"step": step + 1}, kept, optimizer)
    return reader.eval()


def score_reader(reader: LineReader, lines: Sequence[LabelledLine]) -> ReaderScores:
    """Read `lines` and compare with what is written in them."""
    texts = read_lines([line.pixels for line in lines], line_engine(reader))
    edits = n_characters = n_words_read = n_words = 0
    for read, line in zip(texts, lines, strict=True):
        truth = written(line)
        edits += edit_distance(read, truth)
        n_characters += len(truth)
        words = [word for word in truth.split() if len(word) > 2]
        n_words_read += sum(word in read.split() for word in words)
        n_words += len(words)
    return ReaderScores(edits / max(1, n_characters), n_words_read / max(1, n_words))


def written(line: LabelledLine) -> str:
    """Return a line's true text, as a perfect reader would return it."""
    return " ".join("".join(" " if c == OTHER else CHARACTERS[c - 1] for c in line.labels).split())


def edit_distance(one: str, other: str) -> int:
    """Return how many insertions, deletions and replacements turn `one` into `other`.

    Examples
    --------
    >>> edit_distance("reader", "leaden")
    2
    """
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def _share_of_rate(done: float) -> float:
    """Return the share of the peak learning rate at a share of the steps: up in a line, down in half a cosine."""
    if done < WARM_UP:
        return 0.04 + 0.96 * done / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))


def _digest(lines: Sequence[LabelledLine]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(np.ascontiguousarray(line.pixels).tobytes() + line.labels.tobytes() + line.columns.tobytes())
    return digest.hexdigest()


def _steps(lines: Sequence[LabelledLine], steps: int, columns: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """Yield each step and the rows of its batch: lines of like width together, anew in each pass."""
    step = 0
    for number in itertools.count():
        rng = np.random.default_rng([seed, 0, number])
        widths = [int(line.pixels.shape[1] * rng.uniform(0.9, 1.1)) for line in lines]
        groups = batches(widths, columns)
        for chosen in rng.permutation(len(groups)):
            if step == steps:
                return
            yield step, groups[chosen]
            step += 1


def batches(widths: Sequence[int], columns: int) -> list[list[int]]:
    """Group lines of like width so that no group holds more than `columns` columns, unless it is one line."""
    groups: list[list[int]] = []
    for i in sorted(range(len(widths)), key=lambda i: (widths[i], i)):
        if not groups or (len(groups[-1]) + 1) * widths[i] > columns:
            groups.append([])
        groups[-1].append(i)
    return groups


def _worn(batch: Sequence[LabelledLine], rng: np.random.Generator) -> tuple[torch.Tensor, list[int], list[np.ndarray]]:
    """Return pixels [B, 1, HEIGHT, W] stretched, shifted, faded and noisy; frames of each line; each label's frame."""
    widest = max(line.pixels.shape[1] for line in batch)
    pixels = torch.from_numpy(pad([line.pixels for line in batch], widest + widest % 2))
    n_lines, _, _, width = pixels.shape
    stretched = int(width * rng.uniform(0.85, 1.15)) // 2 * 2
    rows = int(rng.integers(HEIGHT - 2, HEIGHT + 2))
    pixels = functional.interpolate(pixels, size=(rows, stretched), mode="bilinear")
    spare = abs(rows - HEIGHT)
    shift = int(rng.integers(0, spare + 1))
    if rows >= HEIGHT:
        pixels = pixels[:, :, shift : shift + HEIGHT]
    else:
        pixels = functional.pad(pixels, (0, 0, shift, spare - shift))
    gamma = torch.from_numpy(rng.uniform(0.6, 1.6, (n_lines, 1, 1, 1)).astype(np.float32))
    faded = torch.from_numpy(rng.uniform(0.6, 1.0, (n_lines, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(tuple(pixels.shape), dtype=np.float32)) * float(rng.uniform(0, 0.06))
    pixels = (pixels.clamp(0, 1) ** gamma * faded + noise).clamp(0, 1)
    scale, n_frames = stretched / width / COLUMNS_PER_FRAME, stretched // COLUMNS_PER_FRAME
    lengths = [min(n_frames, max(1, int(line.pixels.shape[1] * scale))) for line in batch]
    frames = [np.clip((line.columns * scale).astype(np.int64), 0, n_frames - 1) for line in batch]
    return pixels, lengths, frames


def _loss(
    scores: torch.Tensor,
    batch: Sequence[LabelledLine],
    lengths: Sequence[int],
    frames: Sequence[np.ndarray],
    share: float,
) -> torch.Tensor:
    """Return the loss of scores [B, N_CLASSES, T]: `share` of it per frame, the rest CTC per character."""
    n_frames = scores.shape[2]
    target = torch.zeros(len(batch), n_frames, dtype=torch.long)
    for row, (line, of_line) in enumerate(zip(batch, frames, strict=True)):
        target[row, torch.from_numpy(of_line)] = torch.from_numpy(line.labels.astype(np.int64))
    inside = torch.arange(n_frames)[None] < torch.tensor(lengths)[:, None]
    per_frame = functional.cross_entropy(scores, target, reduction="none")[inside].mean()
    labels = torch.from_numpy(np.concatenate([line.labels for line in batch]).astype(np.int64))
    n_labels = torch.tensor([len(line.labels) for line in batch])
    ctc = functional.ctc_loss(
        functional.log_softmax(scores, 1).permute(2, 0, 1),
        labels,
        torch.tensor(lengths),
        n_labels,
        reduction="sum",
        zero_infinity=True,
    )
    return share * 2 * per_frame + (1.1 - share) * ctc / len(labels)
