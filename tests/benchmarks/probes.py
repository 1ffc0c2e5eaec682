"""What cached vectors save: ``python -m tests.benchmarks.probes``.

Time of training all probes (every layer, both kinds, with the validation after each epoch) from the store, against the
same training with the backbone run again in every step: the mean time of the forwards of 20 steps (tokenising left out,
in its favour) times the number of steps that the training took. The 20 steps are of 64 pairs each, and forwards cost in
proportion to pairs, so their time is multiplied by batch size / 64. Vectors are those of the store that all commands
share; what is not in it is embedded first.

Targets: training on debian-docs-large in at most 180 s on two cores. Memory is tested in tests/probes/test_memory.py.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np

TARGET = 180.0
STEPS, PAIRS = 20, 64


def seconds_of_embedding(backbone, corpus, pairs, batch_size, rng):
    """Return the mean seconds of the forwards of one training step, queries and pages, in batches of the budget."""
    from miner_diag.embeddings.batching import plan_batches
    from miner_diag.embeddings.options import TOKEN_BUDGET

    taken = []
    for _ in range(STEPS):
        rows = rng.choice(len(pairs[0]), size=min(PAIRS, len(pairs[0])), replace=False)
        sides = [
            backbone.prepare([items[row] for row in chosen], side)
            for items, chosen, side in (
                (corpus.queries, pairs[0][rows], "query"),
                (corpus.pages, pairs[1][rows], "page"),
            )
        ]
        start = time.perf_counter()
        for encoded in sides:
            for batch in plan_batches([item.n_tokens for item in encoded], TOKEN_BUDGET):
                backbone.embed([encoded[number] for number in batch])
        taken.append(time.perf_counter() - start)
        print(f"  forwards of step {len(taken)}: {taken[-1]:.1f} s", flush=True)
    return float(np.mean(taken)) * batch_size / min(PAIRS, len(pairs[0]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="debian-docs-large")
    parser.add_argument("--store", type=Path, default=Path("runs/store"))
    parser.add_argument("--out", type=Path, default=Path("figures/03_probe_speed.csv"))
    parser.add_argument("--threads", type=int, default=2, help="of both ways; fewer where other jobs are running")
    options = parser.parse_args()

    import torch

    from miner_diag.backbones import LoadOptions
    from miner_diag.corpus.options import DataOptions
    from miner_diag.embeddings import StoreOptions, open_corpus
    from miner_diag.probes import ProbeTrainOptions, fit_probes, fitting_splits

    torch.set_num_threads(options.threads)
    store = StoreOptions(store=options.store)
    embedded = open_corpus(LoadOptions(), DataOptions(data=options.data), store)
    splits = fitting_splits(embedded, memory_gb=store.memory_gb)
    train = splits.train.data
    training = ProbeTrainOptions()
    start = time.perf_counter()
    fitted = fit_probes(train, splits.validation.data, training, progress=True)
    stored = time.perf_counter() - start
    print(f"from the store: {stored:.1f} s, {fitted.n_steps} steps, {len(fitted.loss)} epochs", flush=True)
    pairs = train.pairs
    step = seconds_of_embedding(
        embedded.backbone, splits.train.corpus, pairs, training.batch_size, np.random.default_rng(0)
    )
    again = stored + step * fitted.n_steps
    row = {
        "data": options.data,
        "layers": train.n_layers,
        "width": train.width,
        "training_pairs": len(pairs[0]),
        "epochs": len(fitted.loss),
        "steps": fitted.n_steps,
        "threads": options.threads,
        "seconds_from_store": round(stored, 1),
        "seconds_of_forwards_per_step": round(step, 2),
        "seconds_with_backbone_estimated": round(again),
        "ratio": round(again / stored, 1),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    print("  ".join(f"{key}={value}" for key, value in row.items()))
    print(f"target {TARGET:.0f} s: {'ok' if stored <= TARGET else 'MISSED'}")
    return 0 if stored <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
