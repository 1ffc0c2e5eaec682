"""The commands of this folder: write a retriever for other tools, and put it on a hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, subcommand

from miner_diag.serving.export import ExportOptions, export
from miner_diag.texts import inert


@dataclass(frozen=True)
class PushOptions:
    """Put an exported folder on a hub: the one command that sends anything anywhere."""

    folder: Positional[Path]
    """What export --to hub wrote."""
    repo_id: Positional[str]
    """owner/name; it is made if it is not there."""
    public: bool = False
    """Whether a repository that is made is seen by all; else by its owner alone."""


ServingOptions = (
    Annotated[ExportOptions, subcommand("export", prefix_name=False)]
    | Annotated[PushOptions, subcommand("push", prefix_name=False)]
)
"""The options of every command of this folder."""


def run(options: Any) -> None:
    """Run one of the commands."""
    commands: dict[type, Callable[[Any], None]] = {ExportOptions: run_export, PushOptions: run_push}
    commands[type(options)](options)


def run_export(options: ExportOptions) -> None:
    """Write a retriever for other tools."""
    for line in export(options):
        print(inert(line))


def run_push(options: PushOptions) -> None:
    """Put an exported folder on a hub."""
    from miner_diag.serving.upload import push_folder

    address = push_folder(options.folder, options.repo_id, private=not options.public)
    print(inert(f"{options.folder} is at {address}"))
