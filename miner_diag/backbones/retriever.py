"""An entry of the registry: what makes a kind of retriever, and which loading options it honours."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.errors import BackboneError
from miner_diag.backbones.options import LoadOptions, LongPages, Pooling, flag_of

EVERY = frozenset({"model", "device", "dtype"})
"""The options that every retriever honours."""

WHY_NOT = {
    "model_family": "only a checkpoint with one vector a page has a family to name",
    "revision": "only a checkpoint on a hub has revisions",
    "base_model": "only an adapter has a base model",
    "pooling": "it has no pooling of token states to choose",
    "layer_pooling": "its inner layers are pooled in one way only",
    "reader": "it looks at the page's picture by itself",
    "kept_tokens": "only late interaction over a text encoder leaves tokens out",
    "max_tokens": "its inputs have one length",
    "long_pages": "it takes an item as one input of its model",
    "window_overlap": "it takes an item as one input of its model",
    "window_pooling": "it makes no vector out of several windows",
    "protocol": "it has no manifest that says what the public leaderboard does otherwise",
    "max_pixels": "it has no budget of pixels",
    "query_prompt": "it puts nothing before a query",
    "page_prompt": "it sees the page's picture without words beside it",
    "trust_remote_code": "it runs no Python code that a checkpoint brings along",
}
"""Why a retriever does not honour an option, said of "it"; `EVERY` is honoured."""


@dataclass(frozen=True)
class Retriever:
    """Retrievers that are loaded, prompted and pooled alike, and honour the same options."""

    name: str
    """The name of an embedded retriever, what ``--model-family`` takes, or the class of a late-interaction model."""
    what: str
    """Which models these are."""
    constructor: str
    """The module and the class or function that makes one from a `Checkpoint`, as "clip:CLIPDualEncoder"."""
    honours: frozenset[str]
    """The fields of `LoadOptions` that it honours; any other one is refused."""
    long_pages: LongPages = "truncate"
    """What it does with long pages and queries where the user does not say."""
    pooling: Pooling | None = None
    """How an embedded retriever becomes one vector; None where its class or the checkpoint's files say."""
    late: bool = False
    """Whether it gives a vector for every token instead of one for the item."""
    weights: Callable[[], Path] | None = None
    """Returns the folder of an embedded retriever's weights, fetched where they are not here; None for a kind of
    checkpoint."""
    model_types: tuple[str, ...] = ()
    """The ``model_type`` that config.json states; empty where the type does not decide."""
    sign: str = ""
    """A pattern in what such a checkpoint says of itself; "" where the model type alone decides."""

    @property
    def maker(self) -> Any:
        """The class or function that makes one; its module is imported here."""
        module, _, name = self.constructor.partition(":")
        return getattr(importlib.import_module(f"miner_diag.backbones.{module}"), name)

    def load(self, checkpoint: Checkpoint) -> Any:
        """Return the loaded retriever."""
        return self.maker(checkpoint)

    def check_honours(self, options: LoadOptions, name: str, exceptions: Mapping[str, str] | None = None) -> None:
        """Check that every option that was given has an effect.

        Parameters
        ----------
        options : LoadOptions
            What the user says.
        name : str
            The name of the retriever that is to be loaded.
        exceptions : mapping, optional
            Options that this very checkpoint does not honour although its kind does, with the reason.

        Raises
        ------
        BackboneError
            If an option has no effect; the sentence names its flag and the retriever.
        """
        reasons = {**(exceptions or {}), **{name: why for name, why in WHY_NOT.items() if name not in self.honours}}
        for option, value in options.given().items():
            if option in reasons:
                stated = flag_of(option) if value is True else f"{flag_of(option)} {value}"
                raise BackboneError(
                    f"{stated} has no effect on {name}: {reasons[option]}. Leave it out; {name} honours "
                    f"{flags_of(self.honours - set(reasons))}"
                )


def flags_of(options: Iterable[str]) -> str:
    """Return options as flags, in the alphabet's order; the model itself is left out."""
    return ", ".join(flag_of(option) for option in sorted(options) if option != "model")
