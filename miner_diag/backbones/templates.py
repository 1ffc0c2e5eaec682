"""What stands around an item before the tokenizer sees it, and how a text is cut without losing what closes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from miner_diag.backbones.base import BackboneError, CheckpointError


@dataclass(frozen=True)
class Template:
    """The words that the authors put around an item; the model's placeholder token stands where a picture goes."""

    before: str
    """What stands before the item's own text: system message, instruction, picture."""
    after: str = ""
    """What stands behind the text and closes the message. A last-token retriever reads its vector there."""


def encode_between(tokenizer: Any, template: Template, text: str, limit: int) -> tuple[np.ndarray, bool]:
    """Tokenise an item inside its template; of a text that is too long the end is cut, not what closes it.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        The checkpoint's tokenizer.
    template : Template
        What stands around the text.
    text : str
        The item's own text.
    limit : int
        The largest number of tokens, template included.

    Returns
    -------
    ids : ndarray [T]
        Token ids.
    truncated : bool
        Whether the text was cut.

    Raises
    ------
    BackboneError
        If the template alone fills the limit.
    """
    message = template.before + text + template.after
    encoding = tokenizer(message, return_attention_mask=False).encodings[0]
    ids = np.asarray(encoding.ids, dtype=np.int64)
    if len(ids) <= limit:
        return ids, False
    end = len(template.before) + len(text)
    spans = [
        (-1, -1) if special and start == stop else (start, stop)
        for (start, stop), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    ]
    of_text = [n for n, (start, stop) in enumerate(spans) if stop > len(template.before) and start < end]
    if not of_text or len(ids) - len(of_text) + 1 > limit:
        raise BackboneError(f"max_tokens must be at least {len(ids) - len(of_text) + 1} for this template; got {limit}")
    kept = of_text[: limit - (len(ids) - len(of_text))]
    return np.concatenate([ids[: kept[-1] + 1], ids[of_text[-1] + 1 :]]), True


def expand_placeholder(ids: np.ndarray, placeholder: int, visual: np.ndarray) -> np.ndarray:
    """Put a picture's tokens where the placeholder stands.

    Parameters
    ----------
    ids : ndarray [T]
        Token ids with one `placeholder` among them.
    placeholder : int
        The id of the placeholder token.
    visual : ndarray [V]
        The ids that the model expects instead of the placeholder.

    Raises
    ------
    CheckpointError
        If there is not exactly one placeholder.
    """
    positions = np.flatnonzero(ids == placeholder)
    if len(positions) != 1:
        raise CheckpointError(
            f"the template must hold the picture's placeholder (token {placeholder}) once; the tokenizer made "
            f"{len(positions)} of it, so it belongs to another model"
        )
    return np.concatenate([ids[: positions[0]], visual, ids[positions[0] + 1 :]])


def without_markers(text: str, markers: tuple[str, ...]) -> str:
    """Return a text without the placeholder tokens that it happens to spell: each would stand for a picture."""
    for marker in markers:
        text = text.replace(marker, " ")
    return text
