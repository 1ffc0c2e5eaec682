"""``page-vision``: a retriever that sees a page's picture alone: lines of pixels -> words -> MiniLM."""

from __future__ import annotations

from typing import Any

from miner_diag.backbones.base import BackboneError
from miner_diag.backbones.page_text import minilm_folder
from miner_diag.backbones.page_vision.picture_reader import LinePictureReader
from miner_diag.backbones.page_vision.trained import trained_sha256
from miner_diag.backbones.reader import PageReader, ReaderKind, Render
from miner_diag.backbones.text_encoder import TextEncoder
from miner_diag.files import sha256_bytes

NAME = "page-vision"


def load_page_vision(
    *, reader: ReaderKind = "auto", render: Render | None = None, progress: bool = True, **options: Any
) -> TextEncoder:
    """Return MiniLM (7 hidden states, width 384, mean pooling) over what the line reader of the package reads.

    Neither the text layer nor RapidOCR is asked. Queries pass the same layers. `options` are those of
    :class:`~miner_diag.backbones.text_encoder.TextEncoder`.

    Raises
    ------
    BackboneError
        If a `reader` is asked for: this backbone is one.
    """
    if reader != "auto":
        raise BackboneError(
            f"{NAME} reads pictures with its own reader; got reader {reader!r}. Leave it at auto, or use --model "
            "page-text, which takes text-layer or ocr"
        )
    eyes = PageReader("ocr", render, progress=progress, eyes=LinePictureReader)
    backbone = TextEncoder(minilm_folder(), name=NAME, reader=eyes, **options)
    backbone.revision = f"sha256:{sha256_bytes(f'{backbone.revision} {trained_sha256()}'.encode())}"
    return backbone
