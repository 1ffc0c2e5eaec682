# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · What does it cost to serve?
#
# **Question.** On a real engine: how many bytes, how long to build, to search and to encode, for the backbone, both forms of its fusion,
# shorter and compressed vectors, and late interaction? And what of nDCG@5 is left?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`), the first backbone named by `MINER_DIAG_MODELS` (default
# `page-text`), and the run of `04_fusion` over it with hidden queries, which is made here if it is not there. Needs the extra `serving`.
#
# **Cost.** After `04_fusion`, some 5 minutes and 2 GB on `sample` or `debian-docs-small`: an index for each row.

# %%
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from miner_diag.backbones import LoadOptions
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions
from miner_diag.figures import save_figure
from miner_diag.fusion.run import FusionOptions
from miner_diag.fusion.run import run as run_fusion
from miner_diag.serving.cost_plots import cost_of_serving_figure
from miner_diag.serving.run import BenchOptions
from miner_diag.serving.run import run as run_serving

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
LIMIT = int(os.environ.get("MINER_DIAG_LIMIT", 0)) or None
MODEL = os.environ.get("MINER_DIAG_MODELS", "page-text").split()[0]
RUNS = Path(os.environ.get("MINER_DIAG_RUNS", "runs"))
STORE = StoreOptions(store=Path(os.environ.get("MINER_DIAG_STORE", RUNS / "store")))
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", RUNS / "figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
NAME = f"{LIMIT}-pages-of-{DATA}" if LIMIT else DATA
FUSION = RUNS / "fusion" / f"{NAME}-hidden-{MODEL}"
COST = RUNS / "cost" / f"{NAME}-hidden-{MODEL}"
SIZES = (1_000,) if LIMIT else (10_000,)  # 100,000 as well takes minutes for each of its indexes

# %% [markdown]
# ## Runs
#
# The same as `python -m miner_diag.serving bench --run … --data … --sizes …` on the shell. Before anything is timed, the engine must say
# that all vectors are in its graph.

# %%
data = DataOptions(DATA, "hidden", limit=LIMIT)
if not (FUSION / "run.json").exists():
    run_fusion(FusionOptions(load=LoadOptions(MODEL), data=data, store=STORE, systems=("default",), out=FUSION))
if not (COST / "run.json").exists():
    late = "page-text-late" if MODEL == "page-text" else None
    run_serving(
        BenchOptions(run=FUSION, data=data, store=STORE, late=late, sizes=SIZES, n_queries=100, n_pages=20, out=COST)
    )

# %% [markdown]
# ## One table
#
# `_to_backbone` columns are divided by the backbone's whole float32 vectors over as many pages, searched in the same way.
# `bytes_per_page_raw` counts the vectors that are compared first; those of int8 and binary are rescored by whole ones, which are part of
# `bytes_on_disk`. `qps` is search alone, `qps_end_to_end` from a text to its pages: the paper does not say which one it means.
# Rows that are labelled synthetic are for times and sizes: their pages are jittered copies, the ten best of them near ties of one page, so
# that their recall says nothing of real pages.

# %%
table = pd.read_csv(COST / "cost.csv")
table.to_csv(FIGURES / "07_cost.csv", index=False, lineterminator="\n")
columns = ["system", "representation", "dtype", "search", "n_pages", "bytes_per_page_raw", "bytes_on_disk"]
columns += [
    "search_p50_ms",
    "qps",
    "qps_end_to_end",
    "recall_at_10_vs_exact",
    "ndcg_at_5",
    "encode_query_p50_ms",
    "label",
]
table[columns].round(4)

# %% [markdown]
# ## nDCG@5 against bytes per page, and against queries per second

# %%
title = f"{MODEL}, {NAME}, test"
for name, against in {"bytes": "bytes_per_page_raw", "speed": "qps"}.items():
    figure = cost_of_serving_figure(table, against, title=title)
    save_figure(figure, FIGURES / f"07_cost_{name}.png")
    display(Image(FIGURES / f"07_cost_{name}.png", width=760))

# %% [markdown]
# **Answer.** A fused vector has the backbone's size, and its query is encoded in `encode_query_to_backbone` of the time. Late interaction
# takes `bytes_per_page_to_backbone` times the room. The rows of the paper, of other data and other backbones, are *published, not run
# here*: 15.41, 14.36 and 2.75 queries a second, 22.24, 22.24 and 943.38 MB.
