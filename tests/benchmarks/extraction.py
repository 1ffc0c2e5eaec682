"""What keeping every layer costs: ``python -m tests.benchmarks.extraction``.

Time: extraction (all layers pooled in hooks) against the plain forward of the same backbone on the same batch
(last layer only), in interleaved pairs on one thread; the median of the pairs' ratios. Processor time of the
process, which other jobs on the machine disturb less than the clock on the wall. Target: at most 1.05.

Memory: how far one forward raises the process's peak resident size above what is resident before it, for
extraction, for the plain forward and for ``output_hidden_states=True`` pooled afterwards, at T = 512. Each is
measured in a process of its own, from the kernel's high-water mark (VmHWM), which is reset before the forward;
so Linux only.

Backbones: MiniLM, and a random 24-block encoder of its width, to show how the two ways grow with depth.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TARGET = 1.05
WAYS = ("extraction", "plain", "output_hidden_states")
TIMED = {"batch": 8, "tokens": 128}
WEIGHED = {"batch": 16, "tokens": 512}


def backbone_of(name, tokens):
    from miner_diag.backbones.checkpoint import Checkpoint
    from miner_diag.backbones.options import LoadOptions
    from miner_diag.backbones.page_text import minilm_folder
    from miner_diag.backbones.text_encoder import TextEncoder

    if name == "page-text":
        return TextEncoder(Checkpoint(minilm_folder(), name, LoadOptions(max_tokens=tokens, device="cpu")))
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(minilm_folder(), num_hidden_layers=24)
        AutoModel.from_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(minilm_folder()).save_pretrained(folder)
        options = LoadOptions(pooling="mean", max_tokens=tokens, device="cpu")
        return TextEncoder(Checkpoint(Path(folder), name, options))


def batch_of(backbone, batch, tokens):
    """Items that all fill the limit, but for one of half the length: the batch is padded, as in use."""
    from miner_diag.corpus.core import Query

    texts = ["page " * tokens] * (batch - 1) + ["page " * (tokens // 2)]
    return backbone.prepare([Query(str(n), text, "given", "d") for n, text in enumerate(texts)], "query")


def run(way, backbone, batch):
    """One forward, one way."""
    if way == "extraction":
        return backbone.embed(batch)
    if way == "plain":
        return backbone.plain_forward(batch)
    import torch

    from miner_diag.backbones.pooling import Pooler

    inputs, mask = backbone.collate(batch)
    with torch.inference_mode():
        states = backbone.model(**inputs, output_hidden_states=True).hidden_states
        return torch.stack([Pooler(mask, backbone.pooling)(state) for state in states], dim=1).numpy()


def measure_time(name, pairs):
    """Return the median seconds of each way and the median of the pairs' ratios to the plain forward."""
    import torch

    torch.set_num_threads(1)
    backbone = backbone_of(name, TIMED["tokens"])
    batch = batch_of(backbone, **TIMED)
    # output_hidden_states leaves hooks of the library's own on a model, so it has one to itself
    theirs = backbone_of(name, TIMED["tokens"])
    seconds = {way: [] for way in WAYS}
    for number in range(pairs + 1):
        ways = WAYS if number % 2 else ("plain", "extraction", "output_hidden_states")
        for way in ways:
            start = time.process_time()
            run(way, theirs if way == "output_hidden_states" else backbone, batch)
            if number:  # the first round warms up
                seconds[way].append(time.process_time() - start)
    ratios = {
        way: statistics.median(np.divide(seconds["extraction"], seconds[way]))
        for way in ("plain", "output_hidden_states")
    }
    return {way: statistics.median(times) for way, times in seconds.items()}, ratios, backbone


def resident(field):
    """Read VmRSS or VmHWM of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) * 1024 / 1e6


def weigh(name, way):
    """Print by how many MB one forward raises the peak; runs in a process of its own."""
    backbone = backbone_of(name, WEIGHED["tokens"])
    batch = batch_of(backbone, **WEIGHED)
    run(way, backbone, batch_of(backbone, batch=1, tokens=8))  # threads and libraries are there
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    run(way, backbone, batch)
    print(resident("VmHWM") - before)


def measure_memory(name):
    command = [sys.executable, "-m", "tests.benchmarks.extraction", "--weigh", name]
    peaks = {}
    for way in WAYS:
        done = subprocess.run([*command, way], check=True, capture_output=True, text=True)
        peaks[way] = float(done.stdout.split()[-1])
    return peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("figures/extraction.csv"))
    parser.add_argument("--pairs", type=int, default=30, help="timed pairs of each backbone")
    parser.add_argument("--weigh", nargs=2, metavar=("BACKBONE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh:
        weigh(*options.weigh)
        return 0
    rows, worst = [], 0.0
    for name in ("page-text", "random, 24 blocks"):
        times, ratios, backbone = measure_time(name, options.pairs)
        peaks = measure_memory(name)
        facts = {"backbone": name, "n_layers": backbone.n_layers, "width": backbone.width}
        for way, ratio in ratios.items():
            rows.append(
                {
                    "measure": "processor_seconds",
                    **facts,
                    **TIMED,
                    "against": way,
                    "extraction": round(times["extraction"], 4),
                    "other": round(times[way], 4),
                    "ratio": round(ratio, 4),
                }
            )
        for way in ("plain", "output_hidden_states"):
            rows.append(
                {
                    "measure": "peak_memory_mb",
                    **facts,
                    **WEIGHED,
                    "against": way,
                    "extraction": round(peaks["extraction"], 1),
                    "other": round(peaks[way], 1),
                    "ratio": round(peaks["extraction"] / peaks[way], 4),
                }
            )
        worst = max(worst, ratios["plain"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    verdict = "ok" if worst <= TARGET else "MISSED"
    print(f"extraction against the plain forward: {worst:.3f} at worst, target {TARGET}: {verdict}")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
