"""``miner-diag <stage> …``: the same as ``python -m miner_diag.<stage> …``."""

from __future__ import annotations

import importlib
import sys

from miner_diag.stopping import stop_while_importing

STAGES = {
    "corpus": "fetch and check a data set, and show what is in it",
    "retrieval": "score a run file against qrels with nDCG@k",
    "backbones": "list the retrievers that are known, and what this machine can run",
    "embeddings": "run a retriever once and keep the pooled vector of every layer",
    "store": "list what is kept of earlier runs, how large it is, and delete it on request",
    "cka": "diagnose a retriever's layers: CKA, alignment ratio, nDCG@5",
    "probes": "fit probes: which kind each layer needs, which layers to keep",
    "fusion": "fit and save a fusion of layers in one vector of the same size, and the heads it is held against",
    "evaluation": "compare saved systems on any corpus: intervals, paired tests, main table",
    "late": "score a late-interaction retriever: MaxSim, tokens and bytes per page",
    "serving": "take a retriever home: an index of PDFs, exports for other tools, what serving costs",
}
"""Each stage with a command, in the order the data flows."""

SHORTCUTS = {
    "index": ("serving", "make an index of a folder of PDFs, or bring one up to date"),
    "search": ("serving", "ask an index a question"),
}
"""Commands of a stage that are called by their own name: the word, the stage, what it does."""


def main() -> None:
    """Hand the rest of the command line to the stage that the first word names."""
    stage = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if stage in STAGES:
        stop_while_importing()
        importlib.import_module(f"miner_diag.{stage}.__main__").main(sys.argv[2:])
        return
    if stage in SHORTCUTS:
        stop_while_importing()
        importlib.import_module(f"miner_diag.{SHORTCUTS[stage][0]}.__main__").main(sys.argv[1:])
        return
    known = "\n".join(f"  {name:<11} {does}" for name, does in STAGES.items())
    known += "\n\nwith your own documents:\n"
    known += "\n".join(f"  {name:<11} {does}" for name, (_, does) in SHORTCUTS.items())
    usage = f"usage: miner-diag STAGE [--help | options]\n\nstages:\n{known}"
    if stage not in ("-h", "--help"):
        sys.exit(f"error: unknown stage {stage!r}\n{usage}")
    print(usage)


if __name__ == "__main__":
    main()
