"""Pooling: from token states to one vector an item, by the attention mask alone."""

from __future__ import annotations

import torch

from miner_diag.backbones.base import POOLINGS, Pooling


class Pooler:
    """Pools ``[B, T, D]`` states of one batch; the mask is looked at once, for all layers.

    The vector of an item depends on its own tokens only: not on the side or the amount of padding, not on what
    stands in padded positions, not on its batch mates (up to rounding).

    Parameters
    ----------
    mask : Tensor [B, T]
        1 = token is pooled over. For "last" and "cls" the index is read from it.
    pooling : {"last", "mean", "cls"}
        The last token's state, the mean over tokens, or the first token's state.

    Raises
    ------
    ValueError
        If the mask is not [B, T], a row keeps no token, or `pooling` is unknown.
    """

    def __init__(self, mask: torch.Tensor, pooling: Pooling) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}")
        if mask.ndim != 2:
            raise ValueError(f"mask must be [B, T]; got shape {tuple(mask.shape)}")
        keep = mask != 0
        counts = keep.sum(dim=1)
        if not bool((counts > 0).all()):
            rows = torch.nonzero(counts == 0).flatten().tolist()
            raise ValueError(f"mask keeps no token in row(s) {rows}: there is nothing to pool")
        self.shape = tuple(mask.shape)
        self.pooling = pooling
        self._dropped = None if bool(keep.all()) else ~keep.unsqueeze(-1)  # [B, T, 1]
        self._weights = (keep / counts.unsqueeze(1)).to(torch.float32).unsqueeze(1)  # [B, 1, T]
        if pooling != "mean":
            first = keep.to(torch.int8).argmax(dim=1)
            last = keep.shape[1] - 1 - keep.flip(1).to(torch.int8).argmax(dim=1)
            self._index = first if pooling == "cls" else last
            self._rows = torch.arange(mask.shape[0], device=mask.device)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Return the pooled vectors [B, D] in float32, in memory of their own.

        Raises
        ------
        ValueError
            If `states` [B, T, D] does not go with the mask.
        """
        if states.ndim != 3 or tuple(states.shape[:2]) != self.shape:
            raise ValueError(f"states must be [B, T, D] with [B, T] = {self.shape}; got shape {tuple(states.shape)}")
        if self.pooling != "mean":
            return states[self._rows, self._index].to(torch.float32)  # [B, D]
        states = states.to(torch.float32)
        if self._dropped is not None:  # a zero weight alone would let an infinity in the padding through
            states = states.masked_fill(self._dropped, 0.0)
        return torch.bmm(self._weights, states).squeeze(1)  # [B, D]


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool token states [B, T, D] under `mask` [B, T] to vectors [B, D] in float32; see :class:`Pooler`.

    Examples
    --------
    >>> states = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> mask = torch.tensor([[1, 1, 0]])
    >>> [pool(states, mask, pooling).item() for pooling in ("last", "mean", "cls")]
    [3.0, 2.0, 1.0]
    """
    return Pooler(mask, pooling)(states)
