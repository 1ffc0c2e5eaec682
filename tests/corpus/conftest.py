"""Fixtures of the corpus's tests; what they hand out is made in `tests.corpus.files`."""

from types import SimpleNamespace

import pytest
from PIL import Image

from tests.corpus.files import A4, PdfPage, Text, handbook, pdf_bytes, png_bytes, squeezed, write_table


@pytest.fixture
def make():
    """What this file makes, by name."""
    return SimpleNamespace(
        A4=A4,
        Text=Text,
        PdfPage=PdfPage,
        pdf=pdf_bytes,
        png=png_bytes,
        handbook=handbook,
        squeezed=squeezed,
        table=write_table,
    )


@pytest.fixture
def folder(tmp_path):
    """Write files below a folder: {name: bytes}."""
    path = tmp_path / "documents"
    path.mkdir()

    def write(files):
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path

    return write


@pytest.fixture
def small_table(tmp_path):
    """Make a sound table of four pictures, each its own document, with four queries."""

    def write(**changes):
        path = tmp_path / "table"
        path.mkdir(exist_ok=True)
        for number in range(4):
            Image.new("RGB", (30, 40), (60 * number, 10, 10)).save(path / f"{number}.png")
        rows = {
            "queries": [{"_id": f"q{n}", "text": f"question number {n}"} for n in range(4)],
            "corpus": [{"_id": f"p{n}", "image": f"{n}.png"} for n in range(4)],
            "qrels": [(f"q{n}", f"p{n}", "1") for n in range(4)],
        }
        return write_table(path, **{name: changes.get(name, row) for name, row in rows.items()})

    return write
