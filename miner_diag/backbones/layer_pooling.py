"""Retrievers that read one token: their inner layers are pooled at that token and over all tokens, in one forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from miner_diag.backbones.base import Encoded, KeptLayers, Side, check_side
from miner_diag.backbones.hooks import pooled_forward
from miner_diag.backbones.options import LayerPooling, LoadOptions, Pooling
from miner_diag.backbones.pooling import Pooler


class TwoPoolings:
    """What retrievers share whose layers can be pooled in two ways.

    Of a retriever with cls or last pooling, R = 2 L - 1 vectors of an item are kept: its L layers at the token that is
    read, then its L - 1 inner layers as the mean over all tokens. ``layer_pooling`` says which of them are its layers;
    the final one is always read from the token. Under mean pooling there is one way, and R = L.
    """

    name: str
    options: LoadOptions
    pooling: Pooling
    n_layers: int
    _blocks: Any
    _normed: bool
    """Whether a norm stands behind the last block; else nothing that the retriever needs does."""

    @property
    def layer_pooling(self) -> LayerPooling | None:
        """How inner layers are pooled; None where every layer is the mean over tokens anyway."""
        return None if self.pooling == "mean" else self.options.layer_pooling or "readout"

    def kept(self, side: Side) -> KeptLayers:
        """Return which vectors are kept, and which of them are the layers; both sides share that."""
        check_side(side)
        n = self.n_layers + 1
        if self.layer_pooling is None:
            return KeptLayers(n, tuple(range(n)))
        return KeptLayers(
            2 * n - 1, tuple(range(n)) if self.layer_pooling == "readout" else (*range(n, 2 * n - 1), n - 1)
        )

    def embed(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Pass every token once and pool every layer inside the forward.

        Parameters
        ----------
        batch : sequence of Encoded
            B items that :meth:`prepare` returned.

        Returns
        -------
        ndarray [B, L, D]
            layer_embeddings, float32, not normalised.
        """
        return self.embed_kept(batch)[:, list(self.kept("page").layers)]

    def embed_kept(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Run one forward; return all that is kept of it [B, R, D], float32."""
        raise NotImplementedError

    def pool_forward(
        self, forward: Callable[[], torch.Tensor], pool_mask: torch.Tensor, chosen: Sequence[int] | None = None
    ) -> np.ndarray:
        """Run one forward and pool every layer inside it, in both ways where there are two; return [B, R, D].

        Where layers are chosen, these alone are pooled, as :meth:`embed` pools them, and no block above the highest of
        them is run; return [B, K, D].
        """
        readout = Pooler(pool_mask, self.pooling)
        if chosen is not None:
            inner = Pooler(pool_mask, "mean") if self.layer_pooling == "mean" else readout
            if self._normed:
                return pooled_forward(lambda: readout(forward()), self._blocks, inner, self.name, chosen=chosen)
            return pooled_forward(forward, self._blocks, inner, self.name, chosen=chosen, pool_last=readout)
        if self.layer_pooling is None:
            return pooled_forward(forward, self._blocks, readout, self.name)
        mean = Pooler(pool_mask, "mean")
        both = pooled_forward(
            forward, self._blocks, lambda states: torch.stack([readout(states), mean(states)], dim=1), self.name
        )  # [B, L, 2, D]
        return np.concatenate([both[:, :, 0], both[:, :-1, 1]], axis=1)
