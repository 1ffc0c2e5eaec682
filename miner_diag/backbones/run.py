"""Which retrievers there are, which options they honour, and what this machine can run of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from miner_diag.backbones.families import COL, FAMILIES, LATE_TEXT, TEXT, Family
from miner_diag.backbones.known import KnownModel, known_models
from miner_diag.backbones.machine import Machine, this_machine, weights_are_here
from miner_diag.backbones.registry import EMBEDDED, EMBEDDED_LATE


@dataclass(frozen=True)
class BackbonesOptions:
    """List the retrievers that are known, and what this machine can run of them."""

    json: bool = False
    """Print everything that is known of each checkpoint, as JSON Lines."""


def run(options: BackbonesOptions) -> None:
    """Run the command."""
    machine = this_machine()
    if options.json:
        for model in known_models():
            print(json.dumps({**asdict(model), "bf16_gb": model.bf16_gb, "here": machine.verdict(model)}))
        return
    print("Embedded, nothing to fetch:")
    for family in (*EMBEDDED.values(), *EMBEDDED_LATE.values()):
        print(f"  {family.name}: {family.what}")
    print(f"\nKnown checkpoints (--model HUB_ID, or a local folder of it), on this machine: {_devices(machine)}")
    _print_table([model for model in known_models() if not model.late], machine)
    print("\nLate interaction, a vector for every token (python -m miner_diag.late --model FOLDER):")
    _print_table([model for model in known_models() if model.late], machine)
    print("\nAny other checkpoint of these families (--model FOLDER; --model-family where its files do not say which):")
    for family in (*FAMILIES, TEXT):
        print(f"  {family.name:<12} {family.what}")
    print("\nOptions that each kind honours, beside --model, --device and --dtype; any other one is refused:")
    for family in (*EMBEDDED.values(), *EMBEDDED_LATE.values(), *FAMILIES, TEXT, LATE_TEXT, COL):
        print(f"  {family.name:<22} {_flags(family)}")
    loose = [model.hub_id for model in known_models() if model.revision is None]
    if loose:
        print(f"\nNot pinned to a revision, as none is known for sure: {', '.join(loose)}")


def _flags(family: Family) -> str:
    names = sorted(family.honours - {"model", "device", "dtype"})
    return " ".join("--" + name.replace("_", "-") for name in names)


def _print_table(models: Sequence[KnownModel], machine: Machine) -> None:
    print(pd.DataFrame([_row(model, machine) for model in models]).to_string(index=False))


def _row(model: KnownModel, machine: Machine) -> dict[str, str]:
    return {
        "hub id": model.hub_id,
        "family": model.family,
        "layers": " / ".join(map(str, model.n_layers)),
        "width": " / ".join(map(str, model.width)),
        "pooling": model.pooling,
        "bf16 GB": f"{model.bf16_gb:.1f}",
        "licence": model.licence.split(" (")[0],
        "weights": "here" if weights_are_here(model) else "to fetch",
        "this machine": machine.verdict(model),
    }


def _devices(machine: Machine) -> str:
    gpu = f"{machine.gpu_name} with {machine.gpu_gb:.0f} GB" if machine.gpu_gb else "no GPU"
    return f"{machine.ram_gb:.0f} GB of memory, {gpu}"
