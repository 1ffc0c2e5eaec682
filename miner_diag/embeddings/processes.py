"""Several processes fill one store: each embeds its own shards, the first one finishes.

Any launcher that sets ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` starts them: ``accelerate launch``
and ``torchrun`` do. Shards are planned before anything runs, so their bytes do not depend on who embeds them.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import timedelta

logger = logging.getLogger(__name__)

PATIENCE = timedelta(days=7)
"""How long a process waits for the others; one that fails is noticed by the launcher, which ends them all."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is."""

    rank: int = 0
    """The number of this process; 0 is the main one."""
    count: int = 1
    """How many there are."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that finishes stores, writes tables and talks."""
        return self.rank == 0

    def takes(self, shard: int) -> bool:
        """Return whether this process embeds the shard with this number."""
        return shard % self.count == self.rank

    def wait(self) -> None:
        """Wait until all processes have come to this point."""
        if self.count == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=PATIENCE)
        distributed.barrier()


def processes() -> Processes:
    """Return what the launcher says; one process where there is no launcher.

    Raises
    ------
    ValueError
        If the launcher's variables contradict each other.
    """
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < count:
        raise ValueError(f"RANK must be 0 … WORLD_SIZE - 1; got RANK={rank}, WORLD_SIZE={count}")
    if count > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise ValueError(
            f"WORLD_SIZE is {count}, but MASTER_ADDR and MASTER_PORT are not set: start the processes with accelerate "
            "launch or torchrun, or unset WORLD_SIZE"
        )
    return Processes(rank, count)


def one_process() -> Processes:
    """Return the only process there is, for what does not share its work.

    Raises
    ------
    ValueError
        If a launcher has started several.
    """
    count = processes().count
    if count > 1:
        raise ValueError(
            f"{count} processes were started (WORLD_SIZE), but only python -m miner_diag.embeddings shares its work "
            "among several, and not with a late-interaction retriever; embed with that command first, then start this "
            "one in a single process"
        )
    return Processes()


def leave_the_rest_to_the_main_process() -> None:
    """End every process but the main one, once all stores are whole; the launcher takes that for success."""
    here = processes()
    if here.count == 1:
        return
    here.wait()
    from torch import distributed

    distributed.destroy_process_group()
    if not here.is_main:
        logger.info("process %d of %d is done", here.rank, here.count)
        raise SystemExit(0)
