"""PDFs that are made to cost a reader memory or time; each is a few kilobytes of hand-written bytes."""

from __future__ import annotations

import zlib

CAPTION = b"BT /F 12 Tf 1 0 0 1 72 700 Tm (Figure 1: Average level of tides in all harbours) Tj ET\n"
"""What makes the page a page with a query, if it is read."""


def file_bytes(objects: dict[int, bytes]) -> bytes:
    """Make a file of numbered objects; 1 is the catalog."""
    parts, places, length = [b"%PDF-1.7\n"], {}, 9
    for number, body in sorted(objects.items()):
        places[number] = length
        parts.append(b"%d 0 obj\n%s\nendobj\n" % (number, body))
        length += len(parts[-1])
    size = max(objects) + 1
    rows = [b"%010d 00000 n \n" % places[n] if n in places else b"0000000000 65535 f \n" for n in range(size)]
    table = b"xref\n0 %d\n" % size + b"".join(rows)
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, length)
    return b"".join([*parts, table, end])


def stream(dictionary: bytes, data: bytes, *, packed: bool = True) -> bytes:
    """Make a stream object."""
    if packed:
        data, dictionary = zlib.compress(data, 9), dictionary + b" /Filter /FlateDecode"
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (dictionary, len(data), data)


def one_page(
    content: bytes, resources: bytes = b"", more: dict[int, bytes] | None = None, catalog: bytes = b""
) -> bytes:
    """Make a file of one page; further objects start at number 10."""
    font = b"/Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
    return file_bytes(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
            3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << %s %s >> >>"
            % (font, resources),
            4: stream(b"", CAPTION + content),
            **(more or {}),
        }
    )


def form(content: bytes, drawn: bytes = b"", extra: bytes = b"") -> bytes:
    """Make a form XObject; `drawn` are the forms that it may draw."""
    head = b"/Type /XObject /Subtype /Form /BBox [0 0 595 842] %s /Resources << /XObject << %s >> >>" % (extra, drawn)
    return stream(head, content)


def self_drawing_form() -> bytes:
    """A form that draws itself twice."""
    return one_page(b"/X Do", b"/XObject << /X 10 0 R >>", {10: form(b"/X Do /X Do", b"/X 10 0 R")})


def nested_forms(depth: int = 7, times: int = 10) -> bytes:
    """Forms in forms: the innermost is drawn times ** depth times."""
    forms = {10 + n: form(b"/X Do " * times, b"/X %d 0 R" % (11 + n)) for n in range(depth)}
    return one_page(b"/X Do", b"/XObject << /X 10 0 R >>", forms | {10 + depth: form(b"0 0 5 5 re f ")})


def long_text(size: int = 50_000_000) -> bytes:
    """A stream of text operators that unpacks to `size` bytes."""
    line = b"BT /F 9 Tf 1 0 0 1 9 9 Tm (tides) Tj ET\n"
    return one_page(line * (size // len(line)))


def memory_bomb(size: int = 600_000_000) -> bytes:
    """A content stream of nothing that unpacks to `size` bytes; it is never held here."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    data = b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()
    content = b"<< /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream" % (len(data), data)
    return one_page(b"", more={4: content})


def slow_page(times: int = 20_000) -> bytes:
    """Transparency groups over the whole page: little memory, much time."""
    group = b"/Group << /S /Transparency /I true >>"
    drawn = form(b"0.5 g 0 0 595 842 re f", b"", group)
    return one_page(b"/X Do " * times, b"/XObject << /X 10 0 R >>", {10: drawn})


def slow_among_good(slow: list[int], times: int = 20_000) -> bytes:
    """A document of good pages, those of the given indices slow, with one good page before and after."""
    n_pages = max(slow) + 3
    kids = b" ".join(b"%d 0 R" % (10 + n) for n in range(n_pages))
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Count %d /Kids [%s] >>" % (n_pages, kids),
        3: form(b"0.5 g 0 0 595 842 re f", b"", b"/Group << /S /Transparency /I true >>"),
        4: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    }
    for n in range(n_pages):
        caption = CAPTION.replace(b"1:", b"%d:" % (n + 1)).replace(b"all harbours", b"harbour %c" % (98 + n))
        objects[50 + n] = stream(b"", caption + (b"/X Do " * times if n in slow else b""))
        objects[10 + n] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources "
            b"<< /Font << /F 4 0 R >> /XObject << /X 3 0 R >> >> >>" % (50 + n)
        )
    return file_bytes(objects)


def shadings(times: int = 2_000) -> bytes:
    """A page of so many radial shadings over all of it."""
    shading = b"<< /ShadingType 3 /ColorSpace /DeviceRGB /Coords [300 400 0 300 400 800] /Extend [true true] /Function "
    shading += b"<< /FunctionType 2 /Domain [0 1] /C0 [1 0 0] /C1 [0 0 1] /N 1.5 >> >>"
    return one_page(b"/S sh " * times, b"/Shading << /S %s >>" % shading)


def page_count(n_pages: int = 1_000_000) -> bytes:
    """A file that claims to have so many pages and has one."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Count %d /Kids [3 0 R] >>" % n_pages,
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F << /Type "
        b"/Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        4: stream(b"", CAPTION),
    }
    return file_bytes(objects)


def bookmark_flood(n_bookmarks: int = 20_000, n_pages: int = 1, title: bytes = b"Heights of tides at gauge") -> bytes:
    """A file with so many bookmarks, spread over its pages."""
    first = 10 + n_pages
    page = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F << /Type "
        b"/Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
    )
    kids = b" ".join(b"%d 0 R" % (10 + n) for n in range(n_pages))
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R /Outlines 5 0 R >>",
        2: b"<< /Type /Pages /Count %d /Kids [%s] >>" % (n_pages, kids),
        4: stream(b"", CAPTION),
        5: b"<< /Type /Outlines /First %d 0 R /Last %d 0 R >>" % (first, first + n_bookmarks - 1),
        **{10 + n: page for n in range(n_pages)},
    }
    for n in range(n_bookmarks):
        following = b"/Next %d 0 R" % (first + n + 1) if n + 1 < n_bookmarks else b""
        target = b"/Dest [%d 0 R /Fit]" % (10 + n % n_pages)
        objects[first + n] = b"<< /Title (%s %d) /Parent 5 0 R %s %s >>" % (title, n, following, target)
    return file_bytes(objects)
