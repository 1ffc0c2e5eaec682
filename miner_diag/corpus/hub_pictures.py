"""Pictures in the rows of a hub's tables: noted once by their hashes, drawn one at a time from the mapped files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.images import check_image, read_image

HASHED = 2
"""The version of what is noted of each picture; another number makes it anew."""

Places = Mapping[str, tuple[Any, int]]
"""page_id -> the table with its picture and the number of its row."""


def picture_facts(table: Any, keep: Sequence[str]) -> Any:
    """Return a table with the columns of `keep`, and of each row's picture its "page_hash" and what is its "problem".

    The hash is the SHA-256 of the picture's file, "" where there is none; the problem is "" where there is none. They
    are computed once: the library keeps them beside the table.
    """
    return table.map(
        _facts,
        remove_columns=[name for name in table.column_names if name not in keep],
        fn_kwargs={"version": HASHED},
        desc="hashing pictures",
    )


def _facts(row: dict[str, Any], version: int) -> dict[str, str]:
    """Return the facts of one row; the library makes them anew for another `version`."""
    content = (row["image"] or {}).get("bytes")
    if not content:  # a path alone is not followed: it could name any file of this machine
        return {"page_hash": "", "problem": "it holds no picture"}
    problem = ""
    try:
        check_image(io.BytesIO(content), "its picture")
    except CorpusError as error:
        problem = str(error)
    return {"page_hash": hashlib.sha256(content).hexdigest(), "problem": problem}


def draw_picture(places: Places, page_id: str, longest_side: int) -> Image.Image:
    """Return a page's picture, `longest_side` pixels on the longer side at most.

    Raises
    ------
    CorpusError
        If there is no such page, or its picture cannot be decoded.
    """
    if page_id not in places:
        raise CorpusError(f"there is no page {page_id!r}")
    table, number = places[page_id]
    picture = read_image(io.BytesIO(table[number]["image"]["bytes"]), page_id)
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return picture
