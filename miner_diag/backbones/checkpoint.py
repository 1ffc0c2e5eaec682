"""A checkpoint that is to be loaded: its folder, and what the user says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from miner_diag.backbones.errors import BackboneError
from miner_diag.backbones.options import LoadOptions, LongPages
from miner_diag.backbones.pictures import PagePictures

if TYPE_CHECKING:
    from miner_diag.backbones.families import FamilyDefaults


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a retriever is made from."""

    folder: Path
    """The folder with config.json, weights, tokenizer and image processor, or with an adapter."""
    name: str
    """What tables call the retriever."""
    options: LoadOptions = field(default_factory=LoadOptions)
    """What overrules the checkpoint's own settings."""
    pictures: PagePictures = field(default_factory=lambda: PagePictures(None))
    """Draws the pages."""
    base_model: Path | None = None
    """The folder of the model that an adapter belongs to; None for a whole model."""
    long_pages: LongPages = "truncate"
    """What the retriever does with long pages and queries where the options do not say."""
    progress: bool = True
    """Whether bars are shown."""
    changes: Mapping[str, str | int] = field(default_factory=dict)
    """What the protocol that the user chose does otherwise than the authors: a setting's name -> its value."""

    def under_protocol(self, defaults: FamilyDefaults) -> FamilyDefaults:
        """Return a family's settings with what the chosen protocol does otherwise.

        Raises
        ------
        BackboneError
            If the manifest changes a setting that the family fixes.
        """
        fixed = [name for name in self.changes if getattr(defaults, name) is None]
        if fixed:
            raise BackboneError(
                f"the manifest of {self.name} changes {', '.join(fixed)} under --protocol {self.options.protocol}, "
                "which its family fixes; take that out of the manifest"
            )
        return replace(defaults, **self.changes)  # type: ignore[arg-type]
