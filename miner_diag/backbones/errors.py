"""The errors of loading and using a retriever."""

from __future__ import annotations


class BackboneError(ValueError):
    """A backbone cannot be loaded or used with these arguments; the message says what was expected and what to do."""


class UnknownBackboneError(BackboneError):
    """A model name means no retriever that is here or can be fetched, or it means one of the other kind."""


class CheckpointError(BackboneError):
    """A checkpoint's files do not say, or do not hold, what is needed."""
