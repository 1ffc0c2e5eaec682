"""Small layers of which it is known what they carry, probes of them, and a corpus of them with all three splits."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from miner_diag.corpus import Corpus, Page, Query
from miner_diag.fusion import FusionConfig, FusionTrainOptions, MaskOptions, Materials, TuningOptions
from miner_diag.fusion.miner_building import MinerOptions, MinerParts
from miner_diag.fusion.run import FusionOptions, run
from miner_diag.fusion.top_p import TopPOptions
from miner_diag.probes import (
    FittedProbes,
    ProbeStack,
    ProbeTrainOptions,
    RetrievalData,
    SelectionRule,
    StudyOptions,
)
from miner_diag.probes.gate_probes import GateProbeOptions, GateProbes
from miner_diag.probes.layer_choice import LayerChoice, LayerChoiceOptions, LayerMeasures
from miner_diag.retrieval import Relevance
from miner_diag.stats import StatisticsOptions

KEY = {"model": "planted", "revision": "1"}
L, D = 5, 16
INNER = 1
"""The inner layer that carries what the final one lacks."""
N_DOCUMENTS, PER_DOCUMENT = 12, 10


def retrieval_data(queries, pages, relevance=None, hashes=None, documents=None):
    """Query i asks for page i where nothing else is said."""
    relevance = np.arange(len(queries)) if relevance is None else relevance
    hashes = hashes or [f"h{number}" for number in range(len(pages))]
    return RetrievalData.of(queries, pages, Relevance.of(relevance, n_pages=len(pages)), hashes, documents)


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
            states = 0.3 * rng.normal(size=(len(rows), D))
            states[:, : D // 2] = halves[half, rows] + 0.7 * rng.normal(size=(len(rows), D // 2))
            if layer == L - 1:
                side[:, layer] = states
            elif inner:
                side[:, layer] = states @ turn
    return retrieval_data(queries.astype(np.float32), pages.astype(np.float32), answers)


def plant(inner=True, seed=1):
    """Train, validation and test of the planted problem, or of one whose inner layers are noise."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
    train, validation, test = (plant_layers(n, rng, turn, inner) for n in (500, 200, 200))
    return SimpleNamespace(train=train, validation=validation, test=test)


def small_data(rng):
    """Forty queries and fifty pages that share a little in each layer."""
    meaning = rng.normal(size=(50, L, D))
    queries, pages = ((meaning[:n] + 1.2 * rng.normal(size=(n, L, D))).astype(np.float32) for n in (40, 50))
    return retrieval_data(queries, pages)


def make_probes(selected=(0, 1, 3, 4), *, kinds=None, width=D, sides=1, seed=5):
    """What a probe stage could hand over: anything, of the right shape."""
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


MINER_KINDS = ("base", "normalized_projection", "base", "normalized_projection", "base")
"""The kinds of probe that `make_miner` takes the ratio to name."""


def make_gate_probes(layers, kinds, *, sides="shared", unit_input=True, width=D, seed=6, scores=None):
    """Probes of MINER's as a fit could leave them: any gates, maps with rows of unit length."""
    rng = np.random.default_rng(seed)
    n, n_sides = len(layers), 2 if sides == "per_side" else 1
    maps = rng.normal(size=(n, n_sides, width, width))
    maps = (maps / np.linalg.norm(maps, axis=-1, keepdims=True)).astype(np.float32)
    scores = np.linspace(0.3, 0.6, n) if scores is None else np.array(scores)
    return GateProbes(
        tuple(layers),
        tuple(kinds),
        rng.normal(size=(n, n_sides, width)).astype(np.float32),
        tuple(None if kind == "base" else matrix for kind, matrix in zip(kinds, maps, strict=True)),
        GateProbeOptions(sides=sides, unit_input=unit_input),
        np.repeat(scores[:, None], 7, axis=1),
        np.zeros((1, n)),
        np.zeros((0, n)),
        np.zeros(n, dtype=np.int64),
        np.full(n, 0.07),
        0.0,
    )


def make_miner(
    layers=(1, 3, 4), *, probed=(0, 1, 2, 3), kinds=MINER_KINDS, mask=None, gate_inside=False, width=D, **probes
):
    """What MINER's form is built of, made by hand."""
    options = MinerOptions(mask=mask or TopPOptions(floor=3), gate_inside=gate_inside)
    measures = tuple(LayerMeasures(layer, *[0.5] * 7) for layer in range(len(kinds)))
    return MinerParts(
        LayerChoice(tuple(layers), tuple(kinds), measures, LayerChoiceOptions()),
        make_gate_probes(probed, [kinds[layer] for layer in probed], width=width, **probes),
        options,
        width,
    )


