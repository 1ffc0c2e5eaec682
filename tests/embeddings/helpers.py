"""A backbone of NumPy only (deterministic, quick, breakable on purpose), corpora for it, and stores made of arrays."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from miner_diag.backbones.base import Encoded, KeptLayers, OnePooling
from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.corpus.splits import split_of
from miner_diag.embeddings.folder import StoreFolder
from miner_diag.embeddings.store import LAYERS, EmbeddingStore
from miner_diag.embeddings.stored import Rows
from miner_diag.embeddings.tokens import TOKENS

L, D = 4, 6


class PretendBackbone(OnePooling):
    """Layer l of an item is a function of its words, and, if `noise` is set, of its batch mates in the last bits."""

    name, revision, n_layers, width, pooling = "pretend", "sha256:0", L - 1, D, "mean"
    query_prompt = page_prompt = ""
    long_pages = None
    dtype, device, last_layer, shared_layers = "float32", "cpu", "Layer 3 is the last.", True
    options = LoadOptions("pretend")

    def __init__(self):
        self.batches = []
        """Ids of each batch, in the order they were embedded."""
        self.prepared = []
        """Numbers of items that were prepared at once."""
        self.room = 10**9
        """A larger batch runs out of memory."""
        self.noise = 0.0
        """How much an item's vectors depend on its batch mates, relative to them."""
        self.spoil = lambda item_id, layers: layers
        """Changes an item's layers [L, D]."""

    def layer_shape(self, side):
        return L, D

    def key(self, side=None):
        return {"backbone": self.name, "backbone_revision": self.revision, "dtype": self.dtype}

    def texts_read(self, pages):
        return [page.text for page in pages]

    def prepare(self, items, side):
        self.prepared.append(len(items))
        ids = [getattr(item, f"{side}_id") for item in items]
        words = [item.text.split() or ["nothing"] for item in items]
        return [
            Encoded(i, side, {"words": np.array([len(word) for word in w])}, len(w), empty=w == ["nothing"])
            for i, w in zip(ids, words, strict=True)
        ]

    def embed(self, batch):
        self._take(batch)
        powers = np.arange(1, L * D + 1).reshape(L, D)
        layers = [np.sin(powers * item.inputs["words"].sum()) for item in batch]
        moved = [(layer * (1 + self.noise * self._mates(batch))).astype(np.float32) for layer in layers]
        return np.stack([self.spoil(item.item_id, layer) for item, layer in zip(batch, moved, strict=True)])

    def embedded(self):
        """Ids of all items that were embedded, as often as they were."""
        return [item_id for batch in self.batches for item_id in batch]

    def _take(self, batch):
        if len(batch) > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        self.batches.append([item.item_id for item in batch])

    @staticmethod
    def _mates(batch):
        """A number that depends on who is in the batch, and 0 for an item alone."""
        return sum((len(batch) > 1) * number * item.n_tokens for number, item in enumerate(batch, start=1)) % 97


class PretendReadout(PretendBackbone):
    """It reads one token: its inner layers are kept under a second pooling too."""

    name = "pretend-readout"

    def __init__(self, layer_pooling="readout"):
        super().__init__()
        self.layer_pooling = layer_pooling

    def key(self, side=None):
        return {**super().key(side), "layer_pooling": self.layer_pooling}

    def kept(self, side):
        means = (*range(L, 2 * L - 1), L - 1)
        return KeptLayers(2 * L - 1, tuple(range(L)) if self.layer_pooling == "readout" else means)

    def embed_kept(self, batch):
        layers = super().embed(batch)
        return np.concatenate([layers, 2 + layers[:, :-1]], axis=1)

    def embed(self, batch):
        return self.embed_kept(batch)[:, list(self.kept("page").layers)]


class PretendLate(PretendBackbone):
    """A token vector is a fixed function of its word."""

    name = "pretend-late"

    def embed(self, batch):
        raise AssertionError("late interaction pools nothing")

    def embed_tokens(self, batch):
        if len(batch) > self.room:
            raise MemoryError
        self.batches.append([item.item_id for item in batch])
        powers = np.arange(1, D + 1)
        tokens = [np.sin(powers * item.inputs["words"][:, None]).astype(np.float32) for item in batch]
        return [self.spoil(item.item_id, vectors) for item, vectors in zip(batch, tokens, strict=True)]


