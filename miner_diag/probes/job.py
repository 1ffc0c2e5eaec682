"""From options to the two splits that probes see: train and validation, never test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from miner_diag.embeddings.job import Embedded, StoreOptions, embed
from miner_diag.probes.data import Judged, Vectors
from miner_diag.probes.stack import ProbeError
from miner_diag.provenance import RunClock
from miner_diag.retrieval.relevance import Relevance


@dataclass(frozen=True)
class Splits:
    """A backbone's layers of the training and the validation split."""

    train: Judged
    """What probes are fitted to."""
    validation: Judged
    """What decides everything else."""
    embedded: tuple[Embedded, Embedded]
    """The same with corpus and backbone, train first."""


def embed_splits(options: StoreOptions, folder: Path, clock: RunClock, *, memory_gb: float) -> Splits:
    """Embed train and validation into ``folder/train`` and ``folder/validation``, or open what is there.

    Raises
    ------
    ProbeError
        If a page's picture stands in both splits; a probe could learn it by heart.
    ValueError
        If the data or the model can't be used, or a split holds no query.
    """
    both = tuple(embed(replace(options, split=name), folder / name, clock) for name in ("train", "validation"))
    train, validation = both
    shared = {page.page_hash for page in train.corpus.pages} & {page.page_hash for page in validation.corpus.pages}
    if shared:
        raise ProbeError(
            f"{len(shared)} page pictures stand in train and in validation, so validation would flatter the probes; "
            "take another --fold, or put these documents into one"
        )
    return Splits(judged(train, memory_gb), judged(validation, memory_gb), (train, validation))


def judged(embedded: Embedded, memory_gb: float) -> Judged:
    """Return an embedded corpus as what probes take; stores above `memory_gb` are read row by row."""
    corpus, vectors = embedded.corpus, []
    for store in embedded.stores:
        n_items, n_layers, width = store.shape
        fits = 4 * n_items * n_layers * width <= memory_gb * 1e9
        side: Vectors = store.layer_embeddings if fits else store
        vectors.append(side)
    queries, pages = embedded.stores
    return Judged.of(
        vectors[0], vectors[1], Relevance.from_qrels(corpus.qrels, queries.ids, pages.ids),
        [page.page_hash for page in corpus.pages], [query.doc_id for query in corpus.queries],
    )  # fmt: skip
