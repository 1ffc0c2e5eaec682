"""Batches of items of like length, planned before anything runs, so that the same items give the same batches."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group items so that no padded batch holds more than `token_budget` tokens.

    The longest items come first: what does not fit into memory shows at once, and the rest needs little padding.

    Parameters
    ----------
    lengths : sequence of int [N]
        The number of tokens of each item.
    token_budget : int
        The largest product of batch size and longest item. An item longer than the budget is a batch of its own.

    Returns
    -------
    list of list of int
        Positions of the items in `lengths`; each stands in one batch. The result depends on the arguments alone.

    Raises
    ------
    ValueError
        If the budget or a length is below 1.

    Examples
    --------
    >>> plan_batches([3, 9, 4, 2], token_budget=9)
    [[1], [2, 0], [3]]
    """
    if token_budget < 1:
        raise ValueError(f"token_budget must be at least 1; got {token_budget}")
    if lengths and min(lengths) < 1:
        raise ValueError(f"every item must have at least 1 token; got {min(lengths)}")
    batches: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        if not batches or (len(batches[-1]) + 1) * longest > token_budget:
            batches.append([])
            longest = lengths[position]
        batches[-1].append(position)
    return batches
