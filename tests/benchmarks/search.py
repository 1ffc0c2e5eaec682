"""What exact search costs: ``python -m tests.benchmarks.search``.

1,000 queries over 100,000 pages of 384 float32 coordinates, the first 100 pages of each by cosine. Against one large
matrix product of the same arrays in float32 and in float64, which ranks nothing, and ``semantic_search`` of
sentence-transformers, in interleaved rounds on one thread. Time is the processor's, of the median round; memory is how
far the call raises the process's peak resident size (VmHWM, Linux), in a process of its own. Target: half the rate of
the float32 product, and memory that does not grow with the number of pages.

One query over the same pages, prepared once, against a product of the page matrix and the query's vector, which ranks
nothing, and against `top_k`, which prepares the pages at each call: 30 queries, one at a time, k = 10, interleaved.
Target: at most 1.25 times the product.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from miner_diag.retrieval import PreparedPages, top_k
from tests.benchmarks.extraction import resident

SIZES = {"queries": 1000, "pages": 100_000, "width": 384}
K = 100
WAYS = ("ours", "one product, float32", "one product, float64", "sentence-transformers")
TARGET_RATE = 0.5
TARGET_MEMORY_MB = 64
TARGET_ONE_QUERY = 1.25


def draw(queries, pages, width):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(n, width)).astype(np.float32) for n in (queries, pages))


def ready(way, queries, pages):
    """Return the call of one way; what it takes is made before."""
    if way == "ours":
        return lambda: top_k(queries, pages, K).pages
    if way == "sentence-transformers":
        import torch
        from sentence_transformers.util import semantic_search

        torch.set_num_threads(1)
        sides = [torch.from_numpy(side) for side in (queries, pages)]
        return lambda: np.array([[hit["corpus_id"] for hit in hits] for hits in semantic_search(*sides, top_k=K)])
    dtype = np.float32 if way.endswith("float32") else np.float64
    left, right = (side.astype(dtype) for side in (queries, pages))
    out = np.empty((len(left), len(right)), dtype=dtype)
    return lambda: np.matmul(left, right.T, out=out)


def weigh(pages):
    """Print by how many MB one search raises the peak; runs in a process of its own."""
    small, data = draw(50, 5000, SIZES["width"]), draw(**SIZES | {"pages": pages})
    ready("ours", *small)()  # threads and libraries are there
    call = ready("ours", *data)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    call()
    print(resident("VmHWM") - before)


def peak_memory(pages):
    """Return by how many MB a search over so many pages raises the peak."""
    command = [sys.executable, "-m", "tests.benchmarks.search", "--weigh", str(pages)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(rounds):
    """Return a row per way."""
    data = draw(**SIZES)
    calls = {way: ready(way, *data) for way in WAYS}
    found = {way: call() for way, call in calls.items()}
    seconds = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 else WAYS[::-1]:
            start = time.process_time()
            calls[way]()
            seconds[way].append(time.process_time() - start)
    floating = seconds["one product, float32"]
    rows = []
    for way in WAYS:
        same = None if way.startswith("one product") else float((found[way] == found["ours"]).all(axis=1).mean())
        rows.append(
            {
                "way": way,
                "version": metadata.version(way) if way == "sentence-transformers" else "",
                **SIZES,
                "seconds": round(statistics.median(seconds[way]), 3),
                "rate_of_one_product": round(statistics.median(np.divide(floating, seconds[way])), 3),
                "peak_memory_mb": round(peak_memory(SIZES["pages"]), 1) if way == "ours" else "",
                "queries_with_the_same_pages_in_the_same_order": same if same is not None else "",
            }
        )
    return rows


def measure_one_query():
    """Return a row per way of asking one query: the median of its time, and of its ratio to the product."""
    queries, pages = draw(30, SIZES["pages"], SIZES["width"])
    prepared = PreparedPages(pages)
    ways = {
        "one query, prepared pages": lambda query: prepared.top_k(query[None], 10),
        "one query, matrix times vector, float32": lambda query: pages @ query,
        "one query, top_k": lambda query: top_k(query[None], pages, 10),
    }
    seconds = {way: [] for way in ways}
    for number, query in enumerate(queries):
        for way in list(ways) if number % 2 else list(ways)[::-1]:
            start = time.process_time()
            ways[way](query)
            seconds[way].append(time.process_time() - start)
    product = seconds["one query, matrix times vector, float32"]
    return [
        {
            "way": way,
            **SIZES,
            "queries": 1,
            "seconds": round(statistics.median(seconds[way]), 4),
            "rate_of_one_product": round(statistics.median(np.divide(product, seconds[way])), 3),
        }
        for way in ways
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("figures/search.csv"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weigh", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh:
        weigh(options.weigh)
        return 0
    rows = [*measure(options.rounds), *(one := measure_one_query())]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    ours, fifth = rows[0], peak_memory(SIZES["pages"] // 5)
    print(f"over a fifth of the pages it takes {fifth:.1f} MB")
    held = ours["rate_of_one_product"] >= TARGET_RATE and ours["peak_memory_mb"] <= TARGET_MEMORY_MB
    print(f"rate at least {TARGET_RATE}, memory within {TARGET_MEMORY_MB} MB: {'ok' if held else 'MISSED'}")
    ratio = 1 / one[0]["rate_of_one_product"]
    quick = ratio <= TARGET_ONE_QUERY
    verdict = "ok" if quick else "MISSED"
    print(f"one query over prepared pages at most {TARGET_ONE_QUERY} times a product: {ratio:.2f}, {verdict}")
    return 0 if held and quick else 1


if __name__ == "__main__":
    sys.exit(main())
