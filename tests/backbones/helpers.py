"""What several tests of retrievers make: a checkpoint with options, and what is loaded from it."""

from pathlib import Path

from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.col_vision import ColVision
from miner_diag.backbones.late import LastLayerTokens
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.pictures import PagePictures
from miner_diag.backbones.text_encoder import TextEncoder


def checkpoint_of(folder, *, name=None, render=None, **options):
    """A checkpoint in a folder with some options; it is named after the folder."""
    folder = Path(folder)
    return Checkpoint(folder, name or folder.name, LoadOptions(str(folder), **options), PagePictures(render))


def text_encoder(folder, **options):
    """A text encoder that reads the text layer unless the options say otherwise."""
    return TextEncoder(checkpoint_of(folder, **{"reader": "text-layer", **options}))


def col_vision(folder, **options):
    return ColVision(checkpoint_of(folder, **options))


def late_partner(encoder, **options):
    """The late-interaction partner of a loaded text encoder."""
    checkpoint = Checkpoint(Path(encoder.options.model), f"{encoder.name}-late", LoadOptions(**options))
    return LastLayerTokens(checkpoint, encoder)
