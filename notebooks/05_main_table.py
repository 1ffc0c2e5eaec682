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
# **Question.** On the same test queries: the backbone, a head on its final layer, its fusion, and late interaction over the
# same text. How much of the way to late interaction does one fused vector go, and at how many bytes per page?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`), the runs of `04_fusion` (run here if they are not
# there), and `page-text-late`, which is run on the test split.
#
# **Cost.** On two cores without a GPU, after `04_fusion`: about 1 minute and 1 GB on `sample`; 30 minutes and 4 GB of memory
# on `debian-docs-large`, which also keeps 1.5 GB of token vectors for both forms of queries.

# %%
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from miner_diag.corpus import load_corpus
from miner_diag.fusion.__main__ import FusionOptions
from miner_diag.fusion.__main__ import run as run_fusion
from miner_diag.late.__main__ import LateOptions
from miner_diag.late.__main__ import run as run_late
from miner_diag.report import cost_figure, main_table

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", "runs/figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
FORMS = ("hidden", "verbatim") if DATA != "sample" else ("hidden",)

# %% [markdown]
# ## Runs
#
# The same as `python -m miner_diag.fusion …` and `python -m miner_diag.late --split test …` on the shell.

# %%
tables = []
for form in FORMS:
    fusion, late = Path(f"runs/04_fusion/{DATA}-{form}"), Path(f"runs/05_main_table/{DATA}-{form}-late")
    if not (fusion / "run.json").exists():
        run_fusion(FusionOptions(data=DATA, queries=form, out=fusion))
    if not (late / "run.json").exists():
        run_late(LateOptions(data=DATA, queries=form, split="test", stored_dtype="float16", out=late))
    tables.append(main_table(load_corpus(DATA, queries=form).split("test"), fusion, [late]))
table = pd.concat(tables, ignore_index=True)

# %% [markdown]
# ## One table
#
# Intervals and tests are over documents where there are at least six; trained systems are means over seeds.

# %%
table.to_csv(FIGURES / "05_main_table.csv", index=False, lineterminator="\n")
table.drop(columns=["kind", "n_queries", "n_documents"]).round(4)

# %% [markdown]
# ## nDCG@5 against bytes per page

# %%
figure = cost_figure(table, title=f"{DATA}, test")
figure.savefig(FIGURES / "05_main_table.png", dpi=200)
display(Image(FIGURES / "05_main_table.png", width=900))

# %% [markdown]
# **Answer.** The table's column of differences: what the fused vector adds at the same size, and what late interaction adds at
# some two hundred times the size (float16 tokens against one float32 vector).
