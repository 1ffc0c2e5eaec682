"""What exact MaxSim costs: ``python -m tests.benchmarks.maxsim``.

Against two others over the same token vectors, in interleaved pairs on one thread: ``maxsim`` of sentence-transformers
(float32, chunks padded to their longest item) and the padded ``einsum`` of transformers' ColPali processor
(``score_retrieval``, 128 x 128 items at once). Time is the processor's, of the median pair; memory is how far the call
raises the process's peak resident size (VmHWM, Linux), in a process of its own. Ours is in float64.

It also says how far each is from a plain float64 loop, and whether its scores move with the size of its blocks.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from miner_diag.retrieval.maxsim import maxsim_scores
from miner_diag.retrieval.tokens import TokenVectors
from tests.benchmarks.extraction import resident

CASES = {
    "page text": {"queries": 100, "query_tokens": (5, 20), "pages": 300, "page_tokens": (20, 256), "width": 384},
    "page pictures": {
        "queries": 100,
        "query_tokens": (18, 30),
        "pages": 100,
        "page_tokens": (1030, 1030),
        "width": 128,
    },
    "one long page": {
        "queries": 50,
        "query_tokens": (5, 20),
        "pages": 300,
        "page_tokens": (20, 120),
        "width": 128,
        "longest": 6000,
    },
}
WAYS = ("ours", "sentence-transformers", "padded einsum")
TARGET_MEMORY_MB = 160
"""The documented workspace, four times 32 MiB, and the result."""


def draw(queries, query_tokens, pages, page_tokens, width, longest=None):
    """Unit token vectors in float32: a page has a direction of its own, a query is near one page's."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(pages, width))

    def items(numbers, between, n):
        lengths = rng.integers(between[0], between[1] + 1, n)
        if longest is not None and n == pages:
            lengths[n // 2] = longest
        vectors = [directions[i] + 2 * rng.normal(size=(size, width)) for i, size in zip(numbers, lengths, strict=True)]
        return TokenVectors.from_items(
            [(v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in vectors]
        )

    return items(rng.integers(0, pages, queries), query_tokens, queries), items(range(pages), page_tokens, pages)


def ready(way, queries, pages):
    """Return the call of one way; what it takes is made before, so that only scoring is measured."""
    import torch

    torch.set_num_threads(1)
    if way == "ours":
        return lambda **changes: maxsim_scores(queries, pages, "dot", **changes)
    sides = [[torch.from_numpy(side.item(i)) for i in range(len(side))] for side in (queries, pages)]
    if way == "sentence-transformers":
        from sentence_transformers.util import maxsim

        return lambda **changes: maxsim(*sides, **changes).numpy()
    from transformers import ColPaliProcessor

    return lambda **changes: ColPaliProcessor.score_retrieval(None, *sides, **changes).numpy()


BLOCKS = {
    "ours": ({"workspace": 1 << 16}, {"workspace": 5_000_000}),
    "sentence-transformers": ({"chunk_elements": 300_000}, {"chunk_elements": 7_000_000}),
    "padded einsum": ({"batch_size": 3}, {"batch_size": 17}),
}


def loop(queries, pages):
    """Score one pair after the other, in float64."""
    sides = [[side.item(i).astype(np.float64) for i in range(len(side))] for side in (queries, pages)]
    return np.array([[(q @ p.T).max(axis=1).sum() for p in sides[1]] for q in sides[0]])


def weigh(case, way):
    """Print by how many MB one call raises the peak; runs in a process of its own."""
    small, data = draw(2, (3, 3), 2, (3, 3), CASES[case]["width"]), draw(**CASES[case])
    ready(way, *small)()  # threads and libraries are there
    call = ready(way, *data)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    call()
    print(resident("VmHWM") - before)


def measure(case, pairs):
    """Return a row per way."""
    data = draw(**CASES[case])
    calls = {way: ready(way, *data) for way in WAYS}
    seconds = {way: [] for way in WAYS}
    for number in range(pairs + 1):
        for way in WAYS if number % 2 else WAYS[::-1]:
            start = time.process_time()
            calls[way]()
            if number:
                seconds[way].append(time.process_time() - start)
    right = loop(*data)
    rows = []
    for way in WAYS:
        scores = calls[way]()
        moved = [int((calls[way](**changes) != scores).sum()) for changes in BLOCKS[way]]
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.maxsim", "--weigh", case, way],
            check=True,
            capture_output=True,
            text=True,
        )
        rows.append(
            {
                "case": case,
                "way": way,
                "queries": len(data[0]),
                "pages": len(data[1]),
                "width": data[0].width,
                "page_tokens": len(data[1].vectors),
                "seconds": round(statistics.median(seconds[way]), 4),
                "ours_to_this": round(statistics.median(np.divide(seconds["ours"], seconds[way])), 3),
                "peak_memory_mb": round(float(done.stdout.split()[-1]), 1),
                "largest_difference_to_a_loop": f"{np.abs(scores - right).max():.1e}",
                "scores_that_move_with_block_size": max(moved),
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("figures/maxsim.csv"))
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs of each case")
    parser.add_argument("--weigh", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh:
        weigh(*options.weigh)
        return 0
    rows = [row for case in CASES for row in measure(case, options.pairs)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    ours = [row for row in rows if row["way"] == "ours"]
    held = all(
        row["peak_memory_mb"] <= TARGET_MEMORY_MB and not row["scores_that_move_with_block_size"] for row in ours
    )
    print(f"memory within {TARGET_MEMORY_MB} MB and scores without blocks in them: {'ok' if held else 'MISSED'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
