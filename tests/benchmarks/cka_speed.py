"""How fast, how small, how exact: ``python -m tests.benchmarks.cka_speed [--quick] [--rivals FOLDER] [--out FILE]``.

All times are of one run on one machine and compared as ratios, because machines differ and other work may share them:

- all pairs of L layers, float32 in: against ckatorch's ``cka_base`` over the same pairs (timed on ten, each pair costs
  the same) and, as a rate, against one large matrix product of the same dtype, taken in turn, median of the ratios.
  Operations are what the values need: ``n (n + 1) / 2`` entries times (sum of widths + pairs of layers), two each;
- the extra memory of that for several n, each in a process of its own: peak resident size (VmHWM, reset before the
  call; Linux only) less what was resident before;
- what intervals and the permutation null add;
- float32 against float64: the largest difference of any value;
- one streaming pass, layers against final, and its extra memory for several n.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from miner_diag.cka import StreamingCKA, cka_matrix

COLUMNS = ("measure", "n", "d", "layers", "dtype", "value", "unit", "target", "machine", "note")
TARGET_SPEEDUP, TARGET_RATE, TARGET_MEGABYTES = 100.0, 0.6, 512.0
FULL = {
    "n": 4000,
    "d": 1536,
    "layers": 29,
    "sizes": (2000, 4000, 8000),
    "stream": 100_000,
    "stream_sizes": (20_000, 100_000),
}
QUICK = {"n": 500, "d": 256, "layers": 7, "sizes": (250, 500), "stream": 5_000, "stream_sizes": (2_500, 5_000)}
STREAM_D, STREAM_LAYERS, STREAM_BATCH = 384, 7, 1024


def embeddings(n: int, layers: int, d: int) -> torch.Tensor:
    """Layers `[N, L, D]` float32 that drift away from the first, as those of a deep model do."""
    generator = torch.Generator().manual_seed(0)
    out = torch.empty(n, layers, d)
    out[:, 0] = torch.randn(n, d, generator=generator)
    for layer in range(1, layers):
        torch.randn(n, d, generator=generator, out=out[:, layer])
        out[:, layer].mul_(0.5).add_(out[:, layer - 1])
    return out


def values_only(x: torch.Tensor, **options: object) -> np.ndarray:
    """All pairs, no intervals, no null."""
    return cka_matrix(x, route="gram", intervals=False, null=False, **options).values


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def product_rate(dtype: torch.dtype, size: int) -> float:
    """Operations per second of one large square matrix product, over enough of them to last a while."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    torch.mm(a, b, out=out)
    return 2 * size**3 / (timed(lambda: [torch.mm(a, b, out=out) for _ in range(4)]) / 4)


def operations(n: int, layers: int, d: int) -> float:
    """Multiplications and additions that all pairs of layers need."""
    return 2 * (n * (n + 1) / 2) * (layers * d + layers * (layers + 1) / 2)


def high_water() -> float:
    """Peak resident size of this process in megabytes since it was last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def resident() -> float:
    """Resident size of this process in megabytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def extra_megabytes(what: str, n: int, d: int, layers: int) -> float:
    """Run one measurement in this process and return by how much it raised the peak."""
    # First a small one: what a library loads or keeps on its first call is no part of the algorithm's memory.
    small = embeddings(64, 2, 32)
    values_only(small)
    cka_matrix(small)
    _stream(small, 64)
    if what == "stream":
        # Batches are made as they are needed, as an extraction does; only one is in memory.
        before = _reset()
        generator = torch.Generator().manual_seed(0)
        stream = StreamingCKA()
        for start in range(0, n, STREAM_BATCH):
            batch = torch.randn(min(STREAM_BATCH, n - start), layers, d, generator=generator)
            stream.update(batch, batch[:, -1])
        stream.compute()
    else:
        x = embeddings(n, layers, d)
        before = _reset()
        if what == "values":
            values_only(x)
        else:
            cka_matrix(x, route="gram")
    return high_water() - before


def _reset() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def _stream(x: torch.Tensor, batch: int) -> StreamingCKA:
    stream = StreamingCKA()
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        stream.update(part, part[:, -1])
    return stream