def materials_of(data, config=None, mask=None, **probes):
    """What systems are built from, with probes that `make_probes` makes."""
    return Materials(make_probes(**probes), data, config or FusionConfig(), mask or MaskOptions(), make_miner())


def content_of(system):
    """Every tensor of a system, as bytes."""
    return {name: tensor.numpy().tobytes() for name, tensor in system.state_dict().items()}


class ArrayStore:
    """Some rows of an array, read as those of an embedding store are; `loaded` says whether all were read at once."""

    def __init__(self, vectors):
        self._vectors, self.shape, self.loaded = vectors, vectors.shape, False
        self.inputs = list(range(len(vectors)))  # no two items are the same

    @property
    def layer_embeddings(self):
        self.loaded = True
        return self._vectors

    def layer(self, layer):
        return self._vectors[:, layer]

    def rows(self, rows):
        return self._vectors[rows]


class PretendEmbeddedCorpus:
    """What `open_corpus` returns, made of arrays; `taken` names the splits and `embedded` the items that were taken."""

    def __init__(self, corpus, backbone, vectors):
        self.corpus, self.backbone = corpus, backbone
        self._vectors, self.taken, self.embedded = vectors, [], set()

    def with_corpus(self, **changed):
        """The same items with another corpus around them."""
        return PretendEmbeddedCorpus(replace(self.corpus, **changed), self.backbone, self._vectors)

    def take(self, part):
        self.taken.append((part.part, part.fold))
        ids = [query.query_id for query in part.queries], [page.page_id for page in part.pages]
        self.embedded |= {*ids[0], *ids[1]}
        queries, pages = (ArrayStore(np.stack([self._vectors[name] for name in names])) for names in ids)
        return SimpleNamespace(
            corpus=part,
            backbone=self.backbone,
            stores=SimpleNamespace(queries=queries, pages=pages),
            facts=lambda: {"backbone": self.backbone.key(), "corpus": part.name},
            notes=lambda: [],
        )


QUICK = FusionOptions(
    miner=MinerOptions(
        LayerChoiceOptions(select="closest", n_closest=2),
        GateProbeOptions(epochs=2, hard_negatives=4, batch_size=20),
        TopPOptions(floor=4),
    ),
    probe=StudyOptions(
        training=ProbeTrainOptions(epochs=2, batch_size=16, start="identity"),
        selection=SelectionRule(rule="top_k", top_k=3),
        resamples=3,
    ),
    training=FusionTrainOptions(epochs=2, batch_size=20, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2),
    tuning=TuningOptions(n_seeds=2, rate_scales=(0.5,)),
    statistics=StatisticsOptions(intervals_over="items"),
)
"""Options of a run of the command that takes seconds."""


def run_on(embedded_corpus, out, monkeypatch, *, figures=False, **changed):
    """Run the command on an embedded corpus that is already open; return its output folder."""
    monkeypatch.setattr("miner_diag.fusion.run.open_corpus", lambda *options: embedded_corpus)
    # of the probe stage, what costs most here and decides nothing
    monkeypatch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
    if not figures:
        monkeypatch.setattr("miner_diag.runs.save_figure", lambda figure, path: None)
    run(replace(QUICK, out=out, **changed))
    return out


def pretend_embedded(swap=None, shared_layers=True):
    """Twelve documents, four in each split; `swap` deals the answers of one split anew."""
    rng = np.random.default_rng(3)
    n = N_DOCUMENTS * PER_DOCUMENT
    meaning = rng.normal(size=(n, L, D))
    queries, pages = ((meaning + 1.3 * rng.normal(size=meaning.shape)).astype(np.float32) for _ in range(2))
    documents = [f"d{number // PER_DOCUMENT:02}" for number in range(n)]
    splits = {name: ("train", "validation", "test")[row % 3] for row, name in enumerate(sorted(set(documents)))}
    answers = np.arange(n)
    if swap:
        rows = np.array([row for row in range(n) if splits[documents[row]] == swap])
        answers[rows] = np.random.default_rng(8).permutation(rows)
    corpus = Corpus(
        "planted",
        "hidden",
        0,
        tuple(Page(f"p{i:03}", documents[i], i % PER_DOCUMENT + 1, "", f"h{i}") for i in range(n)),
        tuple(Query(f"q{i:03}", f"query {i}", "given", documents[i]) for i in range(n)),
        {f"q{i:03}": {f"p{answers[i]:03}": 1} for i in range(n)},
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
    vectors = {f"q{i:03}": queries[i] for i in range(n)} | {f"p{i:03}": pages[i] for i in range(n)}
    return PretendEmbeddedCorpus(corpus, backbone, vectors)
