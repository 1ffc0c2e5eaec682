"""Which retrievers there are, which options they honour, and what this machine can run of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from miner_diag.backbones.families import FAMILIES, LATE_CLASSES, LATE_TEXT, TEXT
from miner_diag.backbones.known import KnownModel, known_models
from miner_diag.backbones.machine import Machine, this_machine, weights_are_here
from miner_diag.backbones.registry import EMBEDDED, RETRIEVERS
from miner_diag.backbones.retriever import EVERY, Retriever, flags_of

_WIDTH = max(len(kind.name) for kind in RETRIEVERS)


@dataclass(frozen=True)
class BackbonesOptions:
    """List the retrievers that are known, the options that each honours, and what this machine can run of them."""

    json: bool = False
    """Print everything that is known of each checkpoint, as JSON Lines."""


def run(options: BackbonesOptions) -> None:
    """Run the command."""
    machine = this_machine()
    if options.json:
        for model in known_models():
            more = {"bf16_gb": model.bf16_gb, "here": machine.verdict(model), "honours": _honoured_by(model)}
            print(json.dumps({**asdict(model), **more}))
        return
    print("Embedded, no hub needed:")
    _print_kinds(EMBEDDED.values())
    print(f"\nKnown checkpoints (--model HUB_ID, or a local folder of it), on this machine: {_devices(machine)}")
    _print_models([model for model in known_models() if not model.late], machine)
    print("\nLate interaction, a vector for every token (python -m miner_diag.late --model HUB_ID, or a folder of it):")
    _print_models([model for model in known_models() if model.late], machine)
    print("\nAny other checkpoint of these families (--model FOLDER; --model-family where its files do not say which):")
    _print_kinds((*FAMILIES, TEXT))
    print("\nAny other checkpoint for late interaction:")
    _print_kinds((*LATE_CLASSES, LATE_TEXT))
    print(f"\nOptions that each kind honours beside {flags_of(EVERY)}; any other option is refused.")
    print("--revision is for hub ids, --base-model for adapters, --trust-remote-code for checkpoints that bring code,")
    print("--protocol for known checkpoints whose manifest names what the public leaderboard (mteb) does otherwise.")
    for kind in RETRIEVERS:
        print(f"  {kind.name:<{_WIDTH}} {flags_of(kind.honours - EVERY)}")
    unpinned = [model.hub_id for model in known_models() if model.revision is None]
    if unpinned:
        print(f"\nNot pinned to a revision, as none is known for sure: {', '.join(unpinned)}")


def _print_kinds(kinds: Iterable[Retriever]) -> None:
    for kind in kinds:
        print(f"  {kind.name:<{_WIDTH}} {kind.what}")


def _print_models(models: Sequence[KnownModel], machine: Machine) -> None:
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


def _honoured_by(model: KnownModel) -> list[str]:
    honours = next(kind.honours for kind in RETRIEVERS if model.family in (kind.name, *kind.model_types))
    changes = any(run is not None and run.changes for run in model.protocol.values())
    return sorted(honours if changes else honours - {"protocol"})


def _devices(machine: Machine) -> str:
    gpu = f"{machine.gpu_name} with {machine.gpu_gb:.0f} GB" if machine.gpu_gb else "no GPU"
    return f"{machine.ram_gb:.0f} GB of memory, {gpu}"
