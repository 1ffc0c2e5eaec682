"""Low-rank adapters, merged into the weights they belong to: W + scale * B A. No adapter library is needed."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from miner_diag.backbones.errors import CheckpointError
from miner_diag.backbones.pipeline import read_json
from miner_diag.backbones.weight_files import check_files, check_safetensors

KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?(?:\.(?P<part>[\w-]+))?\.weight$"
)
"""The name of a factor in an adapter file; `part` is the name of an adapter or a task."""

PLAIN: Mapping[str, Any] = {
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "bias": "none",
    "kasa_config": None,
    "layer_replication": None,
    "lora_bias": False,
    "modules_to_save": None,
    "monteclora_config": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
}
"""The settings of an adapter that is nothing but W + scale * B A."""

CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to start an adapter (``init_lora_weights``) that change the base model's weights too."""


def merge_adapter(
    model: nn.Module, folder: Path, *, part: str | None = None, harmless: re.Pattern[str] | None = None
) -> int:
    """Merge an adapter into a model's weights, in place; products are computed in float32.

    Parameters
    ----------
    model : Module
        The base model, without its heads.
    folder : path
        The folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
    part : str, optional
        Which of several adapters in the file, where names hold a task.
    harmless : pattern, optional
        Names of adapted modules that the model need not have, as heads.

    Returns
    -------
    int
        The number of weights that were changed.

    Raises
    ------
    CheckpointError
        If the adapter is of another kind, a factor is missing, or a module is not in the model, or not clearly; all
        such modules are listed.
    """
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not config.exists() or not weights.exists():
        raise CheckpointError(f"{folder} must hold adapter_config.json and adapter_model.safetensors")
    settings = read_json(config, dict)
    check_files([weights])
    check_safetensors(weights)
    _check_plain(settings, config)
    pairs = _pairs(weights, part)
    modules = _modules_for(pairs, model, folder, harmless)
    for name, module in modules.items():
        low, high = pairs[name]
        delta = _scale(settings, name, low.shape[0]) * (high.to(torch.float32) @ low.to(torch.float32))
        if delta.shape != module.weight.shape:
            raise CheckpointError(
                f"{name} of {folder} changes a weight of shape {tuple(delta.shape)}; the model's is "
                f"{tuple(module.weight.shape)}"
            )
        with torch.no_grad():
            merged = module.weight.to(torch.float32) + delta.to(module.weight.device)
            module.weight.copy_(merged.to(module.weight.dtype))
    return len(modules)


def _check_plain(settings: dict[str, Any], config: Path) -> None:
    """Check that an adapter is nothing but W + scale * B A."""
    if settings.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(f"{config} is an adapter of type {settings['peft_type']}; supported is LORA")
    advice = "merge it with peft (model.merge_and_unload()), save that and pass its folder"
    for name, plain in PLAIN.items():
        if settings.get(name, plain) not in (plain, None, [], {}):
            raise CheckpointError(
                f"{config} sets {name} to {settings[name]!r}, which is more than W + scale * B A; {advice}"
            )
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASE):
        raise CheckpointError(
            f"{config} sets init_lora_weights to {start!r}, which changes the base model's weights too; {advice}"
        )


def _pairs(weights: Path, part: str | None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the factors (A, B) of each adapted module, by its name."""
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


def _modules_for(
    names: Mapping[str, Any], model: nn.Module, folder: Path, harmless: re.Pattern[str] | None
) -> dict[str, Any]:
    """Return the linear layer that each adapted module's name means, having checked that each means one of its own."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    targets = {name: _target(linear, name) for name in names}
    lost = sorted(n for n, target in targets.items() if target is None and not (harmless and harmless.search(n)))
    if lost or not any(targets.values()):
        raise CheckpointError(
            f"{len(lost)} adapted modules of {folder} are not, or not clearly, in {type(model).__name__}: "
            f"{', '.join(lost) or 'none of them'}; it belongs to another base model"
        )
    sharing: dict[str, list[str]] = defaultdict(list)
    for name, target in targets.items():
        if target is not None:
            sharing[target].append(name)
    for target, several in sharing.items():
        if len(several) > 1:
            raise CheckpointError(
                f"{', '.join(several)} of {folder} all mean {target} of {type(model).__name__}; it belongs to another "
                "base model"
            )
    return {name: linear[target] for name, target in targets.items() if target is not None}


def _target(linear: Mapping[str, Any], name: str) -> str | None:
    """Return the linear layer that an adapter's module name means: the longest ending that fits exactly one.

    Libraries move a language model about inside its wrapper ("model.layers" became "language_model.layers").
    """
    parts = name.split(".")
    for start in range(len(parts)):
        ending = ".".join(parts[start:])
        fitting = [module for module in linear if module == ending or module.endswith(f".{ending}")]
        if fitting:
            return fitting[0] if len(fitting) == 1 else None
    return None


def _scale(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """Return what B A is multiplied by; the rank is that of the factors, whatever pattern it followed."""
    alpha = float(settings.get("lora_alpha", rank))
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = float(value)
            break
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
