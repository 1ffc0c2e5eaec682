"""What drawing in a process of its own costs: ``python -m tests.benchmarks.drawing``.

Every page of the shipped sample is drawn in this process and by the reading process, document by document in turn. A
page's time is the least of its repetitions on the clock on the wall, which other jobs on the machine disturb least; the
start and the end of the reading process count too, once. Target: at most 1.10.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from miner_diag.corpus import manifest
from miner_diag.corpus.limits import DEFAULT_LIMITS
from miner_diag.corpus.pdf import open_page, open_pdf, render_page
from miner_diag.corpus.pdf_reader import close_reader, draw_page, reader

TARGET = 1.10
SAMPLE = sorted((Path(manifest.__file__).parent / "sample").glob("*.pdf"))


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def draw_here(document, number, side):
    with open_page(document, number) as page:
        render_page(page, side)


def start_and_end():
    reader(DEFAULT_LIMITS).ask("nothing", 1.0, do="close")
    close_reader()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024, help="pixels of a page's longer side")
    options = parser.parse_args()
    around = min(seconds(start_and_end) for _ in range(options.repetitions))
    here, apart = {}, {}
    for path in SAMPLE:
        for repetition in range(options.repetitions):
            with open_pdf(path) as document:
                numbers = range(1, len(document) + 1)
                calls = [
                    (here, lambda number, document=document: draw_here(document, number, options.side)),
                    (apart, lambda number, path=path: draw_page(path, number, options.side)),
                ]
                for times, draw in calls if repetition % 2 else reversed(calls):
                    for number in numbers:
                        taken = seconds(draw, number)
                        times[path, number] = min(taken, times.get((path, number), taken))
    drawn_here, drawn_apart = sum(here.values()), sum(apart.values())
    ratio = (around + drawn_apart) / drawn_here
    print(f"{len(here)} pages of {options.side} pixels: {drawn_here:.2f} s here, {drawn_apart:.2f} s apart")
    print(f"{around:.2f} s to start and end; {ratio:.3f} in all: {'ok' if ratio <= TARGET else 'MISSED'}")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
