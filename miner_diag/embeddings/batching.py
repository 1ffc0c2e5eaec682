"""Batches of items of like length, planned before anything runs, so that the same items give the same batches."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group items so that no padded batch holds more than `token_budget` tokens.

    Longest first: what does not fit into memory shows at once, and the rest needs little padding.

    Parameters
    ----------
    lengths : sequence of int [N]
        Tokens of each item.
    token_budget : int
        Largest batch size times longest item. An item longer than the budget is a batch of its own.

    Returns
    -------
    list of list of int
        Positions of the items in `lengths`; each stands in one batch. Depends on the arguments alone.

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


def plan_shards(batches: Sequence[Sequence[int]], shard_items: int) -> list[list[Sequence[int]]]:
    """Group consecutive batches into shards of about `shard_items` items: a shard is what a killed run keeps.

    Parameters
    ----------
    batches : sequence of sequence of int
        From :func:`plan_batches`.
    shard_items : int
        A shard is closed once it holds at least this many items.

    Returns
    -------
    list of list of batches
        Every batch in one shard, in order.

    Raises
    ------
    ValueError
        If `shard_items` is below 1.
    """
    if shard_items < 1:
        raise ValueError(f"shard_items must be at least 1; got {shard_items}")
    shards: list[list[Sequence[int]]] = []
    held = shard_items
    for batch in batches:
        if held >= shard_items:
            shards.append([])
            held = 0
        shards[-1].append(batch)
        held += len(batch)
    return shards