def document_in(split, number=0):
    """Return the name of a document that fold 0 puts into this split, another one for each number."""
    names = (f"d{n}" for n in range(10_000))
    return [name for name in (next(names) for _ in range(60 * (number + 2))) if split_of(name) == split][number]


def make_corpus(sizes, form="hidden", *, fold=0, seed=3, queries_each=2, name="tiny"):
    """Return a corpus of documents with these numbers of pages; on every third page the forms differ.

    Parameters
    ----------
    sizes : mapping of str to int
        Document -> number of its pages.
    """
    rng = np.random.default_rng(seed)
    pages, queries, qrels = [], [], {}
    for doc_id, size in sizes.items():
        for number in range(size):
            words = ["x" * int(length) for length in rng.integers(1, 9, rng.integers(2, 30))]
            altered = number % 3 == 1
            text = " ".join(words if form == "verbatim" or not altered else words[1:])
            pages.append(Page(f"{doc_id}/{number}", doc_id, number + 1, text, f"{doc_id}-{number}", altered))
        for number in range(min(queries_each, size)):
            query = Query(f"{doc_id}/{number}/q", f"what is {'x' * number} {doc_id}", "given", doc_id)
            queries.append(query)
            qrels[query.query_id] = {f"{doc_id}/{number}": 1}
    splits = {doc_id: split_of(doc_id, fold) for doc_id in sizes}
    return Corpus(
        name,
        form,
        fold,
        tuple(pages),
        tuple(queries),
        qrels,
        splits,
        renderer=lambda page_id, side: Image.new("RGB", (side, side), "white"),
    )


def three_splits(*, form="hidden", fold=0):
    """A corpus of twelve documents of 1 to 40 pages, four in each split of fold 0."""
    sizes = {}
    for number, size in enumerate((40, 7, 1, 12)):
        for split in ("train", "validation", "test"):
            sizes[document_in(split, number)] = size
    return make_corpus(sizes, form, fold=fold)


def shard_bytes(root):
    """Return every shard below a folder of stores: its path -> its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.glob("*/shards/[!.]*.safetensors"))}


def kept_bytes(root):
    """Return every file below a folder of stores but the notes of use, which hold the time."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parent.name != "uses"
    }


def damage(path, at=-3):
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def written_store(root, vectors, ids=None, parts=None, *, side="page"):
    """Return a store on disk that holds vectors [N, L, D] float32.

    Parameters
    ----------
    root : path
        The folder of stores; use another one for each call.
    vectors : ndarray [N, L, D]
        Row i is item i.
    ids : sequence of str [N], optional
        The items' ids; their numbers if not given.
    parts : sequence of sequences of int, optional
        Which items stand in which shard, in which order; one shard if not given.
    """
    parts = [list(part) for part in (parts if parts is not None else [range(len(vectors))])]
    ids = tuple(ids) if ids is not None else tuple(str(number) for number in range(len(vectors)))
    fields = {"layers": vectors.shape[1], "width": vectors.shape[2], "dtype": "float32"}
    folder = StoreFolder(root, LAYERS, side, "planted", {"backbone": "planted", "token_budget": "4096"}, fields)
    folder.open()
    shard_numbers, shard_rows = np.empty((2, len(vectors)), dtype=np.int64)
    for number, part in enumerate(parts):
        notes, characters = np.zeros(len(part), dtype=np.int64), np.zeros((len(part), 2), dtype=np.int64)
        tensors = {"layer_embeddings": vectors[part], "notes": notes, "characters": characters}
        tensors["inputs"] = np.array(part, dtype=np.int64)
        folder.write(f"{number:032x}", [ids[row] for row in part], tensors)
        shard_numbers[part], shard_rows[part] = number, np.arange(len(part))
    shards = tuple(folder.shard(f"{number:032x}") for number in range(len(parts)))
    return EmbeddingStore(Rows(folder, ids, shards, shard_numbers, shard_rows), vectors.shape[1:])


@contextmanager
def small_shards():
    """Shards of a few items, so that a small corpus has many."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (LAYERS, TOKENS):
            patch.setitem(kind.shard_items, "page", 8)
            patch.setitem(kind.shard_items, "query", 5)
        yield
