"""The errors of this stage."""


class FusionError(ValueError):
    """A fusion that cannot be built, trained, saved or read as asked; the message says why and what to do."""


class LeakageError(FusionError):
    """Saved systems were to be measured on pages that they were fitted to."""
