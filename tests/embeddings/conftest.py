"""A backbone of NumPy only: deterministic, quick, and breakable on purpose."""

from types import SimpleNamespace

import numpy as np
import pytest

from miner_diag.backbones.base import Encoded
from miner_diag.corpus.core import Page, Query

L, D = 4, 6


class PretendBackbone:
    """Layer l of an item is a fixed function of its words, whatever its batch mates are."""

    name, revision, n_layers, width, pooling = "pretend", "sha256:0", L - 1, D, "mean"
    query_prompt = page_prompt = ""
    dtype, device, last_layer, shared_layers = "float32", "cpu", "Layer 3 is the last.", True

    def __init__(self):
        self.batches = []
        """Ids of each batch, in the order they were embedded."""
        self.room = 10**9
        """A larger batch runs out of memory."""
        self.spoil = lambda item_id, layers: layers
        """Changes an item's layers [L, D]."""

    def layer_shape(self, side):
        return L, D

    def key(self, side=None):
        return {"backbone": self.name, "backbone_revision": self.revision, "dtype": self.dtype}

    def prepare(self, items, side):
        ids = [getattr(item, f"{side}_id") for item in items]
        words = [item.text.split() or ["nothing"] for item in items]
        return [
            Encoded(i, side, {"words": np.array([len(word) for word in w])}, len(w), empty=w == ["nothing"])
            for i, w in zip(ids, words, strict=True)
        ]

    def embed(self, batch):
        if len(batch) > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        self.batches.append([item.item_id for item in batch])
        powers = np.arange(1, L * D + 1).reshape(L, D)
        layers = [np.sin(powers * item.inputs["words"].sum()).astype(np.float32) for item in batch]
        return np.stack([self.spoil(item.item_id, layer) for item, layer in zip(batch, layers, strict=True)])


class PretendLate(PretendBackbone):
    """A token vector is a fixed function of its word."""

    width = D

    def embed(self, batch):
        raise AssertionError("late interaction pools nothing")

    def embed_tokens(self, batch):
        if len(batch) > self.room:
            raise MemoryError
        self.batches.append([item.item_id for item in batch])
        powers = np.arange(1, D + 1)
        found = [np.sin(powers * item.inputs["words"][:, None]).astype(np.float32) for item in batch]
        return [self.spoil(item.item_id, tokens) for item, tokens in zip(batch, found, strict=True)]


@pytest.fixture
def late():
    return PretendLate()


@pytest.fixture
def backbone():
    return PretendBackbone()


@pytest.fixture(scope="session")
def pages():
    rng = np.random.default_rng(3)
    return [
        Page(
            f"p{n}", "d", n + 1, " ".join("x" * int(size) for size in rng.integers(1, 9, rng.integers(0, 30))), f"h{n}"
        )
        for n in range(40)
    ]


@pytest.fixture(scope="session")
def queries():
    return [Query(f"q{n}", f"what is {'x' * n}", "given", "d") for n in range(12)]


@pytest.fixture
def corpus(pages, queries):
    """As much of a corpus as the embeddings look at."""
    return SimpleNamespace(
        name="tiny", form="hidden", fold=0, part="validation", revision="abc", pages=pages, queries=queries
    )