def weigh(what: str, n: int, d: int, layers: int) -> float:
    """`extra_megabytes` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.cka_speed", "--weigh", json.dumps([what, n, d, layers])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def rival_seconds(x: torch.Tensor, pairs: int = 10) -> float | None:
    """Seconds of the fastest of ten pairs by ckatorch's unbiased cka_base, or None where it is not installed."""
    try:
        from ckatorch import cka_base
    except ImportError:
        return None
    layers = x.shape[1]
    seconds = []
    for pair in range(pairs):
        a, b = x[:, pair % layers].contiguous(), x[:, (pair * 7 + 3) % layers].contiguous()
        start = time.perf_counter()
        cka_base(a, b, unbiased=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(plan: dict[str, object], repeats: int) -> list[dict[str, object]]:
    """All rows of the table."""
    n, d, layers = int(plan["n"]), int(plan["d"]), int(plan["layers"])
    rows: list[dict[str, object]] = []

    def add(measure: str, value: object, unit: str, *, at: tuple = (n, d, layers), dtype="float32", target="", note=""):
        row = dict(zip(COLUMNS, (measure, *at, dtype, value, unit, target, "", note), strict=True))
        rows.append(row)
        print(
            f"{measure:44} n={at[0]:<7} {dtype:8} {value if isinstance(value, str) else f'{value:.4g}':>12} {unit:6} "
            f"{f'(target {target})' if target else ''} {note}",
            flush=True,
        )

    _measure_pairs(n, d, layers, repeats, add)
    for what, label in (("values", "extra memory, all pairs"), ("all", "extra memory, with intervals and null")):
        for size in plan["sizes"]:  # type: ignore[attr-defined]
            add(label, weigh(what, size, d, layers), "MB", at=(size, d, layers), target=f"<= {TARGET_MEGABYTES:.0f}")
    _measure_stream(plan, add)
    return rows


def _measure_pairs(n: int, d: int, layers: int, repeats: int, add: Callable[..., None]) -> None:
    x = embeddings(n, layers, d)
    found = {}
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        # In turn, so that whatever else the machine does meets both alike; the median of the ratios counts.
        size = min(4096, max(1024, n))
        values_only(x, dtype=dtype)
        rates, seconds = [product_rate(dtype, size)], []
        for _ in range(repeats):
            seconds.append(timed(lambda dtype=dtype: values_only(x, dtype=dtype)))
            rates.append(product_rate(dtype, size))
        own = [operations(n, layers, d) / s for s in seconds]
        ratios = [rate / np.mean(rates[turn : turn + 2]) for turn, rate in enumerate(own)]
        found[name] = values_only(x, dtype=dtype)
        add("all pairs", min(seconds), "s", dtype=name, note="fastest")
        add("rate", max(own) / 1e9, "Gop/s", dtype=name, note="fastest")
        add(f"rate of one {size} x {size} product", max(rates) / 1e9, "Gop/s", dtype=name, note="fastest")
        spread = f"median of {repeats} turns, {min(ratios):.2f} to {max(ratios):.2f}"
        add("rate / product", float(np.median(ratios)), "", dtype=name, target=f">= {TARGET_RATE}", note=spread)
        if dtype == torch.float32:
            float32_seconds = min(seconds)
    add(
        "float32 against float64, largest difference",
        float(np.abs(found["float32"] - found["float64"]).max()),
        "",
        dtype="both",
        target="<= 1e-5",
    )
    add("all pairs with intervals and null", timed(lambda: cka_matrix(x, route="gram")), "s")
    per_pair = rival_seconds(x)
    pairs = layers * (layers + 1) // 2
    if per_pair is None:
        add("ckatorch cka_base, all pairs", "not installed", "", dtype="float64")
    else:
        add("ckatorch cka_base, one pair", per_pair, "s", dtype="float64", note="fastest of ten")
        for count, label in (
            (pairs, "pairs of different and equal layers"),
            (layers**2, "all L x L, as a plain loop does"),
        ):
            add(
                f"ckatorch / ours, {count} pairs",
                per_pair * count / float32_seconds,
                "x",
                target=f">= {TARGET_SPEEDUP:.0f}",
                note=label,
            )


def _measure_stream(plan: dict[str, object], add: Callable[..., None]) -> None:
    n = int(plan["stream"])
    at = (n, STREAM_D, STREAM_LAYERS)
    x = embeddings(n, STREAM_LAYERS, STREAM_D)
    held: list[StreamingCKA] = []
    seconds = timed(lambda: held.append(_stream(x, STREAM_BATCH)))
    add("one streaming pass, layers to final", seconds, "s", at=at, dtype="float64")
    add("streaming, rows per second", n / seconds, "1/s", at=at, dtype="float64")
    done = 2.0 * n * STREAM_D**2 * (2 * STREAM_LAYERS + 1)
    add("streaming rate / product", done / seconds / product_rate(torch.float64, 2048), "", at=at, dtype="float64")
    whole = cka_matrix(x, x[:, -1], route="features", dtype="float64", intervals=False, null=False).values
    add(
        "streaming against whole, largest difference",
        float(np.abs(held[0].compute().values - whole).max()),
        "",
        at=at,
        dtype="float64",
        target="<= 1e-9",
    )
    for size in plan["stream_sizes"]:  # type: ignore[attr-defined]
        add(
            "extra memory, streaming",
            weigh("stream", size, STREAM_D, STREAM_LAYERS),
            "MB",
            at=(size, STREAM_D, STREAM_LAYERS),
            dtype="float64",
        )


def machine() -> str:
    """Processor, threads and libraries, in one cell."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5, help="turns of all pairs and one product")
    parser.add_argument(
        "--rivals", type=Path, help="folder with one directory per package, as cka_conformance takes it"
    )
    parser.add_argument("--out", type=Path, default=Path("figures/cka_speed.csv"))
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh:
        print(extra_megabytes(*json.loads(options.weigh)))
        return
    if options.rivals:
        sys.path.extend(str(folder.resolve()) for folder in sorted(options.rivals.iterdir()) if folder.is_dir())
    print(machine())
    rows = measure(QUICK if options.quick else FULL, options.repeats)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "machine": machine()} for row in rows)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
