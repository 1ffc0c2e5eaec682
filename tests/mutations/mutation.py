"""What a fault is: a place in the package, other text for it, and the tests that must fail with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One fault."""

    name: str
    """How `--only` and the table call it."""
    file: str
    """The file, relative to the package folder."""
    old: str
    """The text that stands there exactly once."""
    new: str
    """What stands there with the fault."""
    tests: tuple[str, ...]
    """Test files or single tests, relative to the tests folder; at least one test of them fails with the fault."""
    why: str
    """What the fault does to the numbers."""
