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
# # 06 · Is my change real?
#
# **Question.** A system was changed, and its mean moved. Is that more than the luck of these queries, and how large would a change
# have to be for this number of queries to show it?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`) and two run files, the baseline and the changed system, named
# by `MINER_DIAG_RUN_FILES` with a blank between them: TREC (`query Q0 page rank score tag`) or JSON (`{query: {page: score}}`), with
# the ids of the data set. Where it names none, two are made here: BM25 over whole pages, and BM25 over their first 2,000 characters.
#
# **Cost.** Less than a minute and 1 GB on `sample`, where its pages were read before.

# %%
import json
import os
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from miner_diag.corpus.options import DataOptions
from miner_diag.evaluation.main_table import metric_of
from miner_diag.evaluation.plots import query_differences_figure
from miner_diag.evaluation.run import EvaluationOptions
from miner_diag.evaluation.run import run as run_evaluation
from miner_diag.figures import save_figure
from miner_diag.files import write_atomic
from miner_diag.records import read_records, records_to_frame
from miner_diag.retrieval import Hits
from miner_diag.retrieval.bm25 import Bm25Index
from miner_diag.retrieval.trec import RUN_DEPTH
from miner_diag.tables import read_csv, with_subject, write_csv

DATA = DataOptions(os.environ.get("MINER_DIAG_DATA", "sample"))
SPLIT = "all"  # a system that was fitted to some of these documents needs another one: "test"
RUNS = Path(os.environ.get("MINER_DIAG_RUNS", "runs"))
OUT = RUNS / "evaluation" / f"{DATA.data}-own-run"
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", RUNS / "figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
RUN_FILES = os.environ.get("MINER_DIAG_RUN_FILES", "").split()
corpus = DATA.load(SPLIT)

# %% [markdown]
# ## Two run files
#
# What any system can write: for each query the pages that it found, with their scores.

# %%
if not RUN_FILES:
    texts = [page.text for page in corpus.pages]
    query_ids, page_ids = [query.query_id for query in corpus.queries], [page.page_id for page in corpus.pages]
    for name, read in {"bm25-whole-pages": texts, "bm25-first-2000": [text[:2000] for text in texts]}.items():
        scores = Bm25Index(read).scores([query.text for query in corpus.queries])
        run = Hits.of_scores(scores, RUN_DEPTH).to_run(query_ids, page_ids)
        found = {query: {page: score for page, score in pages.items() if score > 0} for query, pages in run.items()}
        write_atomic(RUNS / "own-run" / f"{name}.json", json.dumps(found))
        RUN_FILES.append(str(RUNS / "own-run" / f"{name}.json"))
baseline, changed = RUN_FILES

# %% [markdown]
# ## Compare them query by query
#
# The same as `python -m miner_diag.evaluation --data … --split all --systems BASELINE CHANGED --out …` on the shell. `examples.html`
# in that folder shows the queries that gained and lost most, with the pages that both systems ranked first.

# %%
run_evaluation(EvaluationOptions(systems=(baseline, changed), data=DATA, split=SPLIT, out=OUT))

# %% [markdown]
# ## The answer
#
# `difference_to_backbone` is the changed system less the baseline, on the same queries, between `difference_low` and
# `difference_high` with 95 % confidence; `p_value` is that of the paired permutation test. Both are over documents where there are at
# least six, because queries of one document are alike. `verdict` says "better" or "worse" where p is below 0.05. If it says "not
# distinguishable", `detectable` says what that is worth: a true difference of that size would have been found in 80 of 100 such
# samples of documents (or queries), a smaller one less often. It depends on how much the two systems differ from query to query.

# %%
comparison = pd.read_csv(OUT / "comparison.csv")
answer = comparison[comparison["role"].eq("run")].iloc[-1]
metric = metric_of(comparison)
columns = ["model", metric, "low", "high", "backbone", "difference_to_backbone", "difference_low", "difference_high"]
display(
    answer[[*columns, "p_value", "detectable", "verdict", "n_queries", "n_documents", "effective_documents"]].to_frame()
)

# %% [markdown]
# ## Where the difference comes from
#
# Each query's difference, the largest gain first: a mean can move because few queries move far or because many move a little.

# %%
records = records_to_frame(read_records(OUT / "records.jsonl"))
values = records[records["query_id"].notna() & records["measure"].eq(metric)]
values = values[values["model"].isin([answer["backbone"], answer["model"]])].pivot(
    index="query_id", columns="model", values="value"
)
table = values[[answer["backbone"], answer["model"]]].set_axis(["baseline", "changed"], axis="columns").reset_index()
table.insert(1, "document", table["query_id"].map({query.query_id: query.doc_id for query in corpus.queries}))
table["difference"] = table["changed"] - table["baseline"]
names = {"baseline_name": answer["backbone"], "changed_name": answer["model"], "metric": metric}
names |= {"mean_low": answer["difference_low"], "mean_high": answer["difference_high"]}
of = {name: answer[name] for name in ("data", "queries", "split", "n_documents", "effective_documents")}
write_csv(FIGURES / "06_own_run.csv", with_subject(table, **of, **names))
save_figure(query_differences_figure(read_csv(FIGURES / "06_own_run.csv")), FIGURES / "06_own_run.png")
display(Image(FIGURES / "06_own_run.png", width=700))

# %% [markdown]
# **Answer.** The verdict, with its interval beside it. If it is "not distinguishable", more queries of more documents are needed, or a
# larger change: four times as many documents halve `detectable`.
