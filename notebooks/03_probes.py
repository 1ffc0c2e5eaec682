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
# # 03 · Which probe does each layer need, and could the alignment ratio have told?
#
# **Question.** Is a weight per neuron (base probe) enough to make a layer retrieve, or does it need new coordinates
# (normalized projection)? Could the alignment ratio, which is taken before any training, have said so?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`) and the backbone `page-text`. Probes are fitted to
# the train split and evaluated on validation; test is not read. Pages pass the backbone once for all notebooks: what is in the
# store already (`runs/store`, or the folder that `MINER_DIAG_STORE` names) is read from there.
#
# **Cost.** Without a GPU, one thread: 2.5 minutes and 1.1 GB on `sample`; on `debian-docs-large` about 5 minutes and 1.4 GB,
# and 10 to 20 minutes more for the backbone's one pass over the pages where they are not in the store.

# %%
import os
from pathlib import Path

from IPython.display import Image

from miner_diag.backbones import LoadOptions
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions
from miner_diag.figures import save_figure
from miner_diag.probes.plots import probe_figure, ratio_figure, salience_figure
from miner_diag.probes.ratio_table import ratio_table
from miner_diag.probes.run import ProbesOptions, run
from miner_diag.tables import read_csv, with_subject, write_csv

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
RUNS = Path(os.environ.get("MINER_DIAG_RUNS", "runs"))
STORE = StoreOptions(store=Path(os.environ.get("MINER_DIAG_STORE", RUNS / "store")))
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", RUNS / "figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
OUT = RUNS / "03_probes" / DATA
OF = {"data": DATA, "queries": "hidden", "split": "validation", "model": "page-text"}

# %% [markdown]
# ## Fit, compare, select
#
# The same as `python -m miner_diag.probes --data … --out …` on the shell. The sentences at its end are the answer in short.

# %%
run(ProbesOptions(load=LoadOptions("page-text"), data=DataOptions(DATA), store=STORE, out=OUT))

# %% [markdown]
# ## Both kinds at every layer
#
# Bars are 95 % intervals over validation documents, where there are at least six of them. The best epoch, the kind and the
# layers were chosen on the same queries, so the chosen probes look better than they are; only the test split, which is for
# the end, can say by how much.

# %%
controls = read_csv(OUT / "controls.csv")
probes = with_subject(read_csv(OUT / "probes.csv"), **OF, chance=controls["chance"].iloc[0])
write_csv(FIGURES / "03_probes.csv", probes)
save_figure(probe_figure(probes), FIGURES / "03_probes.png")
Image(FIGURES / "03_probes.png", width=720)

# %% [markdown]
# ## How few neurons carry a probe
#
# Base probe: the squared gate; a probe that training did not improve keeps its gates at 1, all neurons alike. Projection:
# what an output coordinate adds to the score of true pairs beyond any pair. A curve tells which share of a layer's neurons holds
# half, three quarters and 90 % of its salience.

# %%
concentration = with_subject(read_csv(OUT / "concentration.csv"), **OF).round(5)
write_csv(FIGURES / "03_salience.csv", concentration)
save_figure(salience_figure(concentration), FIGURES / "03_salience.png")
Image(FIGURES / "03_salience.png", width=720)

# %% [markdown]
# ## Could the alignment ratio have told?
#
# Above: the ratio of pages to the final layer, which the rule goes by. Below: of queries to their pages. A number is a layer.

# %%
ratios = with_subject(ratio_table(probes), **OF, ratio_threshold=0.5)
write_csv(FIGURES / "03_ratio.csv", ratios)
save_figure(ratio_figure(ratios), FIGURES / "03_ratio.png")
rule = read_csv(OUT / "rule.csv")
write_csv(FIGURES / "03_rule.csv", rule)
Image(FIGURES / "03_ratio.png", width=720)

# %% [markdown]
# Every threshold of four readings of the ratio, over the layers below the final one: how often it names the kind that the
# paired test prefers, out of `decided_layers`. *Centred* takes the mean of the training pages out before the cosine; where all
# vectors share one direction, only that can tell layers apart.

# %%
inner = rule[rule["layers"] == "inner"]
table = inner.pivot(index="threshold", columns="reading", values="hits")
table.assign(decided_layers=inner.groupby("threshold")["decided_layers"].first()).T

# %% [markdown]
# ## Controls
#
# `shuffled_pairs`: probes fitted to shuffled pairs and evaluated on such; they must be at chance. `unaligned_…`: probes from a
# start that knows nothing, fitted to true or shuffled pairs and evaluated on true ones; shuffled pairs must leave them at chance.
# `start`, `shuffled_training`: the usual start before and after training on shuffled pairs, evaluated on true ones; `over_start`
# is what needed no pairs. Last come the embedding layer and the final layer alone.

# %%
controls.to_csv(FIGURES / "03_controls.csv", index=False, lineterminator="\n")
controls.groupby(["control", "kind"])[["ndcg_at_5", "over_start"]].agg(["min", "max"]).round(4)

# %% [markdown]
# **Answer.** The sentences that the command printed: which kind each layer needs, which layers are kept and how often other
# queries would keep them, and whether the alignment ratio names the better kind more often than a constant guess.
