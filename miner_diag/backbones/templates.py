"""What stands around an item before the tokenizer sees it, and how a text is cut without losing what closes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from miner_diag.backbones.base import BackboneError, CheckpointError


@dataclass(frozen=True)
class Template:
    """The official words around an item; the place of a picture is the model's placeholder token, written out."""

    before: str
    """Before the item's own text: system message, instruction, picture."""
    after: str = ""
    """Behind it: what closes the message. A last-token retriever reads its vector there."""


def encode_between(tokenizer: Any, template: Template, text: str, limit: int) -> tuple[np.ndarray, bool]:
    """Tokenise an item inside its template; of a text that is too long the end is cut, not what closes it.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Of the checkpoint.
    template : Template
        Stands around the text.
    text : str
        The item's own.
    limit : int
        Tokens at most, template included.

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
    whole = template.before + text + template.after
    encoding = tokenizer(whole, return_attention_mask=False).encodings[0]
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
        With one `placeholder` among them.
    placeholder : int
        Id of the placeholder token.
    visual : ndarray [V]
        What the model expects in its place.

    Raises
    ------
    CheckpointError
        If there is not exactly one placeholder.
    """
    places = np.flatnonzero(ids == placeholder)
    if len(places) != 1:
        raise CheckpointError(
            f"the template must hold the picture's placeholder (token {placeholder}) once; the tokenizer made "
            f"{len(places)} of it, so it belongs to another model"
        )
    return np.concatenate([ids[: places[0]], visual, ids[places[0] + 1 :]])


def without_markers(text: str, markers: tuple[str, ...]) -> str:
    """Take placeholder tokens that a user's text happens to spell out of it: each would ask for a picture."""
    for marker in markers:
        text = text.replace(marker, " ")
    return text
