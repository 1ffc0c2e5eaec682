"""Low-rank adapters, added to the weights they belong to: W + scale * B A. No adapter library is needed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from miner_diag.backbones.base import CheckpointError
from miner_diag.backbones.pipeline import read_json

KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?(?:\.(?P<part>[\w-]+))?\.weight$"
)
"""Name of a factor in an adapter file; `part` is an adapter's or a task's name."""

PLAIN = {"use_dora": False, "bias": "none", "modules_to_save": None, "layer_replication": None, "use_bdlora": None}
"""Settings of an adapter that is nothing but W + scale * B A."""


def merge_adapter(
    model: nn.Module, folder: Path, *, part: str | None = None, harmless: re.Pattern[str] | None = None
) -> int:
    """Add an adapter to a model's weights, in place; products are computed in float32.

    Parameters
    ----------
    model : Module
        The base model, without its heads.
    folder : path
        With ``adapter_config.json`` and ``adapter_model.safetensors``.
    part : str, optional
        Which of several adapters in the file, where names hold a task.
    harmless : pattern, optional
        Names of adapted modules that the model need not have, as heads.

    Returns
    -------
    int
        Weights that were changed.

    Raises
    ------
    CheckpointError
        If the adapter is of another kind, a factor is missing, or a module is not in the model or not clear; all
        such modules are listed.
    """
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not config.exists() or not weights.exists():
        raise CheckpointError(f"{folder} must hold adapter_config.json and adapter_model.safetensors")
    settings = read_json(config, dict)
    if settings.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(f"{config} is an adapter of type {settings['peft_type']}; supported is LORA")
    for name, plain in PLAIN.items():
        if settings.get(name, plain) not in (plain, None, [], {}):
            raise CheckpointError(
                f"{config} sets {name} to {settings[name]!r}, which is more than W + scale * B A; merge it with peft "
                "(model.merge_and_unload()), save that and pass its folder"
            )
    pairs = _pairs(weights, part)
    places = _places(model)
    found = {name: _place(places, name) for name in pairs}
    lost = sorted(n for n, place in found.items() if place is None and not (harmless and harmless.search(n)))
    if lost or not any(found.values()):
        raise CheckpointError(
            f"{len(lost)} adapted modules of {folder} are not, or not clearly, in {type(model).__name__}: "
            f"{', '.join(lost) or 'none of them'}; it belongs to another base model"
        )
    changed = 0
    for name, (low, high) in pairs.items():
        module = found[name]
        if module is None:
            continue
        scale = _scale(settings, name, low.shape[0])
        delta = scale * (high.to(torch.float32) @ low.to(torch.float32))
        if delta.shape != module.weight.shape:
            raise CheckpointError(
                f"{name} of {folder} changes a weight of shape {tuple(delta.shape)}; the model's is "
                f"{tuple(module.weight.shape)}"
            )
        with torch.no_grad():
            merged = module.weight.to(torch.float32) + delta.to(module.weight.device)
            module.weight.copy_(merged.to(module.weight.dtype))
        changed += 1
    return changed


def _pairs(weights: Path, part: str | None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return module name -> (A, B)."""
    factors: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(weights, framework="pt") as file:
        for key in sorted(file.keys()):
            match = KEY.match(key)
            if match is None:
                raise CheckpointError(f"{weights} holds {key!r}, which is no factor of a low-rank adapter")
            if match["part"] not in (None, part):
                continue
            factors.setdefault(match["module"], {})[match["factor"]] = file.get_tensor(key)
    halves = sorted(name for name, both in factors.items() if len(both) != 2)
    if halves or not factors:
        raise CheckpointError(f"{weights} lacks a factor of: {', '.join(halves) or 'everything'}")
    return {name: (both["A"], both["B"]) for name, both in factors.items()}


def _places(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def _place(places: dict[str, Any], name: str) -> Any:
    """Return the linear layer that an adapter's module name means: the longest ending that fits exactly one.

    Libraries move a language model about inside its wrapper ("model.layers" became "language_model.layers").
    """
    parts = name.split(".")
    for start in range(len(parts)):
        ending = ".".join(parts[start:])
        fitting = [place for place in places if place == ending or place.endswith(f".{ending}")]
        if len(fitting) == 1:
            return places[fitting[0]]
        if fitting:
            return None
    return None


def _scale(settings: dict[str, Any], name: str, rank: int) -> float:
    def of_module(patterns: dict[str, Any], otherwise: float) -> float:
        for pattern, value in (patterns or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", name):
                return float(value)
        return otherwise

    alpha = of_module(settings.get("alpha_pattern") or {}, float(settings.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
