"""Small layers of which it is known what they carry, and a corpus of them with all three splits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from miner_diag.corpus import Corpus, Page, Query
from miner_diag.embeddings.extract import CorpusStores
from miner_diag.embeddings.job import Embedded
from miner_diag.embeddings.store import StoreWriter
from miner_diag.fusion import FittedProbes
from miner_diag.probes import ProbeStack, RetrievalData
from miner_diag.retrieval import Relevance

KEY = {"model": "planted", "revision": "1"}
L, D = 5, 16
INNER = 1
"""The inner layer that carries what the final one lacks."""


@pytest.fixture(scope="session")
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judge_of(queries, pages, relevance=None, hashes=None, documents=None):
    """Query i asks for page i where nothing else is said."""
    relevance = np.arange(len(queries)) if relevance is None else relevance
    hashes = hashes or [f"h{number}" for number in range(len(pages))]
    return RetrievalData.of(queries, pages, Relevance.of(relevance, n_pages=len(pages)), hashes, documents)


@pytest.fixture(scope="session")
def judged():
    return judge_of


def plant_layers(n, rng, turn, inner=True):
    """Final layer: half of a meaning in half of its neurons. Layer 1: the other half, turned. Others: noise.

    A quarter of the pages has no query.
    """
    n_pages = n + n // 4
    halves = rng.normal(size=(2, n_pages, D // 2))
    queries, pages = rng.normal(size=(n, L, D)), rng.normal(size=(n_pages, L, D))
    answers = rng.permutation(n_pages)[:n]  # so that queries and their pages stand in different rows
    for side, rows in ((queries, answers), (pages, np.arange(n_pages))):
        for layer, half in ((L - 1, 0), (INNER, 1)):
            said = 0.3 * rng.normal(size=(len(rows), D))
            said[:, : D // 2] = halves[half, rows] + 0.7 * rng.normal(size=(len(rows), D // 2))
            if layer == L - 1:
                side[:, layer] = said
            elif inner:
                side[:, layer] = said @ turn
    return judge_of(queries.astype(np.float32), pages.astype(np.float32), answers)


@pytest.fixture(scope="session")
def plant(one_thread):
    """Train, validation and test of the planted problem, or of one whose inner layers are noise."""

    def make(inner=True, seed=1):
        rng = np.random.default_rng(seed)
        turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
        parts = (plant_layers(n, rng, turn, inner) for n in (500, 200, 200))
        return SimpleNamespace(**dict(zip(("train", "validation", "test"), parts, strict=True)))

    return make


@pytest.fixture(scope="session")
def make_probed():
    """What a probe stage could hand over: anything, of the right shape."""

    def make(selected=(0, 1, 3, 4), *, kinds=None, width=D, sides=1, seed=5):
        rng = np.random.default_rng(seed)
        stack = ProbeStack(
            (1 + 0.3 * rng.normal(size=(L, sides, width))).astype(np.float32),
            (np.eye(width) + 0.1 * rng.normal(size=(L, sides, width, width))).astype(np.float32),
            KEY,
        )
        kinds = kinds or ("base", "normalized_projection", "base", "normalized_projection", "base")
        return FittedProbes(
            stack,
            rng.uniform(0.2, 0.8, size=(2, L)),
            rng.exponential(size=(2, L, width)),
            kinds,
            tuple(selected),
            (0.2, 0.4, 0.6, 0.6, 1.0),
        )

    return make


@pytest.fixture
def small(rng, one_thread):
    """Forty queries and fifty pages that share a little in each layer."""
    meaning = rng.normal(size=(50, L, D))
    queries, pages = ((meaning[:n] + 1.2 * rng.normal(size=(n, L, D))).astype(np.float32) for n in (40, 50))
    return judge_of(queries, pages)


@pytest.fixture(scope="session")
def make_embedded(tmp_path_factory):
    """A corpus of twelve documents, embedded: 4 train, 4 validation, 4 test; `swap` deals labels of one split anew."""
    rng = np.random.default_rng(3)
    n_documents, per_document = 12, 10
    n = n_documents * per_document
    meaning = rng.normal(size=(n, L, D))
    vectors = [(meaning + 1.3 * rng.normal(size=meaning.shape)).astype(np.float32) for _ in range(2)]
    documents = [f"d{number // per_document:02}" for number in range(n)]
    folder, stores = tmp_path_factory.mktemp("embedded"), []
    for name, found in zip(("queries", "pages"), vectors, strict=True):
        ids = [f"{name[0]}{number:03}" for number in range(n)]
        writer = StoreWriter(folder / name, {"side": name}, ids, found.shape, {"empty": 0, "truncated": 0})
        for number, part in enumerate(np.array_split(rng.permutation(n), 3)):
            writer.write(number, part.tolist(), found[part])
        stores.append(writer.finish(3))
    splits = {name: ("train", "validation", "test")[place % 3] for place, name in enumerate(sorted(set(documents)))}

    def make(swap=None):
        answers = np.arange(n)
        if swap:
            mine = np.array([number for number in range(n) if splits[documents[number]] == swap])
            answers[mine] = np.random.default_rng(8).permutation(mine)
        corpus = Corpus(
            "planted",
            "hidden",
            0,
            tuple(Page(f"p{i:03}", documents[i], i % per_document + 1, "", f"h{i}") for i in range(n)),
            tuple(Query(f"q{i:03}", f"query {i}", "given", documents[i]) for i in range(n)),
            {f"q{i:03}": {f"p{answers[i]:03}": 1} for i in range(n)},
            dict(splits),
            renderer=lambda page, side: None,
        )
        backbone = SimpleNamespace(
            key=lambda side=None: dict(KEY),
            device="cpu",
            shared_layers=True,
            name="planted",
            revision="1",
            last_layer=L - 1,
        )
        noise = SimpleNamespace(as_dict=dict)
        return Embedded(corpus, backbone, CorpusStores(*stores), noise)

    return make
