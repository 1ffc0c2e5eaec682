"""Layers of which it is known which carry the answer and in which form."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from miner_diag.backbones import Encoded
from miner_diag.backbones.base import OnePooling
from miner_diag.corpus import Corpus, Page, Query
from miner_diag.embeddings import EmbeddedCorpus, StoreOptions
from miner_diag.probes import RetrievalData
from miner_diag.retrieval import Relevance

L, D, SIGNAL = 9, 80, 8
"""Layers, width, and the number of neurons that carry the signal in layers 2 and 7 of `plant`."""


def retrieval_data(queries, pages, hashes=None, documents=None):
    """Query i asks for page i."""
    relevance = Relevance.of(np.arange(len(queries)), n_pages=len(pages))
    return RetrievalData.of(queries, pages, relevance, hashes or [f"h{i}" for i in range(len(pages))], documents)


def plant(n, rng, turn, rows):
    """Noise in all layers; 2: signal in a turned subspace; 5: every neuron carries some; 7: signal in `rows`."""
    queries, pages = rng.normal(size=(2, n, L, D))
    few, other, wide = rng.normal(size=(n, SIGNAL)), rng.normal(size=(n, SIGNAL)), rng.normal(size=(n, D))
    for side in (queries, pages):
        straight = side[:, 2].copy()
        straight[:, :SIGNAL] = 1.5 * few + 0.3 * rng.normal(size=few.shape)
        side[:, 2] = straight @ turn
        side[:, 5] = 0.65 * wide + rng.normal(size=wide.shape)
        side[:, 7, rows] = 1.5 * other + 0.3 * rng.normal(size=other.shape)
    return retrieval_data(queries.astype(np.float32), pages.astype(np.float32))


def only(data, layer):
    """Return data with one layer of `data`."""
    return replace(data, queries=data.queries[:, [layer]], pages=data.pages[:, [layer]])


KEY = {"backbone": "planted", "backbone_revision": "1"}
"""The key of the backbone of `pretend_embedded`."""

N_DOCUMENTS, PER_DOCUMENT = 24, 6


class FunctionBackbone(OnePooling):
    """A retriever whose layers of an item are a function of its id."""

    name, revision, shared_layers, device = "planted", "1", True, "cpu"

    def __init__(self, layers_of, shape):
        self.layers_of, self.shape = layers_of, shape

    def layer_shape(self, side):
        return self.shape

    def key(self, side=None):
        return dict(KEY)

    def prepare(self, items, side):
        return [Encoded(getattr(item, f"{side}_id"), side, {}, n_tokens=1) for item in items]

    def embed(self, batch):
        return np.stack([self.layers_of(item.item_id) for item in batch]).astype(np.float32)


def stored(folder, layers_of, n, shape):
    """Return stores of n queries q0, q1, … and n pages p0, p1, …, which lie on disk."""
    pages = tuple(Page(f"p{i}", "d", i + 1, f"page {i}", f"h{i}") for i in range(n))
    queries = tuple(Query(f"q{i}", f"query {i}", "given", "d") for i in range(n))
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(n)}
    corpus = Corpus("stored", "hidden", 0, pages, queries, qrels, {"d": "train"}, renderer=lambda page, side: None)
    backbone = FunctionBackbone(layers_of, shape)
    return EmbeddedCorpus(corpus, backbone, StoreOptions(store=folder), progress=False).take(corpus).stores


class ArrayStore:
    """Rows of an array, read as those of an embedding store are."""

    def __init__(self, vectors):
        self.layer_embeddings, self.shape = vectors, vectors.shape
        self.inputs = list(range(len(vectors)))  # no two items are the same

    def layer(self, layer):
        return self.layer_embeddings[:, layer]

    def rows(self, rows):
        return self.layer_embeddings[rows]


class PretendEmbeddedCorpus:
    """What `open_corpus` returns, made of arrays; `taken` names the parts that were taken, in order."""

    def __init__(self, corpus, backbone, queries, pages):
        self.corpus, self.backbone, self.taken = corpus, backbone, []
        self.queries, self.pages = queries, pages
        self._rows = {query.query_id: queries[row] for row, query in enumerate(corpus.queries)}
        self._rows |= {page.page_id: pages[row] for row, page in enumerate(corpus.pages)}

    def take(self, part):
        self.taken.append(part.part)
        stores = SimpleNamespace(
            queries=ArrayStore(np.stack([self._rows[query.query_id] for query in part.queries])),
            pages=ArrayStore(np.stack([self._rows[page.page_id] for page in part.pages])),
        )
        return SimpleNamespace(
            corpus=part,
            backbone=self.backbone,
            stores=stores,
            facts=lambda: {"backbone": self.backbone.key()},
            notes=lambda: [f"1 of {len(part.pages)} pages have no text to read (see --reader)"],
        )


def pretend_embedded(*, shared_layers=True, same_pictures=False, n_layers=3, width=10):
    """Twenty-four documents in three splits, whose queries and pages share a little at every layer."""
    rng = np.random.default_rng(3)
    n = N_DOCUMENTS * PER_DOCUMENT
    meaning = rng.normal(size=(n, n_layers, width))
    queries, pages = ((meaning + 1.2 * rng.normal(size=meaning.shape)).astype(np.float32) for _ in range(2))
    documents = [f"d{number // PER_DOCUMENT:02}" for number in range(n)]
    splits = {name: ("train", "validation", "test")[row % 3] for row, name in enumerate(sorted(set(documents)))}
    corpus = Corpus(
        "planted",
        "hidden",
        0,
        tuple(
            Page(f"p{i:03}", documents[i], i % PER_DOCUMENT + 1, "", "one" if same_pictures else f"h{i}")
            for i in range(n)
        ),
        tuple(Query(f"q{i:03}", f"query {i}", "given", documents[i]) for i in range(n)),
        {f"q{i:03}": {f"p{i:03}": 1} for i in range(n)},
        splits,
        renderer=lambda page, side: None,
    )
    backbone = SimpleNamespace(
        key=lambda side=None: dict(KEY),
        device="cpu",
        shared_layers=shared_layers,
        name="planted",
        revision="1",
        texts_read=lambda pages: [page.text for page in pages],
    )
    return PretendEmbeddedCorpus(corpus, backbone, queries, pages)
