"""Scored systems and corpora made by hand."""

from __future__ import annotations

import numpy as np

from miner_diag.corpus import Corpus, Page, Query
from miner_diag.evaluation.scored_system import Measures, ScoredSystem, compare_scored, system_key
from miner_diag.evaluation.table import comparison_table
from miner_diag.stats import StatisticsOptions

N_QUERIES, N_DOCUMENTS = 40, 8


def small_corpus(part="test", form="hidden", name="planted"):
    """Forty queries of eight documents, each with a page of its own."""
    documents = [f"d{number % N_DOCUMENTS}" for number in range(N_QUERIES)]
    return Corpus(
        name,
        form,
        0,
        tuple(Page(f"p{i}", documents[i], i + 1, "", f"h{i}") for i in range(N_QUERIES)),
        tuple(Query(f"q{i}", f"query {i}", "given", documents[i]) for i in range(N_QUERIES)),
        {f"q{i}": {f"p{i}": 1} for i in range(N_QUERIES)},
        dict.fromkeys(documents, "test"),
        renderer=lambda page, side: None,
        part=part,
    )


def systems_of(model="m", base=0.3, gain=0.2, *, late=None, width=16, others=(), seed=0):
    """Backbone, head, fusion and others of one retriever, each query a little different."""
    rng = np.random.default_rng(seed)
    wave = base + 0.001 * (np.arange(N_QUERIES) % 5)

    def system(name, role, values, backbone=None, head=None, seeds=(0, 1), size=4.0 * width, of=model):
        return ScoredSystem(
            of,
            f"sha256:{of}",
            name,
            role,
            f"what {name} is",
            Measures({"ndcg_at_5": values}),
            seeds,
            width,
            size,
            backbone,
            head,
            10,
            1.5,
            (0, 3),
        )

    backbone, head = system_key(model, "backbone"), system_key(model, "final_layer_mlp")
    made = [
        system("backbone", "backbone", wave[None], seeds=(None,)),
        system("final_layer_mlp", "head", np.stack([wave + gain / 2] * 2), backbone),
        system("fusion", "fusion", np.stack([wave + gain] * 2), backbone, head),
    ]
    for name, role, more in others:
        values = np.stack([wave + more + rng.normal(0, 0.01, N_QUERIES) for _ in range(2)])
        made.append(
            system(name, role, values, None if role == "bound" else backbone, None if role == "bound" else head)
        )
    if late is not None:
        name = f"{model}-late"
        made.append(system("late", "late", np.full((1, N_QUERIES), late), backbone, None, (None,), 1000.0, name))
    return made


def compare(systems, corpus=None, by_document=True, **statistics):
    corpus = corpus or small_corpus()
    documents = [query.doc_id for query in corpus.queries] if by_document else None
    return compare_scored(systems, documents, StatisticsOptions(**statistics))


def table_of(systems, corpus=None, by_document=True):
    corpus = corpus or small_corpus()
    return comparison_table(compare(systems, corpus, by_document), systems, corpus)
