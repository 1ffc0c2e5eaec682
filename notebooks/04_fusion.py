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
# backbone, and better than a head of the same size on the final layer alone, trained with the same data? And of two forms of that
# sum: what is `miner`, MINER's as its authors describe it, worth, how much of `trained_maps`, ours, is it, and what is each
# difference between them worth?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`) and the backbones named by `MINER_DIAG_MODELS`
# (default `page-text page-vision`). Everything is fitted to train and chosen on validation; test is read once, by the
# evaluation, which takes all backbones and their late-interaction partners together, so that this notebook and `05_main_table`
# show the same numbers. Here the first backbone is looked at closely. A run that is in `runs/` is shown, not run again.
#
# **Cost.** On two cores without a GPU: about 7 minutes and 2 GB on `sample` (hidden queries only), half of it for reading pages
# from pixels (`page-vision`); on `debian-docs-large`, five splits by document and five seeds, about 80 minutes and 3 GB a form of
# queries with `page-text` alone on one core that other jobs used too, the pass over the pages (35 minutes) and late interaction
# (30 minutes, 5 GB) besides.

# %%
import json
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from miner_diag.backbones import LoadOptions
from miner_diag.backbones.registry import EMBEDDED
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions
from miner_diag.evaluation.differences import differences_figure
from miner_diag.evaluation.plots import ablation_figure, folds_figure
from miner_diag.evaluation.run import EvaluationOptions
from miner_diag.evaluation.run import run as run_evaluation
from miner_diag.figures import save_figure
from miner_diag.fusion.plots import sensitivity_figure, training_figure, weights_figure
from miner_diag.fusion.run import FusionOptions
from miner_diag.fusion.run import run as run_fusion
from miner_diag.tables import read_csv, with_subject, write_csv

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
OF = {form: {"data": NAME, "queries": form, "split": "validation", "model": FIRST} for form in FORMS}

# %% [markdown]
# ## Fit and choose
#
# The same as `python -m miner_diag.fusion --data … --queries … --systems all --sensitivity --folds … --out …` on the shell; of
# further backbones only heads and both forms are trained.

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
    print(*pd.read_json(out / "run.json", typ="series")["sentences"], sep="\n")

# %% [markdown]
# ## Evaluate once
#
# The same as `python -m miner_diag.evaluation --systems … --data … --queries … --out …` on the shell.

# %%
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
    print(*pd.read_json(EVALUATION[form] / "run.json", typ="series")["sentences"], sep="\n")

# %% [markdown]
# ## The ablation
#
# Differences to the backbone on test queries, with intervals over documents (where there are at least six) and seeds, in groups whose
# order is the same in every figure. Blue: heads on the final layer alone; a gain counts only beyond them. Filled: p < 0.05 after
# Holm's adjustment over the family of comparisons that the table names.

# %%
for form in FORMS:
    comparison = pd.read_csv(EVALUATION[form] / "comparison.csv")
    of_first = comparison["model"].eq(FIRST) | (comparison["role"].eq("lexical") & comparison["backbone"].eq(FIRST))
    ablation = comparison[of_first]
    write_csv(FIGURES / f"04_ablation_{form}.csv", ablation)
    save_figure(ablation_figure(ablation), FIGURES / f"04_ablation_{form}.png")
    display(Image(FIGURES / f"04_ablation_{form}.png", width=600))
    columns = ["system", "ndcg_at_5", "low", "high", "difference_to_backbone", "p_value", "p_holm", "family", "verdict"]
    display(ablation[ablation["split"] == "test"][[*columns, "head_verdict"]].round(4))

# %% [markdown]
# ## What each difference between the two forms is worth
#
# `miner` once more for each difference, switched alone towards ours, beside heads, whitening without labels, and ours: differences
# to `miner` with intervals over documents and seeds, p by Holm over the whole table. Over all document splits together, where there
# are several.

