"""Pictures of pages as a viewer shows them: on white, upright, every depth and colour space as RGB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.pdf import MAX_IMAGE_PIXELS

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is turned."""
TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""The tag of a TIFF that says how grey is stored, and its value where 0 is white."""


def open_image(path: Path | str) -> Image.Image:
    """Open an untrusted picture of a page as :func:`on_white` shows it, turned as its EXIF data says.

    Of a file with several pictures the first is taken.

    Raises
    ------
    CorpusError
        If it is missing, no regular file (a pipe would never end), no picture, broken, larger than
        `MAX_IMAGE_PIXELS`, or of grey values that are no numbers.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise CorpusError(f"{path.name} is not a file")
        # opened by us: Pillow 13 scrambles the rows of a plain TIFF on its side if it opens the file itself
        with path.open("rb") as file:
            return read_image(file, path.name)
    except OSError as error:
        raise CorpusError(f"{path.name} is not a readable picture ({error})") from None


def read_image(file: BinaryIO, name: str) -> Image.Image:
    """Return the picture in an open file as `open_image` does; `name` is what messages call it.

    Raises
    ------
    CorpusError
        As in `open_image`.
    """
    with _opened(file, name) as picture:
        seen = on_white(picture)
        seen.getexif()[ORIENTATION] = picture.getexif().get(ORIENTATION, 1)
        return ImageOps.exif_transpose(seen)


def check_image(file: BinaryIO, name: str) -> None:
    """Check that an open file holds a whole picture that is not too large, without drawing it where that can be told.

    The checksums of a PNG say it, and a JPEG is decoded at an eighth of its size; other pictures are decoded.

    Raises
    ------
    CorpusError
        If it does not.
    """
    with _opened(file, name) as picture:
        if picture.format == "PNG":
            picture.verify()
        else:
            picture.draft(None, (1, 1))
            picture.load()


@contextmanager
def _opened(file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open a picture, not decoded yet; whatever goes wrong with it is a `CorpusError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is a little above Pillow's
            with Image.open(file) as picture:
                if picture.width * picture.height > MAX_IMAGE_PIXELS:
                    raise CorpusError(
                        f"{name} is {picture.width} x {picture.height} pixels; "
                        f"expected at most {MAX_IMAGE_PIXELS:,} in all"
                    )
                yield picture
    except Image.DecompressionBombError:
        raise CorpusError(f"{name} has more than {MAX_IMAGE_PIXELS:,} pixels, the most that is read") from None
    except UnidentifiedImageError:  # its text names a place in memory, another one each time
        raise CorpusError(f"{name} is not a readable picture (of no known kind)") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(f"{name} is not a readable picture ({error})") from None


def on_white(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB as it looks on white paper.

    Transparency shows white. Grey of more than 8 bits is scaled by its depth: 16 bits where no value is above 65,535,
    else 32; numbers with a point are shares of white where none is above 1, else of 255 or of 65,535.

    Raises
    ------
    CorpusError
        If grey values are negative or no numbers.
    """
    if picture.mode.startswith(("I", "F")):
        return _grey_of_depth(picture)
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _grey_of_depth(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise CorpusError("a picture has grey values that are negative or no numbers; save it with 8 or 16 bits")
    highest = values.max(initial=0)
    if picture.mode == "F":
        white = 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65_535.0
    else:
        white = 65_535.0 if highest <= 65_535 else 2.0**32 - 1
    grey = np.clip(values / white, 0.0, 1.0)
    if getattr(picture, "tag_v2", {}).get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 1.0 - grey
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 1.0
    return Image.fromarray(np.rint(255 * grey).astype(np.uint8)).convert("RGB")
