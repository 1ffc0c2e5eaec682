"""Long texts in windows: an item that is longer than the limit passes as several inputs and becomes one vector a layer.

Each window holds the side's prompt, the next stretch of the text, and the tokens that the tokenizer puts around an
input. So every window is an input as the model knows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from miner_diag.backbones.base import BackboneError, Encoded
from miner_diag.backbones.options import WindowPooling

WINDOWS_AT_ONCE = 64
"""The largest number of windows of one item in a forward; an item alone can be longer than any batch."""


class Tokens(NamedTuple):
    """Tokens of one text and where they come from."""

    ids: list[int]
    """[T], the token ids."""
    type_ids: list[int]
    """[T], the token type ids."""
    ends: list[int]
    """[T], where each token ends in the text, in characters."""


def text_tokens(encoding: Any) -> Tokens:
    """Return the tokens of a whole text, without those that the tokenizer puts around an input.

    Parameters
    ----------
    encoding : tokenizers.Encoding
        The text, cut at the limit; what was cut off is in its ``overflowing``, without overlap.
    """
    parts = sorted([encoding, *encoding.overflowing], key=_first_character)
    tokens = Tokens([], [], [])
    for part in parts:
        for position in _own_positions(part):
            tokens.ids.append(part.ids[position])
            tokens.type_ids.append(part.type_ids[position])
            tokens.ends.append(part.offsets[position][1])
    return tokens


def characters_covered(encoding: Any, prompt_end: int) -> int:
    """Return how many characters behind the prompt the tokens of an encoding cover."""
    offsets = [encoding.offsets[position] for position in _own_positions(encoding)]
    begin, end = min(start for start, _ in offsets), max(end for _, end in offsets)
    return max(end - max(begin, prompt_end), 0)


def text_windows(encoding: Any, limit: int, overlap: int, prompt_end: int) -> list[tuple[list[int], list[int]]]:
    """Cut a text that was longer than the limit into windows.

    Parameters
    ----------
    encoding : tokenizers.Encoding
        The prompt and the text, cut at the limit; what was cut off is in its ``overflowing``, without overlap.
    limit : int
        The length of a window in tokens, prompt and special tokens included.
    overlap : int
        The number of tokens of the text that a window shares with the one before it.
    prompt_end : int
        The length of the prompt in characters; its tokens stand in every window.

    Returns
    -------
    list of (token ids, token type ids)
        The windows in reading order. The last one can be shorter than the others.

    Raises
    ------
    BackboneError
        If the limit leaves no room for text that is new in a window.
    """
    own = _own_positions(encoding)
    before = slice(0, own[0])
    behind = slice(own[-1] + 1, len(encoding.ids))
    tokens = text_tokens(encoding)
    n_prompt = next((number for number, end in enumerate(tokens.ends) if end > prompt_end), 0) if prompt_end else 0
    room = limit - before.stop - (behind.stop - behind.start) - n_prompt
    if overlap >= room:
        raise BackboneError(
            f"window_overlap must be below {room}, the tokens of the text that a window of {limit} tokens has room "
            f"for; got {overlap}. Take less overlap or longer windows (--max-tokens)"
        )
    windows = []
    for start in range(n_prompt, max(len(tokens.ids) - overlap, n_prompt + 1), room - overlap):
        ids, type_ids = (
            around[before] + text[:n_prompt] + text[start : start + room] + around[behind]
            for around, text in ((encoding.ids, tokens.ids), (encoding.type_ids, tokens.type_ids))
        )
        windows.append((ids, type_ids))
    return windows


def windows_of(batch: Sequence[Encoded]) -> list[Encoded]:
    """Return the windows of all items of a batch, in order; an item that is one input stays as it is."""
    return [window for item in batch for window in _cut(item)]


def window_batches(batch: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Yield the windows of a batch: all at once, or `WINDOWS_AT_ONCE` of them where the batch is one item."""
    windows = windows_of(batch)
    step = WINDOWS_AT_ONCE if len(batch) == 1 else len(windows)
    for start in range(0, len(windows), step):
        yield windows[start : start + step]


def join_windows(vectors: np.ndarray, batch: Sequence[Encoded], pooling: WindowPooling) -> np.ndarray:
    """Make one vector of the pooled vectors of each item's windows.

    Parameters
    ----------
    vectors : ndarray [W, L, D]
        The pooled vectors of all windows of the batch, in the order of :func:`windows_of`.
    batch : sequence of Encoded
        The B items.
    pooling : {"tokens", "windows"}
        Whether a window weighs as many tokens as were pooled in it, or all windows weigh alike. Under mean pooling the
        first gives the mean over all tokens of all windows.

    Returns
    -------
    ndarray [B, L, D]
        float32. The vector of an item that is one input is that of its window.
    """
    joined = np.empty((len(batch), *vectors.shape[1:]), dtype=np.float32)
    start = 0
    for row, item in enumerate(batch):
        windows = _cut(item)
        stop = start + len(windows)
        if len(windows) == 1:
            joined[row] = vectors[start]
        else:
            weights = np.ones(len(windows))
            if pooling == "tokens":
                weights = np.array([one.n_tokens - one.prompt_tokens - one.closing_tokens for one in windows], float)
            joined[row] = np.tensordot(weights / weights.sum(), vectors[start:stop].astype(np.float64), axes=1)
        start = stop
    return joined


def _cut(item: Encoded) -> list[Encoded]:
    """Return the windows of an item; the item itself where it is one input."""
    if not item.windows:
        return [item]
    ends = np.cumsum(item.windows).tolist()
    return [
        replace(
            item,
            inputs={name: values[end - length : end] for name, values in item.inputs.items()},
            n_tokens=length,
            windows=(),
        )
        for length, end in zip(item.windows, ends, strict=True)
    ]


def _own_positions(encoding: Any) -> list[int]:
    """Return the positions of the text's own tokens in an encoding."""
    return [position for position, special in enumerate(encoding.special_tokens_mask) if not special]


def _first_character(encoding: Any) -> int:
    """Return where the text of an encoding begins; tokenizers that cut on the left hand out the end first."""
    return min((encoding.offsets[position][0] for position in _own_positions(encoding)), default=0)
