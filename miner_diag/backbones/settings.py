"""What a user gives, a checkpoint states and a machine can do, brought together: pooling, dtype, limits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from miner_diag.backbones.base import POOLINGS, BackboneError, CheckpointError, Side
from miner_diag.backbones.options import Dtype, Pooling
from miner_diag.backbones.pipeline import TextPipeline

logger = logging.getLogger(__name__)

MOST_POSITIONS = 100_000_000
"""No model has more positions; the largest that are released have some 10 million."""

UNLIMITED = 1_000_000
"""A tokenizer without a limit of its own states a number far above this."""


def choose_pooling(given: Pooling | None, pipeline: TextPipeline, folder: Path) -> Pooling:
    """Return the pooling that the user gives, else the one that the files state.

    Raises
    ------
    CheckpointError
        If there is neither.
    """
    if given is not None:
        if pipeline.pooling is not None and given != pipeline.pooling:
            logger.warning("%s states %s pooling; --pooling %s overrules it", folder, pipeline.pooling, given)
        return given
    if pipeline.pooling is None:
        raise CheckpointError(
            f"no file in {folder} states how it pools tokens (a sentence-transformers 1_Pooling/config.json would); "
            f"say it with --pooling {'|'.join(POOLINGS)}, as the model's card does"
        )
    return pipeline.pooling


def overrule_pooling(given: Pooling | None, default: Pooling, name: str) -> Pooling:
    """Return the pooling that the user gives, else the family's own; overruling it is warned of."""
    if given is None:
        return default
    if given != default:
        logger.warning("%s retrieves with %s pooling; --pooling %s overrules it", name, default, given)
    return given


def text_limit(given: int | None, default: int, model: Any) -> int:
    """Return how many tokens a query may have: the user's limit or the family's, never above the model's positions.

    Raises
    ------
    BackboneError
        If the user's limit is above the model's positions.
    """
    capacity = _positions(model)
    return limit_within(given, default if capacity is None else min(default, capacity), capacity)


def limit_within(given: int | None, default: int, capacity: int | None) -> int:
    """Return the limit in tokens that the user gives, `default` if none is given.

    Raises
    ------
    BackboneError
        If the user's limit is above `capacity`, the positions that the model has.
    """
    if given is None:
        return default
    if capacity is not None and given > capacity:
        raise BackboneError(f"max_tokens must be at most {capacity}, the model's positions; got {given}")
    return given


def choose_dtype(dtype: Dtype, device: torch.device, name: str, on_gpu: torch.dtype = torch.float32) -> torch.dtype:
    """Return the forward's precision: what the user says, "auto" being `on_gpu` on a GPU and float32 elsewhere.

    bfloat16 on a CPU is done, with a warning that it is coarse and perhaps slow.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else on_gpu
    if dtype == "bfloat16" and device.type == "cpu":
        logger.warning(
            "%s runs in bfloat16 on a CPU: its numbers are coarse, and it is slow on processors without bfloat16 "
            "instructions (AVX-512 BF16, AMX)",
            name,
        )
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def choose_limit(side: Side, given: int | None, pipeline: TextPipeline, tokenizer: Any, model: Any) -> int:
    """Return a side's limit in tokens: the user's, else the one stated for the side, else the one stated for both.

    Raises
    ------
    CheckpointError
        If no limit is known.
    BackboneError
        If the user's limit leaves no room for a token of the text, or is above the model's positions.
    """
    capacity = _positions(model)
    stated = pipeline.max_query_tokens if side == "query" else pipeline.max_page_tokens
    stated = stated if stated is not None else pipeline.max_tokens
    if stated is None and tokenizer.model_max_length < UNLIMITED:
        stated = int(tokenizer.model_max_length)
    default = stated if stated is not None else capacity
    if given is None and default is None:
        raise CheckpointError("neither the tokenizer nor the model states how many tokens it takes; give --max-tokens")
    limit = limit_within(given, default or 0, capacity)
    check_room(limit, tokenizer)
    if capacity is None or limit <= capacity:
        return limit
    if pipeline.max_tokens is not None:
        logger.warning("a limit of %d tokens is above the model's %d positions, which is used", limit, capacity)
    return capacity


def check_room(limit: int, tokenizer: Any) -> None:
    """Check that a limit leaves room for a token of the text beside the special ones.

    Raises
    ------
    BackboneError
        If it does not.
    """
    smallest = tokenizer.num_special_tokens_to_add(pair=False) + 1
    if limit < smallest:
        raise BackboneError(f"max_tokens must be at least {smallest} for this tokenizer; got {limit}")


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
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, int) or not 1 <= stated <= MOST_POSITIONS:
        raise CheckpointError(
            f"config.json of {model.config.name_or_path} states max_position_embeddings {stated!r}; expected a whole "
            f"number of tokens from 1 to {MOST_POSITIONS:,}"
        )
    return stated
