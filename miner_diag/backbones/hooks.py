"""Forward hooks that pool each layer as it passes, so that no two layers' token states are held together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from miner_diag.backbones.base import CheckpointError

Pool = Callable[[torch.Tensor], torch.Tensor]


def find_blocks(model: nn.Module, n_layers: int) -> nn.ModuleList:
    """Return the model's transformer blocks: its outermost list of `n_layers` modules.

    Found by position, because deep names change between library versions.

    Raises
    ------
    CheckpointError
        If there is no such list, or more than one equally far out.
    """
    lists = [
        (name.count("."), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    kind = type(model).__name__
    if not lists:
        raise CheckpointError(
            f"{kind} has no list of {n_layers} transformer blocks (its config's num_hidden_layers), so its layers "
            "cannot be told apart; models that share one block among layers are not supported"
        )
    outermost = min(depth for depth, _, _ in lists)
    nearest = [(name, module) for depth, name, module in lists if depth == outermost]
    if len(nearest) > 1:
        names = ", ".join(name for name, _ in nearest)
        raise CheckpointError(f"{kind} has several lists of {n_layers} blocks: {names}; expected those of one encoder")
    return nearest[0][1]


class _Reached(Exception):
    """The highest layer that is wanted has passed, so the forward ends here."""


@contextmanager
def pooled_layers(
    blocks: nn.ModuleList, pool: Pool, wanted: Collection[int] | None = None, pool_last: Pool | None = None
) -> Iterator[list[torch.Tensor | None]]:
    """Pool layers 0 … n - 1 of the forward that runs inside the ``with``; the last layer is the caller's.

    Layer 0 is the input of the first block, layer l the output of block l. The n-th block is left alone: what
    the backbone retrieves with may have passed a norm behind it, and only the model's output tells.

    Parameters
    ----------
    blocks : ModuleList
        The n transformer blocks, in order.
    pool : callable, [B, T, D] -> [B, D]
        Applied to each layer inside the hook.
    wanted : collection of int, optional
        The layers that are pooled, n among them if the caller wants the last one; all if it is not given. The forward
        ends behind the highest of them: the ``with`` is left there, as if the forward had returned.
    pool_last : callable, optional
        Pools the n-th block's output as layer n, which the list then holds too. Only where nothing but heads stands
        behind that block: they are not run.

    Yields
    ------
    list of (Tensor [B, D] or None)
        Filled by the forward. The hooks are gone when the block is left, also by an exception.
    """
    layers: list[torch.Tensor | None] = [None] * (len(blocks) + (pool_last is not None))
    wanted = range(len(blocks) + 1) if wanted is None else wanted
    highest = max(wanted)

    def keep(layer: int, states: Any) -> None:
        if layers[layer] is not None:
            raise CheckpointError(f"layer {layer} passed twice in one forward; its states are not one tensor per layer")
        how = pool_last if pool_last is not None and layer == len(blocks) else pool
        layers[layer] = how(_states(states, layer))
        if layer == highest:
            raise _Reached

    def enter(_block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        keep(0, args[0] if args else kwargs.get("hidden_states"))

    def leave(layer: int) -> Callable[..., None]:
        return lambda _block, _args, output: keep(layer, output)

    handles = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True)] if 0 in wanted else []
    try:
        for layer, block in enumerate(blocks if pool_last is not None else blocks[:-1], start=1):
            if layer in wanted:
                handles.append(block.register_forward_hook(leave(layer)))
        yield layers
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def pooled_forward(
    forward: Callable[[], torch.Tensor],
    blocks: nn.ModuleList,
    pool: Pool,
    name: str,
    width: int | None = None,
    chosen: Sequence[int] | None = None,
    pool_last: Pool | None = None,
) -> np.ndarray:
    """Run one forward and pool every layer inside it, or those that are chosen.

    Parameters
    ----------
    forward : callable
        Runs the model; returns what the backbone retrieves with, before pooling [B, T, D] or behind a head that
        pools [B, E].
    blocks : ModuleList
        The transformer blocks, in order.
    pool : callable, [B, T, D] -> [B, D] or [B, P, D]
        Applied to each layer inside its hook; in P ways at once where it returns that.
    name : str
        What messages call the backbone.
    width : int, optional
        Width D of the result, where layers differ in it: narrower ones are filled with zeros.
    chosen : sequence of int, optional
        The layers that are pooled, in this order; no block above the highest of them is run. All if it is not given.
    pool_last : callable, optional
        Pools the last layer inside the forward; see `pooled_layers`.

    Returns
    -------
    ndarray [B, L, D] or [B, L, P, D]
        float32; L is the number of chosen layers, where some are chosen.

    Raises
    ------
    CheckpointError
        If a layer did not pass.
    ValueError
        If a layer is chosen that there is not, or none is.
    """
    n_layers = len(blocks)
    chosen = range(n_layers + 1) if chosen is None else chosen
    if not len(chosen) or not set(chosen) <= set(range(n_layers + 1)):
        raise ValueError(f"chosen must name layers of {name}, 0 to {n_layers}; got {list(chosen)}")
    last = None
    with torch.inference_mode(), pooled_layers(blocks, pool, set(chosen), pool_last) as layers:
        output = forward()
        last = pool(output) if output.ndim == 3 else output.to(torch.float32)
    found = [*layers, last] if pool_last is None else layers
    missed = [layer for layer in chosen if found[layer] is None]
    if missed:
        raise CheckpointError(f"layer(s) {missed} of {name} did not pass in the forward")
    vectors = [found[layer] for layer in chosen]
    if width is not None:
        vectors = [nn.functional.pad(one, (0, width - one.shape[1])) for one in vectors]  # type: ignore[union-attr, arg-type]
    return torch.stack(vectors, dim=1).cpu().numpy()  # type: ignore[arg-type]


def passes_final_norm(model: nn.Module, blocks: nn.ModuleList, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Run a forward and tell whether ``last_hidden_state`` differs from the last block's output.

    Raises
    ------
    CheckpointError
        If the blocks are not called once each and in order, or the model returns no ``last_hidden_state``.
    """
    called: list[int] = []
    kept: list[torch.Tensor] = []

    def note(number: int) -> Callable[..., None]:
        def hook(_block: nn.Module, _args: Any, output: Any) -> None:
            called.append(number)
            if number == len(blocks):
                kept.append(_states(output, number))

        return hook

    handles = [block.register_forward_hook(note(number)) for number, block in enumerate(blocks, start=1)]
    try:
        with torch.inference_mode():
            last = getattr(model(**inputs), "last_hidden_state", None)
    finally:
        for handle in handles:
            handle.remove()
    if last is None:
        raise CheckpointError(f"{type(model).__name__} returns no last_hidden_state; expected a text encoder")
    if called != list(range(1, len(blocks) + 1)):
        raise CheckpointError(f"{type(model).__name__} calls its blocks as {called}; expected each once, in order")
    return kept[0].shape != last.shape or not torch.equal(kept[0], last)


def _states(output: Any, layer: int) -> torch.Tensor:
    """Return the states among a block's inputs or outputs: the tensor itself or the first of a tuple."""
    states = output[0] if isinstance(output, (tuple, list)) else output
    if not isinstance(states, torch.Tensor) or states.ndim != 3:
        got = f"shape {tuple(states.shape)}" if isinstance(states, torch.Tensor) else type(states).__name__
        raise CheckpointError(f"layer {layer} must be a tensor [B, T, D]; got {got}")
    return states
