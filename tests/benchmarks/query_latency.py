"""What a fused query costs beside the backbone's own: ``python -m tests.benchmarks.query_latency``.

300 queries of the shipped sample, one at a time, from text to vector, tokenisation included, after a warm-up, on one
thread; all ways answer a query before the next one comes, in an order that turns. Time is the processor's. The ratio of
a query is that of its two times; the table has the median of these ratios, and the ratio of the two 95th percentiles.
Memory is how far one process that serves this way alone has come at its peak (VmHWM, Linux).

Ways: the backbone's plain vector (tokens, forward, mean, unit length, nothing of ours around it); the same through
`FusedRetriever`; a fusion in MINER's form over three layers and in ours over two (random numbers in the shapes of fits
to debian-docs, unless --run names a run); an inner layer; `SentenceTransformer.encode` of the same model, and of our
export for it. Target: a fused query costs at most 1.03 of the backbone's plain vector.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from tests.benchmarks.extraction import resident

TARGET = 1.03
PLAIN = "backbone, plain forward"
FUSED = ("miner", "trained_maps")
WAYS = (
    PLAIN,
    "backbone, FusedRetriever",
    *FUSED,
    "layer 4 alone",
    "SentenceTransformer.encode",
    "SentenceTransformer.encode, our module",
)
WARM_UP = 30


def drawn_system(form):
    """A fusion with the shapes of one that was fitted; what it computes does not matter to its cost."""
    from miner_diag.fusion import Fusion, MinerFusion

    rng, width = np.random.default_rng(0), 384
    matrix = partial(rng.normal, size=(1, width, width))
    if form == "miner":
        masks = rng.random((3, width)) < np.array([0.35, 0.74, 1.0])[:, None]
        kinds, maps = ["normalized_projection", "normalized_projection", "base"], [matrix(), matrix(), None]
        gates, vectors = rng.normal(size=(3, 1, width)), rng.normal(size=(3, width))
        return MinerFusion([4, 5, 6], kinds, gates, maps, masks, vectors, rng.normal(size=width), n_layers=7)
    masks = rng.random((2, width)) < 0.7
    kinds = ["normalized_projection"] * 2
    return Fusion([5, 6], kinds, [matrix(), matrix()], masks, np.ones(2), rng.normal(size=width), n_layers=7)


def ready(way, run):
    """Return what makes a query's text its vector, one way."""
    import torch

    from miner_diag.backbones import LoadOptions
    from miner_diag.corpus.core import Query
    from miner_diag.serving import FusedRetriever, load_sentence_transformer

    torch.set_num_threads(1)
    load = LoadOptions("page-text", device="cpu", reader="text-layer")
    if way == "SentenceTransformer.encode":
        from sentence_transformers import SentenceTransformer

        from miner_diag.backbones.page_text import minilm_folder

        model = SentenceTransformer(str(minilm_folder()), device="cpu")
        return lambda text: model.encode([text], show_progress_bar=False)[0]
    if way == "SentenceTransformer.encode, our module":
        module = load_sentence_transformer(fused("miner", load, run))
        return lambda text: module.encode([text], show_progress_bar=False)[0]
    if way in FUSED:
        retriever = fused(way, load, run)
    else:
        retriever = FusedRetriever.from_model(load, 4 if way == "layer 4 alone" else None)
    if way != PLAIN:
        return lambda text: retriever.encode_queries([text])[0]
    backbone = retriever.backbone

    def plain(text):
        vector = backbone.plain_forward(backbone.prepare([Query("q", text, "given", "")], "query"))[0]
        return vector / np.linalg.norm(vector)

    return plain


def fused(form, load, run):
    from miner_diag.serving import FusedRetriever

    if run is not None:
        return FusedRetriever.from_run(run, form, device="cpu")
    return FusedRetriever._load(load, lambda _: drawn_system(form), form)


def query_texts(n):
    from miner_diag.corpus import load_corpus

    texts = [query.text for query in load_corpus("sample").queries]
    return [texts[number % len(texts)] for number in range(n)]


def weigh(way, run):
    """Print the peak of a process that serves one way alone."""
    answer = ready(way, run)
    for number in range(20):
        answer(f"how is page {number} found")
    print(resident("VmHWM"))


def peak_memory(way, run):
    command = [sys.executable, "-m", "tests.benchmarks.query_latency", "--weigh", way]
    command += [] if run is None else ["--run", str(run)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(n_queries, run):
    """Return a row per way."""
    answers = {way: ready(way, run) for way in WAYS}
    texts = query_texts(n_queries + WARM_UP)
    seconds = {way: [] for way in WAYS}
    for number, text in enumerate(texts):
        turn = number % len(WAYS)
        for way in WAYS[turn:] + WAYS[:turn]:
            start = time.process_time()
            answers[way](text)
            if number >= WARM_UP:
                seconds[way].append(time.process_time() - start)
    same = np.abs(answers[PLAIN](texts[0]) - answers["SentenceTransformer.encode"](texts[0])).max()
    assert same < 1e-5, "the backbone and SentenceTransformer must give the same vector"
    rows = []
    for way in WAYS:
        row = {"way": way, "queries": n_queries}
        for against, name in ((PLAIN, "plain_forward"), ("SentenceTransformer.encode", "sentence_transformers")):
            row[f"p50_ratio_to_{name}"] = round(statistics.median(np.divide(seconds[way], seconds[against])), 3)
            p95 = np.percentile(seconds[way], 95) / np.percentile(seconds[against], 95)
            row[f"p95_ratio_to_{name}"] = round(float(p95), 3)
        row["p50_ms"] = round(1e3 * statistics.median(seconds[way]), 2)
        row["p95_ms"] = round(1e3 * float(np.percentile(seconds[way], 95)), 2)
        row["peak_memory_mb"] = round(peak_memory(way, run), 0)
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("figures/query_latency.csv"))
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--run", type=Path, help="a fusion run of page-text whose systems are measured")
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh:
        weigh(options.weigh, options.run)
        return 0
    rows = measure(options.queries, options.run)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    worst = max(row["p50_ratio_to_plain_forward"] for row in rows if row["way"] in FUSED)
    verdict = "ok" if worst <= TARGET else "MISSED"
    print(f"a fused query at most {TARGET} of the backbone's plain vector: {worst:.3f}, {verdict}")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
