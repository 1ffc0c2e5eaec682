"""What this machine can run: how much memory its devices have, and which weights are here already."""

from __future__ import annotations

import os
from dataclasses import dataclass

from miner_diag.backbones.known import KnownModel

HEADROOM = 1.25
"""A forward needs about this many times the memory of the weights: states and pictures of a batch come on top."""


@dataclass(frozen=True)
class Machine:
    """The devices of a machine and their memory."""

    ram_gb: float
    """The main memory, in GB (10^9 bytes)."""
    gpu_gb: float
    """The memory of the largest GPU, in GB; 0 where torch sees none."""
    gpu_name: str = ""
    """What its driver calls it."""

    def verdict(self, model: KnownModel) -> str:
        """Return in words whether the model fits: in bfloat16 on the GPU, in float32 on the CPU."""
        needed = model.bf16_gb * HEADROOM
        if self.gpu_gb >= needed:
            return "fits the GPU"
        if self.ram_gb >= 2 * needed:
            return "fits the memory (float32 on the CPU, slow)"
        return f"too large: needs some {needed:.0f} GB on a GPU"


def this_machine() -> Machine:
    """Return this machine's devices."""
    import torch

    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if not torch.cuda.is_available():
        return Machine(ram, 0.0)
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    largest = max(devices, key=lambda device: device.total_memory)
    return Machine(ram, largest.total_memory / 1e9, largest.name)


def weights_are_here(model: KnownModel) -> bool:
    """Tell whether a known checkpoint lies in the hub's cache; nothing is asked of a hub."""
    from huggingface_hub import try_to_load_from_cache

    name = "adapter_config.json" if model.base_model else "config.json"
    return isinstance(try_to_load_from_cache(model.hub_id, name, revision=model.revision), str)
