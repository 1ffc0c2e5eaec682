"""What one fit costs from the store: ``python -m tests.benchmarks.fit``.

Seconds and peak memory of one fit of each form of the fusion, from cached layers to the fused system: MINER's form
(layers chosen, its probes fitted, masks, hard negatives mined, u and b trained) and ours (probes of every layer and
both kinds, the selection, maps and weights trained), with the default options, one seed and one learning rate. Vectors
come from the store that all commands share; what is not in it is embedded first. Peak memory is the process's, with
libraries and the vectors of both splits; the forms run after each other, so the second one's cannot be below the first
one's.

Target: MINER's form in at most 60 s on two cores for debian-docs-large (3,800 pairs).
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

TARGET = 60.0


def fit_miner(splits):
    """Return seconds of the probes, with layers, types and masks, and of training u and b."""
    from miner_diag.fusion.miner_building import build_miner, fit_miner_parts
    from miner_diag.fusion.rows import MINER_TRAINING
    from miner_diag.fusion.training import FusionTrainOptions, train

    train_split, validation = splits.train.data, splits.validation.data
    start = time.perf_counter()
    parts = fit_miner_parts(train_split, validation)
    built = time.perf_counter()
    train(build_miner(parts), train_split, validation, FusionTrainOptions(**MINER_TRAINING))
    return built - start, time.perf_counter() - built


def fit_trained_maps(splits):
    """Return seconds of the probes, with the selection and its intervals, and of training maps and weights."""
    from miner_diag.fusion import fit_fusion
    from miner_diag.fusion.fold import choose_layers
    from miner_diag.probes.fitted_probes import fit_for_fusion
    from miner_diag.probes.study import StudyOptions
    from miner_diag.stats import StatisticsOptions

    start = time.perf_counter()
    probes, _ = choose_layers(fit_for_fusion(splits, StudyOptions(), StatisticsOptions(), progress=False), ())
    fitted = time.perf_counter()
    fit_fusion(splits.train.data, splits.validation.data, probes)
    return fitted - start, time.perf_counter() - fitted


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="debian-docs-large")
    parser.add_argument("--models", nargs="+", default=["page-text"])
    parser.add_argument("--store", type=Path, default=Path("runs/store"))
    parser.add_argument("--out", type=Path, default=Path("figures/fit.csv"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    import torch

    from miner_diag.backbones import LoadOptions
    from miner_diag.corpus.options import DataOptions
    from miner_diag.embeddings import StoreOptions, open_corpus
    from miner_diag.probes import fitting_splits
    from miner_diag.provenance import peak_memory_mb

    torch.set_num_threads(options.threads)
    store = StoreOptions(store=options.store)
    rows = []
    for model in options.models:
        splits = fitting_splits(
            open_corpus(LoadOptions(model), DataOptions(data=options.data), store), memory_gb=store.memory_gb
        )
        train_split = splits.train.data
        for form, fit in (("miner", fit_miner), ("trained_maps", fit_trained_maps)):
            before = peak_memory_mb()
            probes, fusion = fit(splits)
            rows.append(
                {
                    "data": options.data,
                    "model": model,
                    "form": form,
                    "layers": train_split.n_layers,
                    "width": train_split.width,
                    "training_pairs": len(train_split.pairs[0]),
                    "training_pages": len(train_split.pages),
                    "threads": options.threads,
                    "seconds_of_probes": round(probes, 1),
                    "seconds_of_fusion": round(fusion, 1),
                    "seconds": round(probes + fusion, 1),
                    "peak_memory_mb_before": round(before),
                    "peak_memory_mb": round(peak_memory_mb()),
                }
            )
            print("  ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    slowest = max(row["seconds"] for row in rows if row["form"] == "miner")
    print(f"miner, target {TARGET:.0f} s: {'ok' if slowest <= TARGET else 'MISSED'}")
    return 0 if slowest <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
