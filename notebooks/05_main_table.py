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
# # 05 · What does a page cost, and what does it bring?
#
# **Question.** On the same test queries: each embedded backbone, a head on its final layer, its fusion, and late interaction
# over the same words. How much of the way to late interaction does one fused vector go, and at how many bytes per page?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`), the runs of `04_fusion` (run here if they are not
# there), the fusion of `page-vision`, which reads the page's pixels, and `page-text-late` and `page-vision-late` on the test
# split. `MINER_DIAG_MODELS` (default `page-text page-vision`) says which backbones; `page-vision` reads pages at some 0.4 s
# of one core each.
#
# **Cost.** On two cores without a GPU, after `04_fusion`: about 3 minutes and 2 GB of memory on `sample`, most of it for reading
# pages from pixels; on `debian-docs-large` 15 minutes with `page-text` alone, some 3 hours more with `page-vision` (the sum of
# its parts, with five splits by document), and 1.1 GB of token vectors for each.

# %%
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from miner_diag.corpus import load_corpus
from miner_diag.fusion.__main__ import FusionOptions
from miner_diag.fusion.__main__ import run as run_fusion
from miner_diag.fusion.result import AblationOptions
from miner_diag.late.__main__ import LateOptions
from miner_diag.late.__main__ import run as run_late
from miner_diag.report import cost_figure, main_table

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", "runs/figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
MODELS = os.environ.get("MINER_DIAG_MODELS", "page-text page-vision").split()
LARGE = DATA != "sample"
FORMS = ("hidden", "verbatim") if LARGE else ("hidden",)
FOLDS = (1, 2, 3, 4) if LARGE else ()
RUNS = Path("runs/05_main_table")

# %% [markdown]
# ## Runs
#
# The same as `python -m miner_diag.fusion …` and `python -m miner_diag.late --split test …` on the shell. Of backbones other
# than `page-text` only what the table shows is trained: heads and fusion.

# %%
tables, pooled = [], []
for form in FORMS:
    fusions, late = [], []
    for model in MODELS:
        whole = model == "page-text"  # the run of 04_fusion
        fusions.append(Path(f"runs/04_fusion/{DATA}-{form}") if whole else RUNS / f"{DATA}-{form}-{model}")
        if not (fusions[-1] / "run.json").exists():
            rows = AblationOptions(systems=() if whole else ("fusion",))
            run_fusion(
                FusionOptions(
                    model=model, data=DATA, queries=form, out=fusions[-1], ablation=rows, sensitivity=whole, folds=FOLDS
                )
            )
        if FOLDS:
            pooled.append(pd.read_csv(fusions[-1] / "pooled.csv").assign(queries=form, model=model))
        late.append(RUNS / f"{DATA}-{form}-{model}-late")
        if not (late[-1] / "run.json").exists():
            run_late(
                LateOptions(
                    model=f"{model}-late", data=DATA, queries=form, split="test", stored_dtype="float16", out=late[-1]
                )
            )
    tables.append(main_table(load_corpus(DATA, queries=form).split("test"), fusions, late))
table = pd.concat(tables, ignore_index=True)

# %% [markdown]
# ## One table
#
# Differences are to the row's own backbone; intervals and tests are over documents where there are at least six; p by Holm
# over the rows; trained systems are means over seeds.

# %%
table.to_csv(FIGURES / "05_main_table.csv", index=False, lineterminator="\n")
table.drop(columns=["model", "kind", "n_queries", "n_documents"]).round(4)

# %% [markdown]
# ## nDCG@5 against bytes per page

# %%
figure = cost_figure(table, title=f"{DATA}, test")
figure.savefig(FIGURES / "05_main_table.png", dpi=200)
display(Image(FIGURES / "05_main_table.png", width=900))

# %% [markdown]
# ## Five splits by document, together
#
# Everything is fitted anew for each split; the test documents of all of them, a query counting once. Not on `sample`.

# %%
if FOLDS:
    together = pd.concat(pooled, ignore_index=True).set_index(["queries", "model", "system"])
    together.to_csv(FIGURES / "05_pooled.csv", lineterminator="\n")
    display(together.drop(columns=["verdict", "head_verdict"]).round(4))

# %% [markdown]
# **Answer.** The table's column of differences: what the fused vector adds at the same size, and what late interaction adds at
# some hundred times the size (float16 tokens against one float32 vector).
