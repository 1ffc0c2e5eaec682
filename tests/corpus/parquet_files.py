"""Data sets as a hub has them: parquet files with pictures, and a card that names configurations."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(number, size=(20, 30)):
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def save(folder, name, rows, *, group_size=2):
    """Write rows as a hub has them: parquet, pictures in a struct of bytes and path, a few rows a group."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {key: [one[key] for one in rows] for key in rows[0]}
    arrays = {
        key: pa.array(values, type=PICTURE) if key == "image" else pa.array(values) for key, values in columns.items()
    }
    pq.write_table(pa.table(arrays), folder / f"{name}-00000-of-00001.parquet", row_group_size=group_size)
    return folder


def write_card(folder, paths, split="train"):
    """Write the card of a data set; `paths` gives the pattern of each configuration's files."""
    config = "- config_name: {}\n  data_files:\n  - split: {}\n    path: {}\n"
    configs = "".join(config.format(name, split, path) for name, path in paths.items())
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n# Card\n", encoding="utf-8")
