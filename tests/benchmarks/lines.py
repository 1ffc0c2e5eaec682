"""What reading the lines of a page costs: ``python -m tests.benchmarks.lines``.

The lines of every twentieth page of the shipped sample are read by the module that was trained, eight lines at once
and padded to the widest of them, by the folded one in torch and by ONNX Runtime, page by page in turn, on one thread. A
page's time is the least processor time of its repetitions. Targets: at most 0.60 and 0.40 of the first.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

import numpy as np
import torch

from miner_diag.backbones.page_vision.alphabet import decode
from miner_diag.backbones.page_vision.line_engines import FoldedReader, onnx_engine, torch_engine
from miner_diag.backbones.page_vision.line_reader import pad, read_lines
from miner_diag.backbones.page_vision.lines import LONGEST_SIDE, find_lines
from miner_diag.backbones.page_vision.trained import load_line_reader
from miner_diag.corpus import load_corpus

TARGETS = {"folded, torch": 0.60, "ONNX Runtime": 0.40}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    reader = load_line_reader()

    def by_trained_module(lines):
        texts = []
        for start in range(0, len(lines), 8):
            some = lines[start : start + 8]
            widest = max(line.shape[1] for line in some)
            with torch.inference_mode():
                best = reader(torch.from_numpy(pad(some, widest + widest % 2))).argmax(1).numpy()
            texts += [decode(frames[: line.shape[1] // 2]) for frames, line in zip(best, some, strict=True)]
        return texts

    folded = FoldedReader(reader)
    readers = {"trained module": by_trained_module}
    for name, engine in (("folded, torch", torch_engine(folded)), ("ONNX Runtime", onnx_engine(folded))):
        readers[name] = partial(read_lines, best_classes=engine)
    corpus = load_corpus("sample", queries="verbatim")
    pages = [page.page_id for page in corpus.pages][::20]
    seconds = dict.fromkeys(readers, 0.0)
    texts = {name: [] for name in readers}
    for page in pages:
        lines = [line.pixels for line in find_lines(corpus.render(page, LONGEST_SIDE))]
        least = dict.fromkeys(readers, np.inf)
        for repetition in range(options.repetitions):
            for name, read_all in readers.items():
                start = time.process_time()
                read = read_all(lines)
                least[name] = min(least[name], time.process_time() - start)
                if not repetition:
                    texts[name] += read
        for name in readers:
            seconds[name] += least[name]
    missed = False
    for name, total in seconds.items():
        ratio = total / seconds["trained module"]
        same = sum(a == b for a, b in zip(texts[name], texts["trained module"], strict=True))
        verdict = "" if name not in TARGETS else "ok" if ratio <= TARGETS[name] else "MISSED"
        missed |= verdict == "MISSED"
        print(
            f"{name:15} {1000 * total / len(pages):5.0f} ms a page, {ratio:.2f}; "
            f"{same} of {len(texts[name])} lines read the same  {verdict}"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
