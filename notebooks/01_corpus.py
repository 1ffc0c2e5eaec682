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
# # 01 · What is in the data?
#
# **Question.** Which queries and pages do we measure on, and how much of the task is string matching?
#
# **Inputs.** The data set named by `MINER_DIAG_DATA` (default `sample`, shipped with the package).
#
# **Cost.** On two cores without a GPU: about 2 minutes and 1.5 GB on `sample`; 4 minutes on `debian-docs-small`.

# %%
import os
from pathlib import Path

import numpy as np
import pandas as pd

from miner_diag.backbones import LoadOptions
from miner_diag.corpus import load_corpus
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.plots import hidden_and_verbatim, queries_by_kind, removed_words
from miner_diag.corpus.summary import corpus_summary, skipped_lines
from miner_diag.embeddings import StoreOptions, open_corpus
from miner_diag.figures import save_figure
from miner_diag.retrieval import ndcg_of_run, top_k
from miner_diag.stats import bootstrap_mean, paired_bootstrap
from miner_diag.tables import with_subject, write_csv

DATA = os.environ.get("MINER_DIAG_DATA", "sample")
RUNS = Path(os.environ.get("MINER_DIAG_RUNS", "runs"))
STORE = StoreOptions(store=Path(os.environ.get("MINER_DIAG_STORE", RUNS / "store")))
FIGURES = Path(os.environ.get("MINER_DIAG_FIGURES", RUNS / "figures"))
FIGURES.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Queries come from the documents themselves
#
# Outline titles and figure and table captions, each with the page it stands on as its one right answer. A text that leads
# to two pages is dropped. Splits go by document.

# %%
corpus = load_corpus(DATA)
summary = corpus_summary(corpus)
print("\n".join(skipped_lines(corpus.skipped)))
summary

# %%
kinds = with_subject(summary, data=corpus.name, fold=corpus.fold)
write_csv(FIGURES / "01_queries_by_kind.csv", kinds)
save_figure(queries_by_kind(kinds), FIGURES / "01_queries_by_kind.png")

# %% [markdown]
# A few queries of each kind:

# %%
shown = pd.DataFrame([vars(query) for query in corpus.queries])[["kind", "text", "query_id"]]
shown.groupby("kind").head(4).sort_values("kind").reset_index(drop=True)

# %% [markdown]
# ## The words of a query are taken off its page
#
# A title or caption stands word for word on its page. In the *hidden* form its words are whited out of the picture and cut
# from the text (on every page of its document, so that a running header or a table of contents does not show them on the
# wrong pages alone). The *verbatim* form leaves pages as they are. The examples are of pages that lose nothing but their own query's
# words; frames mark them.

# %%
verbatim = load_corpus(DATA, queries="verbatim")
of_kind = {kind: [query for query in corpus.queries if query.kind == kind] for kind in ("outline", "figure", "table")}
candidates = [query for queries in of_kind.values() for query in queries[:: max(1, len(queries) // 12)]]
removed = removed_words(corpus, verbatim, candidates)
alone = removed.groupby("query_id", sort=False).filter(lambda boxes: len(boxes) == 1)
examples = pd.concat([alone[alone["kind"] == kind].iloc[::3].head(2) for kind in of_kind]).head(4)
write_csv(FIGURES / "01_hidden_and_verbatim.csv", examples)
figure = hidden_and_verbatim(corpus, verbatim, examples)  # pictures of pages, so there is no SVG
figure.savefig(FIGURES / "01_hidden_and_verbatim.png", dpi=200)

# %% [markdown]
# ## What hiding costs a retriever of page texts
#
# nDCG@5 of `page-text` (its final layer, as it is used) on the test split, both forms, the queries of the
# hidden form: a few verbatim ones have no hidden form.

# %%
values, asked = {}, corpus.split("test").qrels
for form in ("hidden", "verbatim"):
    embedded = open_corpus(LoadOptions("page-text"), DataOptions(DATA, form), STORE)
    test = embedded.take(embedded.corpus.split("test"))
    queries, pages = test.stores.queries, test.stores.pages
    hits = top_k(queries.layer(test.backbone.n_layers), pages.layer(test.backbone.n_layers), 100)
    values[form] = ndcg_of_run(asked, hits.to_run(queries.ids, pages.ids), k=5).values

# %%
rng = np.random.default_rng(0)
rows = {form: bootstrap_mean(value, rng) for form, value in values.items()}
rows["hidden - verbatim"] = paired_bootstrap(values["hidden"], values["verbatim"], rng)
table = pd.DataFrame(
    [{"queries": name, "ndcg_at_5": i.value, "low": i.low, "high": i.high, "n": i.n} for name, i in rows.items()]
)
table.to_csv(FIGURES / "01_hidden_or_verbatim_ndcg.csv", index=False, lineterminator="\n")
table.round(3)

# %% [markdown]
# **Answer.** The first table says what is measured on; the last one says how much of the verbatim score rests on the
# query's own words standing on the page: the difference of the two forms, with its interval.
