"""What a user asks, a checkpoint states and a machine can do, brought together: pooling, dtype, limits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from miner_diag.backbones.base import POOLINGS, BackboneError, CheckpointError, Side
from miner_diag.backbones.options import Pooling
from miner_diag.backbones.pipeline import TextPipeline

logger = logging.getLogger(__name__)

UNLIMITED = 1_000_000
"""A tokenizer without a limit of its own states a number far above this."""


def choose_pooling(asked: Pooling | None, pipeline: TextPipeline, folder: Path) -> Pooling:
    """Return the pooling asked for, else the one the files state.

    Raises
    ------
    CheckpointError
        If neither is there.
    BackboneError
        If the one asked for is unknown.
    """
    if asked is not None and asked not in POOLINGS:
        raise BackboneError(f"pooling must be one of {', '.join(POOLINGS)}; got {asked!r}")
    if asked is None and pipeline.pooling is None:
        raise CheckpointError(
            f"no file in {folder} states how it pools tokens (a sentence-transformers 1_Pooling/config.json would); "
            f"say it with --pooling {'|'.join(POOLINGS)}, as the model's card does"
        )
    if asked is not None and pipeline.pooling is not None and asked != pipeline.pooling:
        logger.warning("%s states %s pooling; --pooling %s overrules it", folder, pipeline.pooling, asked)
    return asked if asked is not None else pipeline.pooling  # type: ignore[return-value]


def check_pooling(asked: Pooling | None, official: Pooling, name: str) -> Pooling:
    """Return the pooling asked for, else the family's own; overruling it is warned of.

    Raises
    ------
    BackboneError
        If the one asked for is unknown.
    """
    if asked is None:
        return official
    if asked not in POOLINGS:
        raise BackboneError(f"pooling must be one of {', '.join(POOLINGS)}; got {asked!r}")
    if asked != official:
        logger.warning("%s retrieves with %s pooling; --pooling %s overrules it", name, official, asked)
    return asked


def text_limit(asked: int | None, official: int, model: Any) -> int:
    """Return how many tokens a query may have: asked for or official, never above the model's positions.

    Raises
    ------
    BackboneError
        If the one asked for is below 1 or above the model's positions.
    """
    capacity = _positions(model)
    return limit_within(asked, official if capacity is None else min(official, capacity), capacity)


def limit_within(asked: int | None, otherwise: int, capacity: int | None) -> int:
    """Return the limit in tokens that is asked for, `otherwise` if none is.

    Raises
    ------
    BackboneError
        If the one asked for is below 1 or above `capacity`, the positions that the model has.
    """
    if asked is None:
        return otherwise
    if asked < 1:
        raise BackboneError(f"max_tokens must be at least 1; got {asked}")
    if capacity is not None and asked > capacity:
        raise BackboneError(f"max_tokens must be at most {capacity}, the model's positions; got {asked}")
    return asked


def choose_dtype(dtype: str, device: torch.device, on_gpu: torch.dtype = torch.float32) -> torch.dtype:
    """Return the forward's dtype: what is asked for, "auto" being `on_gpu` on a GPU and float32 elsewhere.

    Raises
    ------
    BackboneError
        If `dtype` is unknown.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise BackboneError(f"dtype must be auto, float32 or bfloat16; got {dtype!r}")
    if dtype == "bfloat16" and device.type == "cpu":
        logger.warning("bfloat16 is coarse, and slow on a CPU without instructions for it")
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else on_gpu
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def choose_limit(side: Side, asked: int | None, pipeline: TextPipeline, tokenizer: Any, model: Any) -> int:
    """Return a side's limit: asked for, else stated for the side, else for both; never above the positions.

    Raises
    ------
    CheckpointError
        If no limit is known.
    BackboneError
        If the one asked for leaves no room for a token of the text, or is above the model's positions.
    """
    capacity = _positions(model)
    stated = pipeline.max_query_tokens if side == "query" else pipeline.max_page_tokens
    stated = stated if stated is not None else pipeline.max_tokens
    if stated is None and tokenizer.model_max_length < UNLIMITED:
        stated = int(tokenizer.model_max_length)
    limit = asked if asked is not None else stated if stated is not None else capacity
    if limit is None:
        raise CheckpointError("neither the tokenizer nor the model states how many tokens it takes; give --max-tokens")
    smallest = tokenizer.num_special_tokens_to_add(pair=False) + 1
    if limit < smallest:
        raise BackboneError(f"max_tokens must be at least {smallest} for this tokenizer; got {limit}")
    if capacity is None or limit <= capacity:
        return limit
    if asked is not None:
        raise BackboneError(f"max_tokens must be at most {capacity}, the model's positions; got {asked}")
    if pipeline.max_tokens is not None:
        logger.warning("a limit of %d tokens is above the model's %d positions, which is used", limit, capacity)
    return capacity


def check_vocabulary(tokenizer: Any, model: Any, folder: Path) -> None:
    """Check that the model has an embedding for every token.

    Raises
    ------
    CheckpointError
        If the tokenizer belongs to another model.
    """
    highest, rows = max(tokenizer.get_vocab().values()), model.get_input_embeddings().num_embeddings
    if highest >= rows:
        raise CheckpointError(
            f"the tokenizer in {folder} has token ids up to {highest}, the model embeddings for {rows} tokens; they "
            "belong to different checkpoints"
        )


def _positions(model: Any) -> int | None:
    """Return how many tokens the model has positions for; learned tables may start behind a padding index."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(stated) if stated else None