# %%
for form in FORMS:
    differences = pd.read_csv(EVALUATION[form] / "differences.csv")
    write_csv(FIGURES / f"04_differences_{form}.csv", differences)
    save_figure(differences_figure(differences), FIGURES / f"04_differences_{form}.png")
    first = differences[differences["model"] == FIRST]
    display(Image(FIGURES / f"04_differences_{form}.png", width=600))
    columns = ["system", "ndcg_at_5", "difference_to_backbone", "difference_to_miner", "miner_difference_low"]
    display(first[[*columns, "miner_difference_high", "miner_p_holm"]].round(4))

# %% [markdown]
# ## Which layers, which kind, which neurons
#
# What normalized CKA selected and the alignment ratio typed for `miner`, and the share of each layer's neurons that its mask keeps.

# %%
for form in FORMS:
    selection = json.loads((FUSION[form, FIRST] / "selection.json").read_text())
    display(pd.DataFrame(selection["layers"]).round(3), pd.read_csv(FUSION[form, FIRST] / "masks.csv").round(3))

# %% [markdown]
# ## What the fusion made of the layers
#
# Weight of each layer of `miner` (the root mean square of its vector u) and the share of its neurons that is kept, for each seed;
# and how validation nDCG@5 rose and fell while both forms and the best head were trained, with the epoch that was kept.

# %%
for form in FORMS:
    out = FUSION[form, FIRST]
    for name, draw in {"weights": weights_figure, "training": training_figure}.items():
        table = with_subject(read_csv(out / f"{name}.csv"), **OF[form])
        write_csv(FIGURES / f"04_{name}_{form}.csv", table)
        save_figure(draw(table), FIGURES / f"04_{name}_{form}.png")
        display(Image(FIGURES / f"04_{name}_{form}.png", width=600))

# %% [markdown]
# ## How many layers, how many neurons, which threshold
#
# On validation, so these numbers are too good; what counts is how much they differ from the default (framed), in standard deviations of
# the same training over seeds.

# %%
for form in FORMS:
    sensitivity = with_subject(read_csv(FUSION[form, FIRST] / "sensitivity.csv"), **OF[form])
    write_csv(FIGURES / f"04_sensitivity_{form}.csv", sensitivity)
    save_figure(sensitivity_figure(sensitivity), FIGURES / f"04_sensitivity_{form}.png")
    display(Image(FIGURES / f"04_sensitivity_{form}.png", width=600))

# %% [markdown]
# ## Other documents
#
# The same on other splits by document, with probes and fusion fitted anew for each (not on `sample`). Defaults were settled on
# the first split's train and validation documents, some of which are test documents of the others.

# %%
for form in FORMS if FOLDS else ():
    folds = pd.read_csv(EVALUATION[form] / "folds.csv")
    together = pd.read_csv(EVALUATION[form] / "folds_together.csv")
    folds, together = (
        rows[rows["model"].eq(FIRST) | (rows["role"].eq("lexical") & rows["backbone"].eq(FIRST))]
        for rows in (folds, together)
    )
    write_csv(FIGURES / f"04_folds_{form}.csv", folds)
    write_csv(FIGURES / f"04_folds_together_{form}.csv", together)
    save_figure(folds_figure(folds, together), FIGURES / f"04_folds_{form}.png")
    display(Image(FIGURES / f"04_folds_{form}.png", width=600))

# %% [markdown]
# ## A shorter vector
#
# nDCG@5 of the first D, D/2, D/4 and D/8 coordinates (test, mean over seeds); `fusion_mrl` was trained for that.

# %%
for form in FORMS:
    widths = pd.read_csv(EVALUATION[form] / "widths.csv")
    widths = widths[widths["model"] == FIRST]
    widths.to_csv(FIGURES / f"04_widths_{form}.csv", index=False, lineterminator="\n")
    display(widths.pivot(index="system", columns="width", values="ndcg_at_5").round(4))

# %% [markdown]
# **Answer.** The sentences that the evaluation printed: the gain over the backbone, the gain beyond the head, whether both are
# established, and what an oracle that picks the best layer for each query would reach.
