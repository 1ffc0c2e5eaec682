"""PDFs out of hand-written objects: form fields, annotations, scans, and bookmarks of every kind."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from tests.corpus.files import _file

FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
CHINESE = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H /DescendantFonts [<< /Type /Font "
    "/Subtype /CIDFontType0 /BaseFont /STSong-Light /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 4 "
    ">> /FontDescriptor << /Type /FontDescriptor /FontName /STSong-Light /Flags 4 /FontBBox [0 -200 1000 900] "
    "/ItalicAngle 0 /Ascent 880 /Descent -120 /CapHeight 880 /StemV 93 >> >>] >>"
)


@dataclass(frozen=True)
class RawPage:
    """One page: operators, annotations as dictionaries, and what fills the page as a scan does."""

    content: str = ""
    annotations: tuple[str, ...] = ()
    scan: object = None  # a picture of the whole page
    box: tuple[float, ...] = (0, 0, 595, 842)
    crop: tuple[float, ...] | None = None


def raw_pdf(pages, outline=()):
    """Make a PDF; outline is a list of (title, index of its page or further entries of its dictionary).

    ``/Helv`` and ``/Song`` are fonts. ``{look}`` in an annotation is an appearance that shows `LOOK`.
    """
    objects: dict[int, bytes] = {}

    def add(body):
        objects[len(objects) + 1] = body if isinstance(body, bytes) else body.encode("latin-1")
        return len(objects)

    def stream(dictionary, data):
        return add(f"<< {dictionary} /Length {len(data)} >>\nstream\n".encode("latin-1") + data + b"\nendstream")

    catalog, root, first = add(b""), add(b""), add(b"")
    fonts = f"/Font << /Helv {add(FONT)} 0 R /Song {add(CHINESE)} 0 R >>"
    numbers, fields = [], []
    for page in pages:
        content, resources = page.content, fonts
        if page.scan is not None:
            pixels = page.scan.convert("RGB")
            picture = stream(
                f"/Type /XObject /Subtype /Image /Width {pixels.width} /Height {pixels.height} /ColorSpace /DeviceRGB "
                "/BitsPerComponent 8 /Filter /FlateDecode",
                zlib.compress(pixels.tobytes()),
            )
            resources += f" /XObject << /Scan {picture} 0 R >>"
            content = f"q {page.box[2]} 0 0 {page.box[3]} 0 0 cm /Scan Do Q {content}"
        marks = []
        for annotation in page.annotations:
            look = stream(f"/Type /XObject /Subtype /Form /BBox [0 0 300 30] /Resources << {fonts} >>", LOOK.encode())
            marks.append(add(annotation.replace("{look}", f"/AP << /N {look} 0 R >>")))
        fields += [mark for mark, text in zip(marks, page.annotations, strict=True) if "/Widget" in text]
        crop = f"/CropBox [{' '.join(map(str, page.crop))}]" if page.crop else ""
        numbers.append(
            add(
                f"<< /Type /Page /Parent {root} 0 R /MediaBox [{' '.join(map(str, page.box))}] {crop} /Resources "
                f"<< {resources} >> /Annots [{' '.join(f'{mark} 0 R' for mark in marks)}] "
                f"/Contents {stream('', content.encode('latin-1'))} 0 R >>"
            )
        )
    objects[root] = f"<< /Type /Pages /Count {len(numbers)} /Kids [{' '.join(f'{n} 0 R' for n in numbers)}] >>".encode()
    start = len(objects) + 1
    for place, (title, target) in enumerate(outline):
        links = f"/Prev {start + place - 1} 0 R " if place else ""
        links += f"/Next {start + place + 1} 0 R " if place + 1 < len(outline) else ""
        goal = f"/Dest [{numbers[target]} 0 R /Fit]" if isinstance(target, int) else target
        add(f"<< /Title <{title.encode('utf-16').hex()}> /Parent {first} 0 R {links}{goal} >>")
    objects[first] = f"<< /Type /Outlines /First {start} 0 R /Last {len(objects)} 0 R /Count {len(outline)} >>".encode()
    form = f"/AcroForm << /Fields [{' '.join(f'{n} 0 R' for n in fields)}] /DA (/Helv 12 Tf 0 g) /DR << {fonts} >> >>"
    tree = f"/Outlines {first} 0 R" if outline else ""
    objects[catalog] = f"<< /Type /Catalog /Pages {root} 0 R {tree} {form if fields else ''} >>".encode()
    return _file(objects, f"/Root {catalog} 0 R")


LOOK = "BT /Helv 14 Tf 2 8 Td (Heights of tides in harbours) Tj ET"
"""What an appearance shows."""


def line(words, x=72, y=600, size=12, mode=0):
    """Operators that write a line; mode 3 writes it invisibly."""
    return f"BT {mode} Tr /Helv {size} Tf {x} {y} Td ({words}) Tj ET\n"


def song(words, x=72, y=600, size=12):
    """Operators that write a line of Chinese."""
    return f"BT /Song {size} Tf {x} {y} Td <{words.encode('utf-16-be').hex()}> Tj ET\n"


def strokes(n_letters, x=72, y=700):
    """Operators that draw letters as paths: nobody can read them out of a text layer."""
    return "".join(
        f"{x + 8 * n} {y} m {x + 8 * n + 3} {y + 9} l {x + 8 * n + 6} {y} l S {x + 8 * n + 1} {y + 4} m "
        f"{x + 8 * n + 5} {y + 4} l S\n"
        for n in range(n_letters)
    )


def field(value, y=700, kind="/FT /Tx", flags=0, more=""):
    """A form field as an annotation of its page."""
    shown = f"/V ({value})" if value else ""
    return (
        f"<< /Type /Annot /Subtype /Widget {kind} /T (field{y}) {shown} /Rect [72 {y} 400 {y + 25}] "
        f"/DA (/Helv 12 Tf 0 g) /F 4 /Ff {flags} {more} >>"
    )


def note(words, y=700, flags=4, subtype="FreeText", more=""):
    """A free-text annotation, or another kind."""
    return (
        f"<< /Type /Annot /Subtype /{subtype} /Contents ({words}) /Rect [72 {y} 400 {y + 25}] "
        f"/DA (/Helv 12 Tf 0 g) /F {flags} {more} >>"
    )
