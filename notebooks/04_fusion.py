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
# # 04 · Is one vector out of several layers better than the last layer?
#
# **Question.** Does a sparse, masked, weighted sum of layers, in one vector of the same size, retrieve better than the
# backbone, and better than a head of the same size on the final layer alone, trained with the same data?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`) and the backbone `page-text`. Everything is fitted to
# train and chosen on validation; test is read once, at the end. A run that is in `runs/04_fusion` is shown, not run again.
# Stores in `MINER_DIAG_STORES` (folders `all-hidden` and `all-verbatim`) are used if it is set.
#
# **Cost.** On two cores without a GPU: about 3 minutes and 1.4 GB on `sample` (hidden queries only); on `debian-docs-large`
# about 2 hours and 3 GB, with both forms of queries, five splits by document and five seeds.

# %%
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from miner_diag.fusion.__main__ import FusionOptions, run
from miner_diag.fusion.plots import (
    ablation_figure,
    folds_figure,
    sensitivity_figure,
    training_figure,
    weights_figure,
)

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
STORES = os.environ.get("MINER_DIAG_STORES")
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", "runs/figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
LARGE = DATA != "sample"
FORMS = ("hidden", "verbatim") if LARGE else ("hidden",)
FOLDS = (1, 2, 3, 4) if LARGE else ()
OUT = {form: Path(f"runs/04_fusion/{DATA}-{form}") for form in FORMS}
TITLE = {form: f"page-text on {DATA}, {form} queries" for form in FORMS}

# %% [markdown]
# ## Fit, choose, judge once
#
# The same as `python -m miner_diag.fusion --data … --queries … --folds … --out …` on the shell.

# %%
for form in FORMS:
    if not (OUT[form] / "run.json").exists():
        store = Path(STORES) / f"all-{form}" if STORES else None
        run(FusionOptions(data=DATA, queries=form, out=OUT[form], folds=FOLDS, embeddings=store))
    print(*pd.read_json(OUT[form] / "run.json", typ="series")["sentences"], sep="\n")

# %% [markdown]
# ## The ablation
#
# Differences to the backbone on test queries, with intervals over documents and seeds. Blue: heads on the final layer alone;
# a gain counts only beyond them. Filled: p < 0.05 after Holm's adjustment over the table.

# %%
for form in FORMS:
    ablation = pd.read_csv(OUT[form] / "ablation.csv")
    ablation.to_csv(FIGURES / f"04_ablation_{form}.csv", index=False, lineterminator="\n")
    test = pd.read_json(OUT[form] / "run.json", typ="series")
    title = f"{TITLE[form]}\n{test['n_queries']} test queries of {test['n_documents']} documents"
    ablation_figure(ablation, title=title).savefig(FIGURES / f"04_ablation_{form}.png", dpi=200)
    display(Image(FIGURES / f"04_ablation_{form}.png", width=800))
    columns = ["system", "ndcg_at_5", "low", "high", "difference_to_backbone", "p_holm", "verdict", "head_verdict"]
    display(ablation[ablation["split"] == "test"][columns].round(4))

# %% [markdown]
# ## What the fusion made of the layers
#
# Weight of each layer and the share of its neurons that is kept, for each seed; and how validation nDCG@5 rose and fell while
# it was trained.

# %%
for form in FORMS:
    weights, curves = pd.read_csv(OUT[form] / "weights.csv"), pd.read_csv(OUT[form] / "training.csv")
    head = pd.read_json(OUT[form] / "run.json", typ="series")["head"]
    drawn = {
        "weights": (weights, weights_figure(weights, title=TITLE[form])),
        "training": (curves, training_figure(curves, ("fusion", head), title=TITLE[form])),
    }
    for name, (table, figure) in drawn.items():
        table.to_csv(FIGURES / f"04_{name}_{form}.csv", index=False, lineterminator="\n")
        figure.savefig(FIGURES / f"04_{name}_{form}.png", dpi=200)
        display(Image(FIGURES / f"04_{name}_{form}.png", width=600))

# %% [markdown]
# ## How many layers, how many neurons, which threshold
#
# On validation, so these numbers are too good; what counts is how little or how much they differ.

# %%
for form in FORMS:
    sensitivity = pd.read_csv(OUT[form] / "sensitivity.csv")
    sensitivity.to_csv(FIGURES / f"04_sensitivity_{form}.csv", index=False, lineterminator="\n")
    figure = sensitivity_figure(sensitivity, title=TITLE[form])
    figure.savefig(FIGURES / f"04_sensitivity_{form}.png", dpi=200)
    display(Image(FIGURES / f"04_sensitivity_{form}.png", width=800))

# %% [markdown]
# ## Other documents
#
# The same on other splits by document, with probes and fusion fitted anew for each. Defaults were settled on the first
# split's train and validation documents, some of which are test documents of the others.

# %%
for form in FORMS:
    if (OUT[form] / "folds.csv").exists():
        folds = pd.read_csv(OUT[form] / "folds.csv")
        folds.to_csv(FIGURES / f"04_folds_{form}.csv", index=False, lineterminator="\n")
        pooled = pd.read_csv(OUT[form] / "pooled.csv")
        pooled.to_csv(FIGURES / f"04_pooled_{form}.csv", index=False, lineterminator="\n")
        folds_figure(folds, pooled, title=TITLE[form]).savefig(FIGURES / f"04_folds_{form}.png", dpi=200)
        display(Image(FIGURES / f"04_folds_{form}.png", width=600))

# %% [markdown]
# ## A shorter vector
#
# nDCG@5 of the first D, D/2, D/4 and D/8 coordinates (test, mean over seeds); `fusion_mrl` was trained for that.

# %%
for form in FORMS:
    widths = pd.read_csv(OUT[form] / "widths.csv")
    widths.to_csv(FIGURES / f"04_widths_{form}.csv", index=False, lineterminator="\n")
    display(widths.pivot(index="system", columns="width", values="ndcg_at_5").round(4))

# %% [markdown]
# **Answer.** The sentences that the command printed: the gain over the backbone, the gain beyond the head, whether both are
# established, and what an oracle that picks the best layer for each query would reach.
