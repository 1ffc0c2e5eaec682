"""PDFs and pictures from scratch: small ones with known text at known places, and bad ones of every kind."""

from __future__ import annotations

import hashlib
import json
import struct
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path

A4 = (0, 0, 595, 842)


@dataclass(frozen=True)
class Text:
    """A line of text; x and y are its left end and base line in points from the lower left corner."""

    words: str
    x: float = 72
    y: float = 700
    size: float = 12
    font: str = "Helvetica"
    upright: bool = False  # reading upwards, as a caption beside a picture on its side


@dataclass(frozen=True)
class PdfPage:
    """One page of a PDF to make."""

    texts: tuple[Text, ...] = ()
    box: tuple[float, float, float, float] = A4
    crop: tuple[float, float, float, float] | None = None
    rotate: int = 0
    drawing: str = ""  # further operators; /Pic is the picture, /Wrap a form that draws it
    picture: tuple[int, int] | None = None  # declared width and height, one bit a pixel, all of it there


def pdf_bytes(pages, outline=(), *, password=None):
    """Make a PDF; outline is a list of (title or its bytes, index of its page or None for no destination)."""
    objects: dict[int, bytes] = {}

    def add(body):
        objects[len(objects) + 1] = body if isinstance(body, bytes) else body.encode("latin-1")
        return len(objects)

    def stream(dictionary, data):
        return add(f"<< {dictionary} /Length {len(data)} >>\nstream\n".encode("latin-1") + data + b"\nendstream")

    catalog, root = add(b""), add(b"")
    fonts = {
        name: add(
            f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding << /Type /Encoding "
            "/BaseEncoding /WinAnsiEncoding /Differences [1 /fi] >> >>"
        )
        for name in sorted({text.font for page in pages for text in page.texts} | {"Helvetica"})
    }
    numbers = []
    for page in pages:
        content = stream("", (page.drawing + "\n" + "\n".join(map(_operators, page.texts))).encode("latin-1"))
        resources = "/Font << " + " ".join(f"/{name} {number} 0 R" for name, number in fonts.items()) + " >>"
        if page.picture:
            width, height = page.picture
            picture = stream(
                f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceGray "
                "/BitsPerComponent 1 /Filter /FlateDecode",
                _deflated_zeros((width + 7) // 8 * height),
            )
            wrap = stream(
                f"/Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources << /XObject << /Pic {picture} 0 R >> >>",
                b"/Pic Do",
            )
            resources += f" /XObject << /Pic {picture} 0 R /Wrap {wrap} 0 R >>"
        crop = f"/CropBox [{' '.join(map(str, page.crop))}]" if page.crop else ""
        numbers.append(
            add(
                f"<< /Type /Page /Parent {root} 0 R /MediaBox [{' '.join(map(str, page.box))}] {crop} "
                f"/Rotate {page.rotate} /Resources << {resources} >> /Contents {content} 0 R >>"
            )
        )
    objects[root] = f"<< /Type /Pages /Count {len(numbers)} /Kids [{' '.join(f'{n} 0 R' for n in numbers)}] >>".encode()
    first = len(objects) + 2
    tree = "" if not outline else f"/Outlines {first - 1} 0 R"
    objects[catalog] = f"<< /Type /Catalog /Pages {root} 0 R {tree} >>".encode()
    if outline:
        last = first + len(outline) - 1
        add(f"<< /Type /Outlines /First {first} 0 R /Last {last} 0 R /Count {len(outline)} >>")
    for place, (title, page) in enumerate(outline):
        links = f"/Prev {first + place - 1} 0 R " if place else ""
        links += f"/Next {first + place + 1} 0 R " if place + 1 < len(outline) else ""
        raw = title if isinstance(title, bytes) else title.encode("utf-16")
        target = "" if page is None else f"/Dest [{numbers[page] if page < len(numbers) else page} 0 R /Fit]"
        add(f"<< /Title <{raw.hex()}> /Parent {first - 1} 0 R {links}{target} >>")
    trailer = ""
    if password is not None:
        lock, identifier = _lock(password)
        trailer = f"/Encrypt {add(lock)} 0 R /ID [<{identifier}> <{identifier}>]"
    return _file(objects, f"/Root {catalog} 0 R {trailer}")


def _file(objects, trailer):
    out, places = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
    for number, body in sorted(objects.items()):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} {trailer} >>\n"
    return out + f"{end}startxref\n{len(out)}\n%%EOF\n".encode()


def _operators(text):
    shown = text.words.encode("cp1252", "replace").decode("latin-1").replace("\\", r"\\")
    shown = shown.replace("(", r"\(").replace(")", r"\)")
    matrix = "0 1 -1 0" if text.upright else "1 0 0 1"
    return f"BT /{text.font} {text.size} Tf {matrix} {text.x} {text.y} Tm ({shown}) Tj ET"


def _deflated_zeros(size):
    """Zeros, compressed without ever being held: 312 MB of them are 1.4 MB here."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    parts = [packer.compress(block[: min(len(block), size - done)]) for done in range(0, size, len(block))]
    return b"".join(parts) + packer.flush()


def _lock(password):
    """Encryption dictionary of the standard handler, revision 2 (PDF 1.7, algorithms 2 to 4); contents stay plain."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    padded, identifier = (password.encode() + padding)[:32], hashlib.md5(b"a test").digest()
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + struct.pack("<i", -4) + identifier).digest()[:5]
    user = _rc4(key, padding)
    return f"<< /Filter /Standard /V 1 /R 2 /O <{owner.hex()}> /U <{user.hex()}> /P -4 >>", identifier.hex()


def _rc4(key, data):
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def png_bytes(width, height, data=b"\x00"):
    """Make a PNG that declares its size and holds hardly a pixel: a bomb where the size is large."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def squeezed(text):
    """Letters and digits only, compatibility forms and case folded: what must not be left of a hidden query."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def handbook(about="tides", n_pages=3):
    """Make a sound document: a heading in the outline and a caption on each page, all different."""
    pages, outline = [], []
    for number in range(1, n_pages + 1):
        title = f"Heights of {about} in harbour {'abcdefghijklm'[number]}"
        caption = f"Average level of {about} measured at gauge {'abcdefghijklm'[number]}"
        kind = "Figure" if number % 2 else "Table"
        pages.append(
            PdfPage(
                (
                    Text(title, y=760, size=18),
                    Text(f"Some running text about {about}, page {number}, which stays where it is.", y=600),
                    Text(f"{kind} {number}: {caption}", y=400),
                )
            )
        )
        outline.append((title, number - 1))
    return pdf_bytes(pages, outline)


def write_table(folder: Path, queries, corpus, qrels):
    """Write the three files of a table; rows are dicts, or lines as they are."""
    folder.mkdir(exist_ok=True)
    for name, rows in (("queries.jsonl", queries), ("corpus.jsonl", corpus)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore", *(row if isinstance(row, str) else "\t".join(row) for row in qrels)]
    (folder / "qrels.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder
