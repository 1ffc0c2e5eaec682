"""Where embeddings are kept, and how they are made and read; importing this loads no model library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOKEN_BUDGET = 4096
"""The tokens of a padded batch by default: enough to keep a CPU busy, little memory."""


@dataclass(frozen=True)
class StoreOptions:
    """Where embeddings are kept, and how they are made and read."""

    store: Path = Path("runs/store")
    """The folder in which all commands keep embeddings: what one command has embedded, the others read."""
    token_budget: int = TOKEN_BUDGET
    """The largest number of tokens in a padded batch. Another budget rounds differently, so its embeddings are kept
    apart."""
    memory_gb: float = 4.0
    """Queries or pages of a split that need more memory than this (in 10^9 bytes) are read from disk row by row."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.token_budget < 1:
            raise ValueError(f"token_budget must be at least 1 token; got {self.token_budget}")
        if not self.memory_gb > 0:
            raise ValueError(f"memory_gb must be above 0; got {self.memory_gb}")
