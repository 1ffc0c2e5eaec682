"""The splits that probes see, as rows of one store: a split is embedded when it is taken, and never twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

from miner_diag.corpus import Corpus
from miner_diag.embeddings import Embedded, EmbeddedCorpus, layer_bytes
from miner_diag.probes.probe_stack import ProbeError
from miner_diag.probes.retrieval_data import RetrievalData, Side, Vectors, final_at_every_layer
from miner_diag.retrieval.relevance import Relevance


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a corpus with its layers."""

    corpus: Corpus
    """The queries and pages of the split."""
    data: RetrievalData
    """The vectors and relevances; rows are those of `corpus`."""
    embedded: Embedded
    """The backbone, and what was noted when these items passed through it."""

    def facts(self) -> dict[str, int | str]:
        """Return what ``run.json`` says about this split."""
        return {
            "corpus_part": self.corpus.part,
            "corpus_revision": self.corpus.revision,
            "n_queries": len(self.corpus.queries),
            "n_pages": len(self.corpus.pages),
            "n_pairs": len(self.data.pairs[0]),
            "n_documents": len({page.doc_id for page in self.corpus.pages}),
        }


@dataclass(frozen=True, eq=False)
class Splits:
    """The layers of the training and the validation split."""

    train: Split
    """What probes are fitted to."""
    validation: Split
    """What decides everything else."""

    def notes(self) -> list[str]:
        """Return sentences on what the retriever did not get to read, by split."""
        return [
            f"{split.corpus.part}: {note}" for split in (self.train, self.validation) for note in split.embedded.notes()
        ]


def fitting_splits(
    embedded_corpus: EmbeddedCorpus, corpus: Corpus | None = None, *, memory_gb: float, side: Side | None = None
) -> Splits:
    """Return the train and the validation split; the test split is neither embedded nor read.

    Parameters
    ----------
    embedded_corpus : EmbeddedCorpus
        All splits, the backbone and the store.
    corpus : Corpus, optional
        The same items with their documents dealt to splits anew (:func:`~miner_diag.corpus.splits.resplit`).
    memory_gb : float
        Queries or pages of a split that are larger are read from disk row by row.
    side : str, optional
        For a dual encoder: the side whose layers are wanted. They are set against the final embedding of the other
        side, because layer l of one encoder has no counterpart in the other.

    Raises
    ------
    ProbeError
        If a page's picture stands in both splits, so that a probe could learn it by heart; or if the backbone is a dual
        encoder and no side is named, or has shared layers and a side is named.
    CorpusError
        If a split holds no query.
    """
    corpus = corpus or embedded_corpus.corpus
    train_pages, validation_pages = (
        {page.page_hash for page in corpus.split(name).pages} for name in ("train", "validation")
    )
    shared = train_pages & validation_pages
    if shared:
        raise ProbeError(
            f"{len(shared)} page pictures stand in train and in validation, so validation would flatter the probes; "
            "take another --fold, or put these documents into one"
        )
    return Splits(*(take_split(embedded_corpus, corpus, name, memory_gb, side) for name in ("train", "validation")))


def take_split(
    embedded_corpus: EmbeddedCorpus, corpus: Corpus, name: str, memory_gb: float, side: Side | None = None
) -> Split:
    """Return one split with its layers; what of it is not in the store is embedded.

    Parameters and errors are those of `fitting_splits`; `name` is "train", "validation" or "test".
    """
    backbone = embedded_corpus.backbone
    if backbone.shared_layers == (side is not None):
        raise ProbeError(
            f"{backbone.name} is a dual encoder, whose layers must not be paired: name the side to probe"
            if side is None
            else f"{backbone.name} has one stack of layers for both sides, so no side of it stands alone"
        )
    embedded = embedded_corpus.take(corpus.split(name))
    part, stores = embedded.corpus, (embedded.stores.queries, embedded.stores.pages)
    ids = [query.query_id for query in part.queries], [page.page_id for page in part.pages]
    vectors: list[Vectors] = [
        store.layer_embeddings if layer_bytes(store.shape) <= memory_gb * 1e9 else store for store in stores
    ]
    fixed: Side | None = None
    if side is not None:
        fixed, number = ("query", 0) if side == "page" else ("page", 1)
        _, n_layers, width = stores[1 - number].shape
        final = stores[number].layer(stores[number].shape[1] - 1)
        vectors[number] = final_at_every_layer(final, n_layers, width)
    data = RetrievalData.of(
        vectors[0],
        vectors[1],
        Relevance.from_qrels(part.qrels, *ids, ignore_self=part.ignore_self),
        [page.page_hash for page in part.pages],
        [query.doc_id for query in part.queries],
        fixed,
    )
    number_of = {page_id: number for number, page_id in enumerate(ids[1])}
    given = {
        row: [number_of[page_id] for page_id in part.negatives[query_id]]
        for row, query_id in enumerate(ids[0])
        if query_id in part.negatives
    }
    return Split(part, replace(data, given_negatives=given), embedded)
