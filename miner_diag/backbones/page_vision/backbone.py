"""``page-vision``: a retriever that sees a page's picture alone: lines of pixels -> words -> MiniLM."""

from __future__ import annotations

from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.page_vision.picture_reader import LinePictureReader
from miner_diag.backbones.page_vision.trained import trained_sha256
from miner_diag.backbones.reader import PageReader
from miner_diag.backbones.text_encoder import TextEncoder
from miner_diag.files import sha256_bytes


def load_page_vision(checkpoint: Checkpoint) -> TextEncoder:
    """Return MiniLM (7 hidden states, width 384, mean pooling) over what the line reader of the package reads.

    Neither the text layer nor RapidOCR takes part. Queries pass the same layers.
    """
    reader = PageReader(
        "ocr", checkpoint.pictures.render, progress=checkpoint.progress, picture_reader=LinePictureReader
    )
    backbone = TextEncoder(checkpoint, reader)
    backbone.folder = None  # its reader's weights do not lie there
    backbone.revision = f"sha256:{sha256_bytes(f'{backbone.revision} {trained_sha256()}'.encode())}"
    return backbone
