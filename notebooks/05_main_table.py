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
# **Question.** On the same test queries: each embedded backbone, a head on its final layer, its fusion in both forms, and late
# interaction over the same words. How much of the way to late interaction does one fused vector go, and at how many bytes per page?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`), the backbones named by `MINER_DIAG_MODELS` (default
# `page-text page-vision`), and the runs of `04_fusion` over them, which are run here if they are not there.
#
# **Cost.** After `04_fusion` less than a minute and 1 GB; without it, what `04_fusion` costs, which its first cell states.

# %%
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from miner_diag.backbones import LoadOptions
from miner_diag.backbones.registry import EMBEDDED
from miner_diag.corpus.benchmark_sets import benchmark_names, benchmark_sets
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions
from miner_diag.evaluation.leaderboard import leaderboard, leaderboard_figure
from miner_diag.evaluation.plots import cost_figure
from miner_diag.evaluation.published import read_published
from miner_diag.evaluation.run import EvaluationOptions
from miner_diag.evaluation.run import run as run_evaluation
from miner_diag.figures import save_figure
from miner_diag.fusion.run import FusionOptions
from miner_diag.fusion.run import run as run_fusion

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
LIMIT = int(os.environ.get("MINER_DIAG_LIMIT", 0)) or None
MODELS = os.environ.get("MINER_DIAG_MODELS", "page-text page-vision").split()
RUNS = Path(os.environ.get("MINER_DIAG_RUNS", "runs"))
STORE = StoreOptions(store=Path(os.environ.get("MINER_DIAG_STORE", RUNS / "store")))
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", RUNS / "figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
LARGE = DATA != "sample"
FORMS = ("hidden", "verbatim") if LARGE else ("hidden",)
FOLDS = (1, 2, 3, 4) if LARGE else ()
FIRST = MODELS[0]
LATE = [f"{model}-late" for model in MODELS if f"{model}-late" in EMBEDDED]
NAME = f"{LIMIT}-pages-of-{DATA}" if LIMIT else DATA
FUSION = {(form, model): RUNS / "fusion" / f"{NAME}-{form}-{model}" for form in FORMS for model in MODELS}
EVALUATION = {form: RUNS / "evaluation" / f"{NAME}-{form}-{'-'.join(MODELS)}" for form in FORMS}

# %% [markdown]
# ## Runs
#
# Those of `04_fusion`: the same as `python -m miner_diag.fusion …` for each backbone and one `python -m miner_diag.evaluation
# --systems …` over all of them and late interaction on the shell.

# %%
for (form, model), out in FUSION.items():
    if not (out / "run.json").exists():
        first = model == FIRST
        run_fusion(
            FusionOptions(
                load=LoadOptions(model),
                data=DataOptions(DATA, form, limit=LIMIT),
                store=STORE,
                systems=("all",) if first else ("default",),
                sensitivity=first,
                folds=FOLDS,
                out=out,
            )
        )
for form in FORMS:
    if not (EVALUATION[form] / "run.json").exists():
        fusions = [str(FUSION[form, model]) for model in MODELS]
        run_evaluation(
            EvaluationOptions(
                systems=(*fusions, *LATE),
                data=DataOptions(DATA, form, limit=LIMIT),
                store=STORE,
                stored_dtype="float16",
                out=EVALUATION[form],
            )
        )

# %% [markdown]
# ## One table
#
# Differences are to the row's own backbone; intervals and tests are over documents where there are at least six, and over
# seeds; trained systems are means over seeds. p by Holm within the families that the caption names.

# %%
table = pd.concat([pd.read_csv(out / "main_table.csv") for out in EVALUATION.values()], ignore_index=True)
table.to_csv(FIGURES / "05_main_table.csv", index=False, lineterminator="\n")
caption = pd.read_json(EVALUATION[FORMS[0]] / "run.json", typ="series")["caption"]
print(caption)
columns = ["queries", "model", "system", "ndcg_at_5", "low", "high", "difference_to_backbone", "difference_low"]
columns += ["difference_high", "p_value", "p_holm", "family", "verdict", "difference_to_head", "head_verdict"]
table[[*columns, "bytes_per_page"]].round(4)

# %% [markdown]
# ## What each system adds, and what a page costs
#
# Differences to the backbone, zoomed in on what has the backbone's size and then in full, and the bytes of a page of each system.

# %%
save_figure(cost_figure(table), FIGURES / "05_main_table.png")
display(Image(FIGURES / "05_main_table.png", width=600))

# %% [markdown]
# ## Five splits by document, together
#
# Everything is fitted anew for each split; the test documents of all of them, a query counting once. Not on `sample`.

# %%
if FOLDS:
    parts = [pd.read_csv(out / "folds_together.csv") for out in EVALUATION.values()]
    together = pd.concat(parts, ignore_index=True)
    together.to_csv(FIGURES / "05_folds_together.csv", index=False, lineterminator="\n")
    display(together[[column for column in columns if column in together]].round(4))

# %% [markdown]
# ## Beside what others published
#
# Averages over all public data sets of ViDoRe V1, V2 and V3: late interaction, dense, the three backbones of MINER's authors, `miner`
# and our form on them. Public runs and the authors' own numbers are *published, not run here*; ours need a GPU and the hub, and are
# empty where `python -m miner_diag.evaluation --data vidore-v2` was not run.

# %%
public = leaderboard(read_published(), [[one.manifest for one in benchmark_sets(name)] for name in benchmark_names()])
public.to_csv(FIGURES / "05_leaderboard.csv", index=False, lineterminator="\n")
save_figure(leaderboard_figure(public), FIGURES / "05_leaderboard.png")
display(Image(FIGURES / "05_leaderboard.png", width=600))
public[~public["kind"].isin(["late interaction", "dense"])].round(1)

# %% [markdown]
# **Answer.** The table's column of differences: what the fused vector adds at the same size, and what late interaction adds at
# some hundred times the size (float16 tokens against one float32 vector).
