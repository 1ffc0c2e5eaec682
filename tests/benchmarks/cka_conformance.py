"""Does a CKA say what is true? ``python -m tests.benchmarks.cka_conformance [--rivals FOLDER] [--out FILE]``.

Planted cases with known answers (`cka_cases`) are run over this package and every other that is installed
(`cka_rivals`); one table says case, truth, value and verdict:

- ``right``: within the case's tolerance, or an error with a message where CKA does not exist;
- ``near``: within 0.02, as sampling over batches may be;
- ``WRONG``: a number further off, or any number where CKA does not exist;
- ``NaN``, ``error``: no number where there is one (an error at least does not mislead).

``FOLDER`` holds one directory per package, as ``pip install --no-deps --target FOLDER/NAME NAME`` makes them, so that
no rival changes the environment. What does not import is listed as ``not installed``, with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import math
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.cka_cases import ERROR, Case, cases
from tests.benchmarks.cka_rivals import IMPLEMENTATIONS, Implementation

COLUMNS = ("case", "implementation", "version", "truth", "value", "verdict", "message")
NEAR = 0.02


def judge(case: Case, implementation: Implementation) -> dict[str, object]:
    """Run one case; value, verdict and message."""
    value, message = math.nan, ""
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            value = implementation.call(case.x, case.y, case.batch)
        failed = False
    except Exception as error:
        failed, message = True, " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return {"value": "" if failed else value, "verdict": verdict(case, value, failed), "message": message}


def verdict(case: Case, value: float, failed: bool) -> str:
    """One word for a value, or for a failure."""
    if case.truth == ERROR:
        return "right" if failed else "NaN" if math.isnan(value) else "WRONG"
    if failed:
        return "error"
    if math.isnan(value):
        return "NaN"
    off = abs(value - float(case.truth))
    return "right" if off <= case.tolerance else "near" if off <= NEAR else "WRONG"


def run(implementations: Iterable[Implementation] = IMPLEMENTATIONS) -> list[dict[str, object]]:
    """Rows of the table, all cases of one implementation after another."""
    planted = list(cases())
    rows = []
    for implementation in implementations:
        version, reason = implementation.version()
        for case in planted:
            row: dict[str, object] = {"case": case.name, "implementation": implementation.name, "truth": case.truth}
            if version is None:
                row |= {"version": "", "value": "", "verdict": "not installed", "message": reason}
            else:
                row |= {"version": version, **judge(case, implementation)}
            rows.append(row)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Cases down, implementations across; a value stands where the verdict alone would hide it."""
    names = list(dict.fromkeys(str(row["implementation"]) for row in rows))
    lines = []
    for number, name in enumerate(names):
        first = next(row for row in rows if row["implementation"] == name)
        counts: dict[str, int] = {}
        for row in rows:
            if row["implementation"] == name:
                counts[str(row["verdict"])] = counts.get(str(row["verdict"]), 0) + 1
        summary = ", ".join(f"{count} {word}" for word, count in sorted(counts.items(), key=lambda item: -item[1]))
        note = f" ({first['message']})" if first["verdict"] == "not installed" else ""
        lines.append(f"[{number}] {name} {first['version']}: {summary}{note}")
    shown = [
        n
        for n, name in enumerate(names)
        if any(row["verdict"] != "not installed" for row in rows if row["implementation"] == name)
    ]
    lines += ["", f"{'case':38}{'truth':>9}" + "".join(f"{f'[{n}]':>9}" for n in shown)]
    for case in dict.fromkeys(str(row["case"]) for row in rows):
        cells = {row["implementation"]: row for row in rows if row["case"] == case}
        truth = next(iter(cells.values()))["truth"]
        lines.append(
            f"{case:38}{truth if isinstance(truth, str) else f'{truth:.4f}':>9}"
            + "".join(f"{_cell(cells[names[n]]):>9}" for n in shown)
        )
    return "\n".join(lines)


def _cell(row: dict[str, object]) -> str:
    value = row["value"]
    if row["verdict"] == "right":
        return "right"
    if not isinstance(value, float) or math.isnan(value):
        return str(row["verdict"])
    mark = "!" if row["verdict"] == "WRONG" else ""
    return f"{mark}{value:.4f}" if abs(value) < 100 else f"{mark}{value:.1e}"


def main() -> None:
    """Run, print, write; exit with 1 if this package is wrong anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", type=Path, help="folder with one directory per package")
    parser.add_argument("--out", type=Path, default=Path("figures/cka_conformance.csv"))
    options = parser.parse_args()
    if options.rivals:
        if not options.rivals.is_dir():
            parser.error(f"--rivals must be a folder with one directory per package, got {options.rivals}")
        sys.path.extend(str(folder.resolve()) for folder in sorted(options.rivals.iterdir()) if folder.is_dir())
    rows = run()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    print(f"\nwritten to {options.out}")
    ours = {implementation.name for implementation in IMPLEMENTATIONS if implementation.ours}
    if any(row["implementation"] in ours and row["verdict"] != "right" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
