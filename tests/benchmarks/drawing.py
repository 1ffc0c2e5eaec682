"""What drawing in a process of its own costs: ``python -m tests.benchmarks.drawing``.

Every page of the shipped sample is drawn in this process and by the reading process, whose start and end count, in
interleaved pairs. Printed are the medians of the pairs' ratios: time on the wall, and processor time of both processes.
Target: at most 1.10.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

from miner_diag.corpus import manifest
from miner_diag.corpus.pdf import open_page, open_pdf, render_page
from miner_diag.corpus.pdf_reader import close_reader, draw_page

TARGET = 1.10
SAMPLE = sorted((Path(manifest.__file__).parent / "sample").glob("*.pdf"))


def draw_here(side):
    for path in SAMPLE:
        with open_pdf(path) as document:
            for number in range(1, len(document) + 1):
                with open_page(document, number) as page:
                    render_page(page, side)


def draw_apart(side, n_pages):
    for path in SAMPLE:
        for number in range(1, n_pages[path] + 1):
            draw_page(path, number, side)
    close_reader()


def seconds(function, *arguments):
    """Wall, user and system seconds of a call and of the processes that it ended."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    function(*arguments)
    wall = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    user, system = (
        sum(getattr(b, name) - getattr(a, name) for a, b in zip(before, after, strict=True))
        for name in ("ru_utime", "ru_stime")
    )
    return {"wall": wall, "user": user, "user and system": user + system}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024, help="pixels of a page's longer side")
    options = parser.parse_args()
    n_pages = {}
    for path in SAMPLE:
        with open_pdf(path) as document:
            n_pages[path] = len(document)
    draw_here(options.side)  # files and libraries are in memory
    pairs = []
    for number in range(options.pairs):
        calls = [(draw_here, options.side), (draw_apart, options.side, n_pages)]
        taken = {call[0]: seconds(*call) for call in (calls if number % 2 else reversed(calls))}
        pairs.append((taken[draw_here], taken[draw_apart]))
    for name in pairs[0][0]:
        ratios = [apart[name] / here[name] for here, apart in pairs]
        verdict = "ok" if statistics.median(ratios) <= TARGET else "MISSED"
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        here, apart = (statistics.median(pair[which][name] for pair in pairs) for which in (0, 1))
        print(f"{name}: {here:.2f} s here, {apart:.2f} s apart, {statistics.median(ratios):.3f} ({spread}): {verdict}")


if __name__ == "__main__":
    main()
