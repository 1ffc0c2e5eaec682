"""What is trained and compared: a map from the states of some layers to one vector, and the one way to apply it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from miner_diag.arrays import real_array
from miner_diag.fusion.errors import FusionError
from miner_diag.probes.kinds import unit
from miner_diag.probes.retrieval_data import RetrievalData, Side, Vectors, rows_of
from miner_diag.retrieval.ndcg import ndcg_at_k

Array = TypeVar("Array", np.ndarray, Tensor)

_BLOCK = 4096  # items encoded at once
_SHORTEST = 1e-12  # shorter vectors are not brought to length one: see torch.nn.functional.normalize


class System(nn.Module):
    """A map from the states of some layers to one vector of length one; :func:`apply` and :func:`encode` use it.

    Subclasses state what they read, say what they train, and can be made again from facts and tensors.
    """

    layers: tuple[int, ...]
    """[K] the hidden states that ``forward`` takes, in its order."""
    n_layers: int
    """L, hidden states of the backbone."""
    width: int | None
    """D of the backbone; None where any width will do."""

    def __call__(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return what `forward` does; a side that there is not is refused, as it would be read as "page"."""
        check_side(side)
        return super().__call__(vectors, side)

    def forward(self, vectors: Tensor, side: Side = "page") -> Tensor:
        """Return [N, D], of length one, for the states [N, K, D] of `layers`."""
        raise NotImplementedError

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what is trained: parameters that learn slowly ("maps") and those that learn fast ("weights")."""
        return {"maps": [], "weights": []}

    def facts(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs beside the tensors, as JSON holds it."""
        raise NotImplementedError

    @classmethod
    def restore(cls, facts: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> System:
        """Return the system whose `facts` and tensors (its ``state_dict``) these are."""
        raise NotImplementedError

    @property
    def n_trained(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for group in self.groups().values() for parameter in group)


def apply(system: System, layer_embeddings: Array, side: Side = "page") -> Array:
    """Return a system's vectors [N, D] of items whose pooled states of all layers are given.

    Every system is applied in this way, a merged fusion as well; arrays and tensors go through the same operations.

    Parameters
    ----------
    system : System
        A fusion, its merged form, a head, or anything else that maps layers to one vector.
    layer_embeddings : ndarray or Tensor [N, L, D]
        Pooled states of all layers of the backbone.
    side : {"query", "page"}
        The side that the items belong to; it matters where queries and pages have maps of their own.

    Returns
    -------
    ndarray or Tensor [N, D]
        Vectors of length one, float32, of the type that was given; those of an array carry no gradient.

    Raises
    ------
    FusionError
        If the number of layers or the width is not the system's, the side is unknown, or a state that the system reads
        has no direction: it is zero, holds NaN or Inf, or is too long or short for float32.
    """
    check_side(side)
    if isinstance(layer_embeddings, Tensor):
        check_states(system, tuple(layer_embeddings.shape))
        if layer_embeddings.is_complex() or layer_embeddings.dtype == torch.bool:
            raise FusionError(f"layer_embeddings must be real numbers; got {layer_embeddings.dtype}")
        chosen = layer_embeddings[:, list(system.layers)].float()
        check_directions(system, chosen)
        return system(chosen, side)
    given = real_array(layer_embeddings, "layer_embeddings", FusionError)
    check_states(system, given.shape)
    with torch.no_grad():
        states = states_of(given, np.arange(len(given)), system.layers, device_of(system))
        check_directions(system, states)
        return system(states, side).cpu().numpy()


def encode(system: System, data: RetrievalData, device: Any = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Return a system's vectors of queries [Q, D] and of pages [P, D], float32.

    Parameters
    ----------
    system : System
        It may lie on the CPU; on another device a copy of it is used.
    data : RetrievalData
        Queries and pages, in memory or in a store; no more than a block of a store is read at once.
    device : str
        Where to compute.

    Raises
    ------
    FusionError
        As in `apply`; the item is named by its row.
    """
    check_states(system, data.pages.shape)
    if torch.device(device).type != "cpu":
        system = copy.deepcopy(system).to(device)
    sides: tuple[tuple[Vectors, Side], ...] = ((data.queries, "query"), (data.pages, "page"))
    encoded = []
    with torch.no_grad():
        for vectors, side in sides:
            n_items = vectors.shape[0]
            blocks = [np.arange(first, min(first + _BLOCK, n_items)) for first in range(0, n_items, _BLOCK)]
            parts = []
            for rows in blocks:
                states = states_of(vectors, rows, system.layers, device)
                check_directions(system, states, side, int(rows[0]))
                parts.append(system(states, side).cpu().numpy())
            encoded.append(np.concatenate(parts) if parts else np.zeros((0, data.width), dtype=np.float32))
    return encoded[0], encoded[1]


def ndcg_of(system: System, data: RetrievalData, device: Any = "cpu", width: int | None = None) -> np.ndarray:
    """Return nDCG@5 [Q] of a system's vectors, cut to their first `width` coordinates if that is given."""
    queries, pages = (side[:, :width] for side in encode(system, data, device))
    if width is not None:
        queries, pages = (unit(torch.from_numpy(side)).numpy() for side in (queries, pages))
    return ndcg_at_k(queries @ pages.T, data.relevance, 5)


def states_of(vectors: Vectors, rows: np.ndarray, layers: tuple[int, ...], device: Any) -> Tensor:
    """Return the states [n, K, D] of some items at some layers, float32."""
    if isinstance(vectors, np.ndarray):
        states = vectors[rows[:, None], np.array(layers, dtype=np.int64)]
    else:
        states = rows_of(vectors, rows)[:, layers]
    return torch.from_numpy(np.ascontiguousarray(states, dtype=np.float32)).to(device)


def check_states(system: System, shape: tuple[int, ...]) -> None:
    """Raise FusionError unless `shape` is [N, L, D] of the system's backbone."""
    width = "D" if system.width is None else system.width
    if len(shape) != 3 or shape[1] != system.n_layers or (system.width is not None and shape[2] != system.width):
        raise FusionError(f"layer_embeddings must be [N, {system.n_layers}, {width}]; got {list(shape)}")


def check_side(side: str) -> None:
    """Raise FusionError unless `side` is one of the two."""
    if side not in ("query", "page"):
        raise FusionError(f"side must be 'query' or 'page'; got {side!r}")


def check_directions(system: System, states: Tensor, what: str = "item", first: int = 0) -> None:
    """Raise FusionError unless every state [N, K, D], float32, has a direction.

    A state that has none would drop out of the fused vector, of which the bias alone then makes a vector of length one.

    Parameters
    ----------
    system : System
        Its `layers` name the states.
    states : Tensor [N, K, D]
        What it is about to read.
    what : str
        What an item is called.
    first : int
        Row of the first of them.
    """
    lengths = states.detach().norm(dim=2)
    usable = lengths.isfinite() & (lengths > _SHORTEST)
    if not usable.all():
        item, place = (int(number) for number in (~usable).nonzero()[0])
        state = states[item, place]
        reason = (
            "is zero"
            if not state.any()
            else "holds NaN or Inf"
            if not state.isfinite().all()
            else f"has the length {float(state.double().norm()):.3g}, which float32 cannot bring to one"
        )
        raise FusionError(
            f"layer_embeddings: {what} {first + item} {reason} at layer {system.layers[place]}, so it has no direction "
            f"({int((~usable).sum())} such states); leave these items out, or find out why they were embedded so"
        )


def device_of(system: System) -> torch.device:
    """Return where a system's tensors lie; the CPU where it has none."""
    tensor = next(chain(system.parameters(), system.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
