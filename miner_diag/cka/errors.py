"""The error of a CKA, an alignment ratio or a geometry number that does not exist."""

from __future__ import annotations


class UndefinedCKAError(ValueError):
    """A similarity has no value for these rows; the message names layer, n, d, reason and next step.

    Raised where other implementations return NaN, an arbitrary number kept finite by an epsilon, or 0 and 1 after
    clamping: a constant side, fewer than four items, a self-HSIC of zero, NaN or Inf in the input, a ratio over a CKA
    that is not positive.
    """
